"""Puts the parts of layers into another order; what a network computes stays the same, up to rounding. Or whole layers.

Attention adds up its heads, and a feed-forward network its units: their order means nothing to what a layer computes,
and everything to a mean of layers weight by weight. Channels cannot change places in one layer alone: the residual
stream has the same ones for all.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env.alignment.measure import directions, optimal_matching
from tying_env.alignment.parts import BlockParts, Parts, find_parts

Order = npt.NDArray[np.intp]


def permute_units(blocks: Sequence[nn.Module], rng: np.random.Generator) -> list[tuple[Order, Order]]:
    """Put attention heads and feed-forward units of every layer into a random order, each layer into its own.

    Args:
        blocks: of the network; each with weights of its own.
        rng: draws the orders.

    Returns:
        For each layer the orders of its heads and of its units: what was at `order[i]` is at place i now.

    Raises:
        ValueError: blocks are not known, differ, or share weights. Nothing is changed then.
    """
    parts = _owned(blocks)
    orders = [(rng.permutation(each.heads.count), rng.permutation(each.units.count)) for each in parts]
    return _reorder(parts, orders)


def match_units(blocks: Sequence[nn.Module]) -> list[tuple[Order, Order]]:
    """Put heads and units of every layer into the order in which they are most like those of layer 0, by their cosines.

    Args:
        blocks: of the network; each with weights of its own.

    Returns:
        As `permute_units`.

    Raises:
        ValueError: as `permute_units`, or weights are not finite.
    """
    parts = _owned(blocks)
    return _reorder(parts, [(_to(parts[0].heads, e.heads), _to(parts[0].units, e.units)) for e in parts])


def move_layers(blocks: Sequence[nn.Module], rng: np.random.Generator) -> Order:
    """Put whole layers into a random order, which makes another network of them.

    Args:
        blocks: of the network; each with weights of its own, all of one shape.
        rng: draws the order.

    Returns:
        What was layer `order[i]` is layer i now, shape (L,).

    Raises:
        ValueError: blocks are not known, differ, or share weights. Nothing is changed then.
    """
    _owned(blocks)
    order = rng.permutation(len(blocks))
    held = [[parameter.detach().clone() for parameter in block.parameters()] for block in blocks]
    with torch.no_grad():
        for block, source in zip(blocks, order.tolist(), strict=True):
            for parameter, value in zip(block.parameters(), held[source], strict=True):
                parameter.copy_(value)
    return order


def _to(first: Parts, parts: Parts) -> Order:
    return optimal_matching(directions(first.vectors().numpy()) @ directions(parts.vectors().numpy()).T)


def _reorder(parts: Sequence[BlockParts], orders: list[tuple[Order, Order]]) -> list[tuple[Order, Order]]:
    for each, (heads, units) in zip(parts, orders, strict=True):
        each.heads.reorder(heads.tolist())
        each.units.reorder(units.tolist())
    return orders


def _owned(blocks: Sequence[nn.Module]) -> list[BlockParts]:
    parts = find_parts(blocks)
    places: dict[int, int] = {}
    for i, each in enumerate(parts):
        for storage, _ in each.place:
            if (other := places.setdefault(storage, i)) != i:
                raise ValueError(f"layers {other} and {i} share weights: untie them before their parts change places")
    return parts
