"""What chance alone does: tying under uniformly random actions, and how far a run is from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tying_env import partition

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ChanceComparison:
    """The number of independent layers over decisions, set against uniformly random actions.

    `z` and `p_value` suppose that decisions are independent of each other. They are for the random agent only; for
    any other agent successive tyings hang together, so that z is too large and the probability too small.

    Attributes:
        mean: over the decisions.
        chance_mean: the harmonic number H_L.
        chance_sd: of a single decision.
        decisions: how many.
        z: (mean - H_L) / (chance_sd / sqrt(decisions)); NaN with one layer, where there is no chance.
        p_value: two-sided: twice the smaller tail of the sum's exact distribution, at most 1; below about 1e-9 it is
            rounding error.
    """

    mean: float
    chance_mean: float
    chance_sd: float
    decisions: int
    z: float
    p_value: float


def leader_distribution(*sizes: int) -> Floats:
    """Return the probability of 0, 1, ..., L leaders under a uniformly random action, shape (L + 1,).

    Args:
        sizes: L; or where units are of several kinds, how many there are of each.

    Layer i is a leader with probability 1/(i+1), independently of the others: a convolution of L coin flips.
    """
    probabilities = np.ones(1)
    for i in (i for size in sizes for i in range(size)):
        probabilities = np.convolve(probabilities, [1 - 1 / (i + 1), 1 / (i + 1)])
    return probabilities


def compare_with_chance(independent_layers: Sequence[int], *sizes: int) -> ChanceComparison:
    """Set the numbers of independent layers of n decisions against n uniformly random actions.

    Args:
        independent_layers: of each decision.
        sizes: L; or where units are of several kinds, how many there are of each.

    Raises:
        ValueError: there is no decision.
    """
    if not independent_layers:
        raise ValueError("no decisions")
    n, total = len(independent_layers), int(sum(independent_layers))
    chance_mean, chance_sd = partition.chance_independent_layers(*sizes)
    # The distribution of the sum, n * L + 1 values, is the n-fold convolution: a power in Fourier space.
    size = n * sum(sizes) + 1
    of_sum = np.fft.irfft(np.fft.rfft(leader_distribution(*sizes), size) ** n, size).clip(0.0)
    below, above = float(of_sum[: total + 1].sum()), float(of_sum[total:].sum())
    z = (total / n - chance_mean) / (chance_sd / math.sqrt(n)) if chance_sd else math.nan
    return ChanceComparison(
        mean=total / n,
        chance_mean=chance_mean,
        chance_sd=chance_sd,
        decisions=n,
        z=z,
        p_value=min(1.0, 2 * min(below, above)),
    )


def chance_events(*sizes: int) -> tuple[float, float]:
    """Return the mean numbers of tied and untied events from one uniformly random action to the next.

    Args:
        sizes: L; or where units are of several kinds, how many there are of each.

    With p[i, j] the probability that layer i's leader is j, layer i is untied with probability p[i, i] (1 - p[i, i]),
    and tied with (1 - p[i, i]) - sum over j < i of p[i, j]^2.
    """
    tied = untied = 0.0
    for n_units in sizes:
        p = np.zeros((n_units, n_units))
        for i in range(n_units):
            p[i] = p[:i].sum(axis=0) / (i + 1)
            p[i, i] = 1 / (i + 1)
        alone = p.diagonal()
        followed = (p**2).sum(axis=1) - alone**2
        tied += float((1 - alone - followed).sum())
        untied += float((alone * (1 - alone)).sum())
    return tied, untied
