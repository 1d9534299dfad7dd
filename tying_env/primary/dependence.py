"""How much of what a network says depends on what it reads.

A network that has collapsed gives the same distribution at every position, that of the classes' frequencies at best.
Its perplexity alone does not tell it from one that is only beginning to learn; that its output is constant does.

Softmax ignores what is added to all logits of a position, so from each position's logits their mean over the V classes
is taken first. Of what is left, x of shape (N, V) over N positions, the **input dependence** is

    sum of (x - mean of x over positions)^2  /  sum of x^2,

the share of the logits' mean square that varies with position: 0 where the output is the same everywhere, near 1 where
it has no constant part.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# What is looked at of a batch: so many logits, at positions spread over it. GPT-2's vocabulary leaves 59 of them, less
# than 1 % of a validation of 64 windows; of bytes or classes of images it is every position.
MOST_LOGITS = 3_000_000


class Spread(NamedTuple):
    """What of the logits of some positions is constant, and how far they are from it; centred over the classes."""

    positions: int
    constant: Tensor  # (V,), float64: the mean over positions
    varying: Tensor  # float64, a scalar: sum of squared distances from `constant`, over positions and classes


def spaced(rows: Tensor, classes: int) -> Tensor:
    """Return as many rows, one for each position of a batch, as are looked at, evenly spaced."""
    most = max(1, MOST_LOGITS // classes)
    if len(rows) <= most:
        return rows
    return rows[torch.arange(most, device=rows.device) * len(rows) // most]


def spread_of(logits: Tensor) -> Spread:
    """Return the spread of logits (N, V), in float32, or float64 if they are."""
    x = logits if logits.dtype == torch.float64 else logits.float()
    x = x - x.mean(-1, keepdim=True)  # softmax ignores it
    constant = x.mean(0)
    x -= constant  # before squaring: a difference of two large sums would lose a small share
    varying = torch.linalg.vector_norm(x, dim=-1).double().square().sum()
    return Spread(len(x), constant.double(), varying)


def merged(one: Spread | None, other: Spread) -> Spread:
    """Return the spread over the positions of both (Chan, Golub & LeVeque 1983)."""
    if one is None:
        return other
    n = one.positions + other.positions
    apart = other.constant - one.constant
    between = one.positions * other.positions / n * apart.square().sum()
    constant = one.constant + apart * (other.positions / n)
    return Spread(n, constant, one.varying + other.varying + between)


def input_dependence(spread: Spread | None) -> float | None:
    """Return the share of the logits' mean square that varies with position, from 0 to 1.

    None where there are fewer than two positions, or logits that are not finite or all equal.
    """
    if spread is None or spread.positions < 2:
        return None
    varying = spread.varying.item()
    total = varying + spread.positions * spread.constant.square().sum().item()
    return varying / total if math.isfinite(total) and total > 0 else None
