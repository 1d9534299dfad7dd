"""Sets weights of a trained network's blocks to 0: Wanda's choice of them, or the smallest.

Wanda (Sun et al., 2024, arXiv 2306.11695): a weight counts as much as its magnitude times the l2 norm of the input that
it multiplies, and the lowest of each output's weights go. A weight that several layers share meets the inputs of all of
them: its norm is over all positions of all layers that use it. Wanda prunes layer by layer and measures each layer's
inputs behind those that are pruned already; a shared weight is in early and late layers at once, so here all norms are
measured on the whole network before anything is pruned.

What is pruned are the weights of the linear layers in the blocks (`nn.Linear`, transformers' `Conv1D`). Embeddings, the
head, norms, biases and whatever else lies in a block or outside stay as they are.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tying_env.compression.units import identity_of
from tying_env.data import Batches
from tying_env.primary.evaluation import measure
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.relaxation import has_deltas
from tying_env.primary.rows import Layout, as_rows, layout_of
from tying_env.primary.workloads import Workload

Method = Literal["wanda", "magnitude"]
Pattern = Literal["unstructured", "2:4"]


@dataclass(frozen=True)
class Pruning:
    """What is pruned, and how.

    Attributes:
        sparsity: the share of every output's weights that goes, rounded down to a whole weight; from 0 to below 1.
        method: whose weights go first: "wanda", magnitude times the norm of the input; or "magnitude" alone.
        pattern: "unstructured", anywhere in the row of an output; or "2:4", two of every four in a row, which
            sparse tensor cores multiply.
        examples: of the training split, to measure the inputs on; rounded up to whole batches.
    """

    sparsity: float = 0.5
    method: Method = "wanda"
    pattern: Pattern = "unstructured"
    examples: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, got {self.sparsity}")
        for name, choices in (("method", Method), ("pattern", Pattern)):
            if (given := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {given!r}")
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError(f"the pattern 2:4 has a sparsity of 0.5, got {self.sparsity}")
        if self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}")


@dataclass(frozen=True)
class Linear:
    """The weight of a linear layer in the blocks, and all that compute with it.

    Attributes:
        name: of the lowest layer that does.
        weight: the live values.
        layout: how its rows, the inputs of an output, lie in it.
        modules: all modules that compute with it.
    """

    name: str
    weight: Tensor
    layout: Layout
    modules: tuple[nn.Module, ...]

    @property
    def rows(self) -> Tensor:
        """A view, (outputs, inputs)."""
        return as_rows(self.weight, self.layout)


def linears_of(network: PrimaryNetwork) -> list[Linear]:
    """Return the weights that are pruned, each once, in the order of the layers.

    Raises:
        TypeError: the layers have low-rank deltas.
        ValueError: there are none.
    """
    from transformers.pytorch_utils import Conv1D

    if has_deltas(network.model):
        raise TypeError(
            "its layers have low-rank deltas of their own, which would fill what was pruned: it cannot be pruned"
        )
    found: dict[tuple[object, ...], list[tuple[str, nn.Module]]] = {}
    for unit_name, unit in zip(network.unit_names, network.units, strict=True):
        for path, module in unit.named_modules():
            # A weight that is computed from others (torch's parametrizations) is none of the module's own.
            if isinstance(module, (nn.Linear, Conv1D)) and "weight" in module._parameters:
                name = ".".join(part for part in (unit_name, path, "weight") if part)
                found.setdefault(identity_of(module.get_parameter("weight")), []).append((name, module))
    if not found:
        raise ValueError(
            f"the blocks of this {type(network.model).__name__} have no linear layers (nn.Linear, Conv1D) to prune"
        )
    linears = []
    for uses in found.values():
        name, first = uses[0]
        weight = first.get_parameter("weight").detach()
        linears.append(Linear(name, weight, layout_of(first, weight), tuple(module for _, module in uses)))
    return linears


def left_alone(network: PrimaryNetwork, linears: Sequence[Linear]) -> list[str]:
    """Return the names of matrices in the blocks that are not pruned: they are no linear layer's."""
    pruned = {identity_of(linear.weight) for linear in linears}
    found: dict[tuple[object, ...], str] = {}
    for unit_name, unit in zip(network.unit_names, network.units, strict=True):
        for name, parameter in unit.named_parameters():
            if parameter.ndim >= 2 and identity_of(parameter) not in pruned:
                found.setdefault(identity_of(parameter), f"{unit_name}.{name}" if unit_name else name)
    return list(found.values())


@contextlib.contextmanager
def gathered_norms(linears: Sequence[Linear]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that holds, once this block is over, for every weight the l2 norm of each of its inputs.

    Yields:
        By name (inputs,), float64: over all positions that went through any module that computes with the weight.

    Raises:
        ValueError: nothing went through one, as where a module computes with another's weight; or numbers are not
            finite.
    """
    sums: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}

    def add(name: str, inputs: Tensor) -> None:
        squares = inputs.detach().reshape(-1, inputs.shape[-1]).double().square().sum(0)
        sums[name] = sums[name] + squares if name in sums else squares

    with contextlib.ExitStack() as hooks:
        for linear in linears:
            for module in linear.modules:

                def hook(_: nn.Module, args: Any, kwargs: Any, name: str = linear.name) -> None:
                    add(name, args[0] if args else next(iter(kwargs.values())))

                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield norms
    for linear in linears:
        if linear.name not in sums:
            raise ValueError(
                f"nothing went through the module of {linear.name!r}, so its inputs have no norms: another module "
                "computes with its weight; the method 'magnitude' needs no inputs"
            )
        norms[linear.name] = sums[linear.name].sqrt()
        if not bool(norms[linear.name].isfinite().all()):
            raise ValueError(
                f"the inputs of {linear.name!r} are not finite: such a network cannot be pruned by 'wanda'"
            )


def input_norms(model: nn.Module, linears: Sequence[Linear], workload: Workload, examples: int) -> dict[str, Tensor]:
    """Return the norms of `gathered_norms` on so many examples of the training split, always the same, without dropout.

    Padding of utterances does not count. Of a network of the user's own every position does that modules are given.

    Raises:
        ValueError: as `gathered_norms`.
    """
    device = next(model.parameters()).device
    batches: Batches = workload.training_batches(seed=0)
    count = -(-examples // workload.config.batch_size)
    task = workload.task
    with gathered_norms(linears) as norms:
        measure(model, task, (one for _ in range(count) for one in task.without_padding(batches.next_batch())), device)
    return norms


def scores(linear: Linear, norms: Tensor | None) -> Tensor:
    """Return how much each weight counts, (outputs, inputs): |W| times its input's norm, or |W| without norms."""
    sizes = linear.rows.abs()
    return sizes if norms is None else sizes * norms.to(sizes.device)


def pruned_places(scores: Tensor, pruning: Pruning) -> Tensor:
    """Return which weights go, bool like the scores (outputs, inputs): the lowest of each row; of equals the first.

    Raises:
        ValueError: the pattern is 2:4, and the inputs are not a multiple of 4.
    """
    outputs, inputs = scores.shape
    if pruning.pattern == "2:4":
        if inputs % 4:
            raise ValueError(f"the pattern 2:4 needs a number of inputs that is a multiple of 4, got {inputs}")
        groups, count = scores.reshape(-1, 4), 2
    else:
        groups, count = scores, int(inputs * pruning.sparsity + 1e-9)  # 0.7 * 10 is 7, whatever floats say
    lowest = groups.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, lowest, True).view(outputs, inputs)


@torch.no_grad()
def prune(linears: Sequence[Linear], norms: Mapping[str, Tensor] | None, pruning: Pruning) -> None:
    """Set the weights that go to 0, in place: first all are chosen, then any is changed.

    Args:
        linears: of `linears_of`.
        norms: of `input_norms`, where the method is "wanda".
        pruning: how much, and in what pattern.

    Raises:
        ValueError: a weight does not allow for the pattern; the message names it, and nothing is changed.
    """
    if (norms is None) != (pruning.method == "magnitude"):
        raise ValueError(f"the method {pruning.method!r} takes {'no ' if norms is not None else ''}norms of inputs")
    places = []
    for linear in linears:
        try:
            places.append(pruned_places(scores(linear, None if norms is None else norms[linear.name]), pruning))
        except ValueError as error:
            raise ValueError(f"{linear.name!r}: {error}") from error
    for linear, gone in zip(linears, places, strict=True):
        linear.rows.masked_fill_(gone, 0.0)
