"""Networks of the user's own that an import string names: `--model my_file.py:make_network`.

The function is called as `make_network(config)`, with the settings, and where it has a parameter of that name with
`vocab_size=`, the number of tokens of the setting `tokenizer`. It returns an `OwnNetwork`, or a module, which is short
for `OwnNetwork(module)`. Without `batches` that is a language model on the text of `dataset`.

The function is called for every episode, so that weights follow from its seed; but where it gives an `OwnNetwork` whose
`model` is a function, that one is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tying_env.config import EnvConfig
from tying_env.data import Batch, load_tokenizer
from tying_env.data.batches import parts_of
from tying_env.plugins import describe_object, foreign_code, load_object
from tying_env.primary.building import prepared
from tying_env.primary.custom import CustomWorkload, OwnNetwork, asked_units, own_units
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.own_tasks import OwnLM, logits_of
from tying_env.primary.workloads import CausalText, Workload
from tying_env.seeding import all_randomness_from, torch_stream

WHAT = "a function that makes a network"
_MAKES = "while it made a network"


def make_own(config: EnvConfig) -> OwnNetwork:
    """Call the function that `config.model` names; weights may be drawn from torch's global generator.

    Raises:
        TypeError: it returns neither a module nor an OwnNetwork; or the string names no function.
        ValueError: it returns examples to measure on and none to train on.
        tying_env.plugins.ForeignCodeError: it raised.
        FileNotFoundError, ImportError: there is no such file, module or name.
    """
    factory = load_object(config.model, WHAT)
    given = {"vocab_size": load_tokenizer(config.tokenizer).vocab_size} if _takes_vocabulary(factory) else {}
    with foreign_code(config.model, _MAKES):
        made = factory(config, **given)
    if isinstance(made, nn.Module):
        return OwnNetwork(made)
    if not isinstance(made, OwnNetwork):
        raise TypeError(
            f"{config.model} must return an nn.Module or a tying_env.OwnNetwork, "
            f"got {type(made).__name__}: {made!r:.100}"
        )
    if made.batches is None and (made.validation is not None or made.test is not None):
        raise ValueError(f"{config.model} returned examples to measure on, and no batches to train on")
    return made


def open_own(config: EnvConfig) -> Workload:
    """Return the network that `config.model` names, with its data.

    Raises:
        As `make_own`; TypeError, ValueError: also where a part or a setting is wrong.
    """
    with all_randomness_from(torch_stream(0, "weights")):
        parts = make_own(config)
    return OwnText(config, parts) if parts.batches is None else OwnData(config, parts)


def own_network(config: EnvConfig, seed: int = 0) -> PrimaryNetwork:
    """Return the network that `config.model` names, on the CPU, without its data, as a run with this seed draws it.

    Raises:
        As `make_own`.
    """
    with all_randomness_from(torch_stream(seed, "weights")):
        parts = make_own(config)
    with all_randomness_from(torch_stream(seed, "weights")):  # a function draws from the beginning, see `OwnText.build`
        network = own_units(_make(config, parts, first=True), parts, asked_units(parts, config.units))
    network.model.to(dtype=getattr(torch, config.dtype))
    return network


class OwnText(CausalText):
    """A language model of the user's own on the text of `dataset`."""

    def __init__(self, config: EnvConfig, parts: OwnNetwork) -> None:
        super().__init__(config)
        self._asked, self._parts = config, parts
        self.task = OwnLM(parts.loss)
        network = own_network(config)
        self.config = _with_depth(config, network)
        self.sizes = {**self.sizes, "code": describe_object(config.model)}
        if parts.loss is None:
            self._check_scores(network.model)
        self._find_kinds(network)

    def build(self, device: torch.device, generator: torch.Generator, *, fresh: bool = True) -> PrimaryNetwork:
        """Return a new network, whose weights `generator` draws."""
        with all_randomness_from(generator):
            network = own_units(_make(self._asked, self._parts), self._parts, self.config.units)
        network.model.to(device=device, dtype=getattr(torch, self.config.dtype))
        return prepared(network, self.config)

    def skeleton(self) -> PrimaryNetwork:
        """Return a network, whose weights mean nothing."""
        return own_network(self._asked)

    def describe(self) -> dict[str, Any]:
        """Return hash and size of the text, and hash and name of the code."""
        return {**super().describe(), "code": self.sizes["code"]}

    def _check_scores(self, model: nn.Module) -> None:
        """Check that the network scores every token of the vocabulary.

        Raises:
            TypeError, ValueError, ForeignCodeError: it does not, or raises.
        """
        tokens = torch.zeros(1, min(2, self.config.seq_len), dtype=torch.int64)
        with torch.no_grad(), all_randomness_from(torch_stream(0, "weights")):
            with foreign_code(self.config.model, "while it read two tokens"):
                result = model.eval()(tokens)
            scores = logits_of(result, tokens, self.config.model)
        vocabulary = self.sizes["vocab_size"]
        if scores.shape[-1] < vocabulary:
            raise ValueError(
                f"{self.config.model} scores {scores.shape[-1]} tokens, the tokenizer {self.config.tokenizer!r} has "
                f"{vocabulary}: take it from the parameter vocab_size"
            )


class OwnData(CustomWorkload):
    """A network of the user's own on data of the user's own."""

    def __init__(self, config: EnvConfig, parts: OwnNetwork) -> None:
        self._asked = config
        settings = dataclasses.asdict(config)
        for name in ("n_layer", *(["validate_every"] if parts.validation is None else [])):
            if settings[name] == _default(name):
                del settings[name]
        super().__init__(parts, settings)
        self.sizes = {"code": describe_object(config.model)}

    def describe(self) -> dict[str, Any]:
        """Return the kinds of module, the number of examples and their hash, and hash and name of the code."""
        return {**super().describe(), "content_key": _content_key(self._parts), "code": self.sizes["code"]}

    def _make(self) -> tuple[Any, None]:
        return _make(self._asked, self._parts), None


def _make(config: EnvConfig, parts: OwnNetwork, first: bool = False) -> Any:
    """Return a network whose weights torch's global generator draws.

    Args:
        config: the settings.
        parts: what was made of them.
        first: whether the module in `parts`, if it is one, was made just now.
    """
    if isinstance(parts.model, nn.Module):
        return parts.model if first else make_own(config).model
    with foreign_code(config.model, _MAKES):
        return parts.model()


def _content_key(parts: OwnNetwork) -> str:
    """Return a hash of all examples; of those that a function draws, the hash of its code has to do."""
    digest = hashlib.sha256()
    for name in ("batches", "validation", "test"):
        digest.update(f"\0{name}".encode())
        examples = getattr(parts, name)
        if examples is not None and not callable(examples):
            _add(examples, digest)
    return digest.hexdigest()


def _add(examples: Batch, digest: Any) -> None:
    """Add examples to a hash: their names, types, shapes and bytes."""
    parts = parts_of(examples)
    if parts is not None:
        for name, part in parts.items():
            if not isinstance(examples, (list, tuple)):  # they have their order
                digest.update(f"\0{name}".encode())
            _add(part, digest)
    elif examples is not None:
        tensor = torch.as_tensor(examples).detach().cpu().contiguous()
        digest.update(f"\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(data)


def _takes_vocabulary(factory: Callable[..., Any]) -> bool:
    try:
        return "vocab_size" in inspect.signature(factory).parameters
    except ValueError:  # of a built-in function
        return False


def _with_depth(config: EnvConfig, network: PrimaryNetwork) -> EnvConfig:
    """Return the settings with the number of blocks, and what the units are.

    Raises:
        ValueError: another number was asked for.
    """
    depth = network.depth
    if config.n_layer not in (depth, _default("n_layer")):
        raise ValueError(f"n_layer is the number of blocks, {depth}, got {config.n_layer}")
    return dataclasses.replace(config, n_layer=depth, units="own" if network.own_units else config.units)


def _default(name: str) -> Any:
    return EnvConfig.__dataclass_fields__[name].default
