"""What is compressed as one: the matrices that a group of tied layers shares, and each matrix outside the blocks."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from tying_env.kinds import Kinds
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.owned import owned_parameters
from tying_env.primary.rows import Layout, layout_of
from tying_env.references import storage_of
from tying_env.tied_blocks import TiedBlocks


@dataclass(frozen=True)
class Matrix:
    """A weight of at least two axes.

    Attributes:
        name: of the layer that owns it.
        weight: the live values, which every layer that shares them computes with.
        layout: how its rows lie in it.
    """

    name: str
    weight: Tensor
    layout: Layout


@dataclass(frozen=True)
class Unit:
    """Matrices that are stored with the same bits.

    Attributes:
        name: "layers 1-10", or of a matrix outside the blocks its own.
        matrices: at least one.
        layers: that compute with them; none outside the blocks.
    """

    name: str
    matrices: tuple[Matrix, ...]
    layers: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many weights these are."""
        return sum(matrix.weight.numel() for matrix in self.matrices)


def units_of(network: PrimaryNetwork, tied: TiedBlocks) -> list[Unit]:
    """Return what can be given bits of its own, the matrices outside the blocks where the model has them.

    Vectors (norms, biases) are in none, and neither are buffers.
    """
    sources = tied.sources().tolist()
    owners: dict[tuple[object, ...], int] = {}
    for number, module in enumerate(network.units):
        for parameter in module.parameters():
            owners.setdefault(identity_of(parameter), sources[number])
    kinds, found = network.kinds("refuse", tied.only), dict[str, list[Matrix]]()
    users: dict[str, tuple[int, ...]] = {}
    for name, parameter in owned_parameters(network, tied):
        if parameter.ndim < 2 or not parameter.numel():
            continue
        module = network.model.get_submodule(name.rpartition(".")[0])
        owner = owners.get(identity_of(parameter))
        group = tuple(layer for layer, source in enumerate(sources) if source == owner)
        unit = name if owner is None else layers_named(group, kinds)
        found.setdefault(unit, []).append(Matrix(name, parameter.detach(), layout_of(module, parameter)))
        users[unit] = group
    return [Unit(name, tuple(matrices), users[name]) for name, matrices in found.items()]


def identity_of(tensor: Tensor) -> tuple[object, ...]:
    """Return what is equal for Parameters that are one weight: a follower may have its own on its leader's memory."""
    return storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape)


def layers_named(layers: Iterable[int], kinds: Kinds | None = None) -> str:
    """Return layers of one kind in words: "layer 3", "layers 0, 2-5"; "attention 0, 2-5" where kinds have names."""
    numbers, name = sorted(layers), ""
    if kinds is not None and kinds.names and numbers:
        name = kinds.unit_named(numbers[0]).rpartition(" ")[0]
        numbers = kinds.position[numbers].tolist()
    runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    parts = []
    for _, run in runs:
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return f"{name or ('layers' if len(numbers) > 1 else 'layer')} {', '.join(parts)}"
