"""Measures how far layers are aligned, against what chance gives.

Parts of two layers (heads, feed-forward units, channels) are compared by the cosine between their weights. A matching
pairs each part of one layer with one of the other; what it comes to is the mean cosine of its pairs.

An optimal matching of unrelated parts is well above 0, since the best is taken of many. What it comes to where all
weights are independent normal numbers is the chance line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from torch import nn

from tying_env.alignment.parts import BlockParts, find_parts

Floats = npt.NDArray[np.float64]
Kind = Literal["heads", "units", "channels"]
KINDS: tuple[Kind, ...] = ("heads", "units", "channels")


@dataclass(frozen=True)
class Alignment:
    """How far layers are aligned, in one kind of part. All matrices are (L, L).

    Attributes:
        count: parts in a layer.
        optimal: mean cosine of the optimal matching (linear sum assignment).
        identity: mean cosine of the matching of equal places: part i of one layer with part i of the other.
        random_mean: mean cosine of random matchings.
        random_spread: standard deviation over random matchings.
        chance: mean of `optimal` where all weights are independent normal numbers. Trained weights lie in fewer
            directions than random ones, so that an optimum a little above this line is no proof of alignment.
    """

    count: int
    optimal: Floats
    identity: Floats
    random_mean: Floats
    random_spread: Floats
    chance: float


def measure_alignment(
    blocks: Sequence[nn.Module],
    rng: np.random.Generator,
    draws: int = 20,
    kinds: Sequence[Kind] = KINDS,
) -> dict[Kind, Alignment]:
    """Return how far the layers of a network are aligned.

    Layers that share their weights have cosine 1 with each other; each pair of other weights is matched once.

    Args:
        blocks: of the network, L of them; see `tying_env.alignment.parts` for those that are known.
        rng: draws random matchings and the chance line.
        draws: random matchings of each pair; and pairs of random layers for the chance line.
        kinds: what is compared: attention heads (or groups of them that share a key-value head), feed-forward units,
            channels of the residual stream.

    Raises:
        ValueError: blocks are not known or differ, weights are not finite, or there are no draws.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    parts = find_parts(blocks)
    first: dict[object, int] = {}
    owners = [first.setdefault(each.place, i) for i, each in enumerate(parts)]
    own = sorted(set(owners))
    spread = np.searchsorted(own, owners)  # for each layer its place among those with weights of their own
    return {kind: _measure([_directions(parts[i], kind) for i in own], spread, rng, draws) for kind in kinds}


def optimal_matching(cosines: Floats) -> npt.NDArray[np.intp]:
    """Return for each row the column that it is paired with, shape (n,), so that the sum is as large as can be.

    Args:
        cosines: (n, n).
    """
    columns: npt.NDArray[np.intp] = linear_sum_assignment(cosines, maximize=True)[1]
    return columns


def directions(weights: npt.NDArray[np.float32]) -> Floats:
    """Return rows scaled to length 1; rows of zeros stay.

    Args:
        weights: of each part in a row, (count, weights of a part).

    Raises:
        ValueError: they are not finite.
    """
    rows = weights.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("the network has weights that are not finite")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = rows / np.where(lengths == 0, 1.0, lengths)
    return scaled


def _directions(parts: BlockParts, kind: Kind) -> Floats:
    weights = {"heads": parts.heads.vectors, "units": parts.units.vectors, "channels": parts.channels}[kind]()
    return directions(weights.numpy())


def _measure(layers: Sequence[Floats], spread: npt.NDArray[np.intp], rng: np.random.Generator, draws: int) -> Alignment:
    count = len(layers[0])
    shape = (len(layers), len(layers))
    optimal, identity, mean, deviation = np.ones(shape), np.ones(shape), np.ones(shape), np.zeros(shape)
    orders = np.array([rng.permutation(count) for _ in range(draws)])  # (draws, count)
    rows = np.arange(count)
    for i, one in enumerate(layers):
        for j in range(i, len(layers)):
            cosines = one @ layers[j].T  # (count, count)
            if i != j:
                optimal[i, j] = optimal[j, i] = cosines[rows, optimal_matching(cosines)].mean()
                identity[i, j] = identity[j, i] = cosines.diagonal().mean()
            mean[i, j] = mean[j, i] = cosines.mean()  # exact: every pairing is equally likely
            deviation[i, j] = deviation[j, i] = cosines[rows, orders].mean(axis=1).std()
    among = np.ix_(spread, spread)
    chance = _chance(layers[0].shape, rng, draws)
    return Alignment(count, optimal[among], identity[among], mean[among], deviation[among], chance)


def _chance(shape: tuple[int, ...], rng: np.random.Generator, draws: int) -> float:
    """Return what an optimal matching of independent normal numbers comes to, mean over draws."""
    count, found = shape[0], []
    for _ in range(draws):
        one, other = (directions(rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
        cosines = one @ other.T
        found.append(cosines[np.arange(count), optimal_matching(cosines)].mean())
    return float(np.mean(found))
