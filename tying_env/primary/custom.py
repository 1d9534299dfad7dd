"""Networks of the user's own: any module whose blocks are a list, on batches of the user's own."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tying_env.config import EnvConfig
from tying_env.config.checks import check_type
from tying_env.config.network import CUSTOM
from tying_env.config.tying import Units
from tying_env.data import Batch, Batches, RandomExamples, ShuffledExamples
from tying_env.data.batches import count_examples, mapped, parts_of, sample, take
from tying_env.data.corpus import Split
from tying_env.data.examples import Change
from tying_env.primary.blocks import find_blocks
from tying_env.primary.building import prepared
from tying_env.primary.models import PrimaryNetwork, with_units
from tying_env.primary.own_checks import check_arrays, check_copy, check_own, check_trainable
from tying_env.primary.own_tasks import CustomTask, Loss
from tying_env.primary.workloads import Workload
from tying_env.seeding import all_randomness_from, capture_numpy, numpy_stream, restore_numpy, torch_stream

# Draws one random training batch.
Draw = Callable[[np.random.Generator], Batch]


@dataclass(frozen=True)
class OwnNetwork:
    """A network of the user's own and what it trains on.

    Attributes:
        model: the network, of which every episode trains a copy; or a function that makes one with random weights.
        batches: examples for training, see below; or a function that draws one random batch from the generator it is
            given, and from nothing else that changes. None, of a network that an import string names: the text of the
            setting `dataset`, in windows of tokens (B, T + 1).
        blocks: where the list of blocks is, in dots, "model.layers"; several where there are several lists. By default
            the lists are found.
        units: instead of blocks, what is tied: the name of each kind of unit -> the paths of the modules, in dots,
            each a unit; or for each unit the paths of several, which are tied as one. Units of a kind must be alike.
            {"attention": ["h.0.attn", "h.1.attn"], "mlp": [("h.0.ln", "h.0.mlp"), ("h.1.ln", "h.1.mlp")]}
        loss: (model, batch) -> the mean loss, a scalar tensor; by default `model(**batch).loss`.
        validation: examples to validate on. Without them validation is not measured.
        test: examples to test on.

    Examples are arrays or tensors with the examples along their first axis: one, or several in a dictionary, tuple,
    named tuple or dataclass, also in each other. Floating-point numbers come to the network in its type, the setting
    `dtype`.
    """

    model: nn.Module | Callable[[], nn.Module]
    batches: Draw | Batch | None = None
    blocks: str | Sequence[str] | None = None
    loss: Loss | None = None
    validation: Batch | None = None
    test: Batch | None = None
    units: Mapping[str, Sequence[str | Sequence[str]]] | None = None


class DrawnBatches:
    """A stream of batches that a function draws and `change` finishes; its position is that of the generator."""

    def __init__(self, draw: Draw, rng: np.random.Generator, change: Change) -> None:
        self._draw = draw
        self._rng = rng
        self._change = change

    def next_batch(self) -> Batch:
        """Return what the function draws next."""
        return self._change(self._draw(self._rng), self._rng)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator, ready for JSON."""
        return {"rng": capture_numpy(self._rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: it is not a state of this stream; nothing is changed then.
        """
        if not isinstance(state, Mapping) or set(state) != {"rng"}:
            raise ValueError(f"the state must be a dictionary of 'rng', got {state!r}")
        restore_numpy(self._rng, state["rng"])


class CustomWorkload(Workload):
    """A network of the user's own.

    Args:
        parts: the network and its data.
        settings: those of `EnvConfig` that the user gave; the number of layers is that of the blocks.

    Raises:
        TypeError, ValueError: something is wrong with a part or a setting; the message says what was expected.
    """

    def __init__(self, parts: OwnNetwork, settings: dict[str, Any]) -> None:
        settings = settings | {"units": asked_units(parts, settings.get("units", "block"))}
        self._parts, self._divided = parts, settings["units"]
        self.task = CustomTask(parts.loss)
        self.sizes = {}
        _check_examples(parts)
        network = self._network(torch_stream(0, "weights"))
        check_copy(network)
        depth = network.depth
        if settings.get("n_layer", depth) != depth:
            raise ValueError(f"n_layer is the number of blocks, {depth}, got {settings['n_layer']!r}")
        if parts.validation is None:
            if settings.get("validate_every"):
                raise ValueError(
                    f"validate_every needs validation=, examples to validate on; got {settings['validate_every']}"
                )
            settings = settings | {"validate_every": 0}
        self.config = EnvConfig.from_settings({"model": CUSTOM} | settings | {"n_layer": depth})
        self._find_kinds(network)
        if network.original is not None:  # what a Parameter shares with a tensor, or hooks on it, a copy has lost
            self._find_kinds(dataclasses.replace(network, model=network.original))

    def build(self, device: torch.device, generator: torch.Generator, *, fresh: bool = True) -> PrimaryNetwork:
        """Return a copy of the module, or a new one whose weights `generator` draws."""
        network = self._network(generator)
        network.model.to(device=device, dtype=getattr(torch, self.config.dtype))
        return prepared(network, self.config)

    def skeleton(self) -> PrimaryNetwork:
        """Return a network, whose weights mean nothing."""
        network = self._network(torch_stream(0, "weights"))
        network.model.to(dtype=getattr(torch, self.config.dtype))
        return network

    def training_batches(self, seed: int) -> Batches:
        """Return the training examples in random order, epoch after epoch, or what the function draws."""
        return self._stream(ShuffledExamples, numpy_stream(seed, "training batches"))

    def reward_batches(self, seed: int) -> Batches:
        """Return random training examples, or what the function draws."""
        return self._stream(RandomExamples, numpy_stream(seed, "reward batches"))

    def examples(self, split: Split, most: int) -> Batch:
        """Return up to `most` of the user's examples, always the same.

        Raises:
            ValueError: there are none of this split.
        """
        parts = self._parts
        training = None if callable(parts.batches) else parts.batches
        examples = {"train": training, "validation": parts.validation, "test": parts.test}.get(split)
        if examples is None:
            argument = "batches= as examples, not as a function" if split == "train" else f"{split}="
            raise ValueError(f"there are no examples of the split {split!r}: give the environment {argument}")
        return self._in_its_type(take(examples, sample(count_examples(examples), most)))

    def describe(self) -> dict[str, Any]:
        """Return the kinds of module and the number of examples."""
        counts = {split: self._count(split) for split in ("batches", "validation", "test")}
        return {"network": self._class_name, "blocks": list(self._paths), **counts}

    def _network(self, generator: torch.Generator) -> PrimaryNetwork:
        with all_randomness_from(generator):
            model, original = self._make()
        network = own_units(model, self._parts, self._divided, original)
        self._class_name, self._paths = type(network.model).__name__, network.blocks_paths
        return network

    def _make(self) -> tuple[Any, nn.Module | None]:
        """Return a network of its own, and what it is a copy of; its weights may come from the global generators."""
        source = self._parts.model
        if not isinstance(source, nn.Module):
            return source(), None
        try:
            return copy.deepcopy(source), source
        except Exception as error:  # whatever its parts raise
            raise TypeError(
                f"every episode trains a copy of the {type(source).__name__}, and it cannot be copied ({error}): give "
                "a function that makes one, model=make_network, or leave out of it what cannot be copied"
            ) from error

    def _stream(self, kind: type[RandomExamples], rng: np.random.Generator) -> Batches:
        batches = self._parts.batches
        if callable(batches):
            return DrawnBatches(batches, rng, self._in_its_type)
        return kind(batches, self.config.batch_size, rng, self._in_its_type)

    def _in_its_type(self, batch: Batch, _: np.random.Generator | None = None) -> Batch:
        """Return a batch whose floating-point numbers are of the network's type, as its weights are.

        Raises:
            TypeError: a part of it is no array of numbers.
        """
        check_arrays("a batch", batch)
        dtype = getattr(torch, self.config.dtype)

        def change(array: Any) -> Any:
            floating = np.issubdtype(array.dtype, np.floating) if isinstance(array, np.ndarray) else False
            tensor = torch.from_numpy(array) if floating else array
            return tensor.to(dtype) if isinstance(tensor, Tensor) and tensor.is_floating_point() else tensor

        return mapped(batch, change)

    def _count(self, part: str) -> int | None:
        examples = getattr(self._parts, part)
        return None if examples is None or callable(examples) else count_examples(examples)


def asked_units(parts: OwnNetwork, asked: str) -> str:
    """Return what is a unit of a network of the user's own, a value of the setting `units`.

    Raises:
        ValueError: there is no such setting, or it and the network say two things.
    """
    check_type("units", asked, Units)
    if parts.units is None:
        if asked == "own":
            raise ValueError("units='own' are those that the network names, and it names none: OwnNetwork(units=...)")
        return asked
    if asked == "sublayers" or parts.blocks is not None:
        other = "blocks" if parts.blocks is not None else "units='sublayers'"
        raise ValueError(f"the network names its own units; leave {other} out")
    return "own"


def own_units(model: Any, parts: OwnNetwork, divided: str, original: nn.Module | None = None) -> PrimaryNetwork:
    """Return a network with its units: at the paths that are named, or those of the blocks that are found.

    Args:
        model: what was made; it is not for another network any more.
        parts: what the user says of it.
        divided: the setting `units`.
        original: what `model` is a copy of.

    Raises:
        TypeError: it is no module.
        ValueError: there are no blocks or units, or weights that train are those of a network that was made before.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, or a function that makes one, got {type(model).__name__}")
    check_trainable(model)
    blocks = parts.blocks
    paths: tuple[str, ...] = ()
    if blocks is not None:
        paths = (blocks,) if isinstance(blocks, str) else tuple(blocks)
    elif parts.units is None:
        paths = find_blocks(model)
    network = with_units(model, paths, divided if parts.units is None else parts.units, original)
    check_own(network)
    return network


def _check_examples(parts: OwnNetwork) -> None:
    for name in ("batches", "validation", "test"):
        examples = getattr(parts, name)
        if (examples is None and name != "batches") or (name == "batches" and callable(examples)):
            continue
        lengths = _lengths(name, examples)
        check_arrays(name, examples)
        if not lengths or len(set(lengths)) > 1 or lengths[0] == 0:
            raise ValueError(
                f"{name} must hold arrays with the same number of examples along their first axis, at least one; "
                f"got lengths {lengths}"
            )


def _lengths(name: str, examples: Any) -> list[int]:
    if isinstance(examples, list) and any(parts_of(part) is not None for part in examples):
        function = ", or give a function that draws a batch" if name == "batches" else ""
        raise TypeError(
            f"{name} must be examples, not a list of {len(examples)} batches: "
            f"join them along their first axis{function}"
        )
    if (parts := parts_of(examples)) is not None:
        return [length for part in parts.values() if part is not None for length in _lengths(name, part)]
    if not isinstance(examples, (np.ndarray, Tensor)) or examples.ndim == 0:
        function = "a function that draws a batch, or " if name == "batches" else ""
        raise TypeError(
            f"{name} must be {function}an array of examples, or several in a dictionary, tuple or dataclass, "
            f"got {type(examples).__name__}"
        )
    return [len(examples)]
