"""The numbers a comparison of arms over seeds rests on: intervals and tests.

A thing that is not defined (an interval from one seed, say) is a ValueError with a message fit for a table cell, never
a number. How often the intervals hold what they should is measured by `tying_env.reports.coverage`; its table is
docs/results/statistics_coverage.md.

Sources: Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015 (expanded
percentile interval); Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 1979; Agarwal
et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021 (interquartile mean).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from tying_env.reports.sign_flips import (
    ALPHA,
    Floats,
    detectable_effect_size,
    finite,
    sign_flip_p_value,
    smallest_p_value,
)

CONFIDENCE = 0.95
# The level of the t quantile in a mean's interval: the least, in half per cents, that covers 93% of exponential samples
# of five. At 95% it covers 88% of them.
MEAN_LEVEL = 0.985
RESAMPLES = 9_999
# Every interval starts its own generator from this, so that no arm's numbers depend on which others are there.
BOOTSTRAP_SEED = 20240116
# A bootstrap interval cannot leave the range of its values, which is too narrow for fewer of them.
BOOTSTRAP_FROM = 5


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Band(NamedTuple):
    """A curve's mean over seeds with its interval at every point, shape (points,) each."""

    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class PairedDifference:
    """An arm minus the reference arm, seed by seed. Below zero: the arm's value is the lower one.

    Attributes:
        seeds: the seeds that both arms have.
        differences: one for each seed.
        mean: of the differences.
        percent: the mean in per cent of the reference arm's mean over these seeds, or None where that is 0.
        interval: of the mean, see `mean_interval`, or None.
        base: the absolute value of the reference arm's mean over these seeds.
        no_interval: why there is none, else empty.
        p_value: exact paired permutation test, two-sided.
        detectable: the smallest true mean difference that this test finds with power 0.8, or None.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    percent: float | None
    interval: Interval | None
    no_interval: str
    p_value: float
    detectable: float | None
    base: float

    def within(self, percent: float) -> bool | None:
        """Return whether the difference is shown to be at most so many per cent of the reference arm's mean.

        That is an equivalence test (Schuirmann, 1987): the whole interval lies within the margin. The interval's level
        is the one of `mean_interval`, higher than the 90% of two one-sided tests at 5%.

        Returns:
            None where there is no interval.
        """
        if self.interval is None:
            return None
        margin = percent / 100 * self.base
        return -margin <= self.interval.low and self.interval.high <= margin


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of what is left when a quarter of the values is cut off at each end (rounded down).

    With fewer than four values nothing is cut off: it is the mean.
    """
    return float(stats.trim_mean(finite(values), 0.25))


def interquartile_mean_interval(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """Return the expanded percentile bootstrap interval of the interquartile mean over seeds, meant to cover 95%.

    The plain percentile interval (Agarwal et al., 2021) covers 90% of samples of five, for it takes the spread of the
    values for that of what they are drawn from, and a normal quantile for t's. Hesterberg's expanded one corrects both
    through the level, see `expanded_level`. Of those measured it is the narrowest that covers 93% from five seeds on.
    With fewer seeds it is the interquartile mean and `mean_interval`'s half-width to either side.

    Raises:
        ValueError: one seed, or all values are equal.
    """
    array = finite(values)
    _check_spread(array)
    if len(array) < BOOTSTRAP_FROM:
        centre, half = interquartile_mean(values), float(mean_half_width(array))
        return Interval(centre - half, centre + half)
    found = stats.bootstrap(
        (array,),
        trimmed,
        method="percentile",
        confidence_level=expanded_level(len(array)),
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=rng,
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def expanded_level(n_seeds: int) -> float:
    """Return the level at which a percentile interval is about as wide as a t interval of 95%.

    Each tail is Phi(-sqrt(n / (n - 1)) t(0.975; n - 1)) (Hesterberg, 2015).
    """
    n = n_seeds
    return float(1 - 2 * stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)))


def trimmed(samples: Floats, axis: int = -1) -> Any:
    """Return the interquartile means along an axis."""
    return stats.trim_mean(samples, 0.25, axis=axis)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the t interval of the mean at level 98.5%, which covers 93% or more also of skewed samples.

    BCa, which stood here before, covers 85% of normal and 80% of exponential samples of five. The t interval is exact
    for normal values and covers more of heavy-tailed ones, but at 95% it covers 88% of exponential ones. A bootstrap-t
    interval makes up for that as well, and is several times as wide on average where values happen to lie close
    together; an inverted sign-flip test has no finite interval below six seeds. Extreme skew defeats all of them: of
    lognormal samples (sigma 1) about 90% are covered. No interval can be right for every distribution (Bahadur and
    Savage, Ann. Math. Statist. 1956).

    Raises:
        ValueError: one seed, or all values are equal.
    """
    array = finite(values)
    _check_spread(array)
    mean, half = float(array.mean()), float(mean_half_width(array))
    return Interval(mean - half, mean + half)


def mean_half_width(samples: Floats, level: float = MEAN_LEVEL) -> Floats:
    """Return the half-width of the t interval of the mean along the last axis: shape (..., n) gives shape (...)."""
    n = samples.shape[-1]
    half: Floats = stats.t.ppf((1 + level) / 2, n - 1) * samples.std(axis=-1, ddof=1) / math.sqrt(n)
    return half


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], rng: np.random.Generator
) -> PairedDifference:
    """Compare an arm with the reference arm over the seeds that both have.

    Args:
        values: of the arm, seed -> value.
        reference: of the reference arm.
        rng: draws the sign flips where there are too many to try all.

    Raises:
        ValueError: no seed in common, or a value that is not finite.
    """
    seeds = tuple(sorted(values.keys() & reference.keys()))
    if not seeds:
        raise ValueError("no seed in common")
    differences = finite([values[seed] - reference[seed] for seed in seeds])
    base = abs(float(np.mean([reference[seed] for seed in seeds])))
    interval, detectable, no_interval = None, None, ""
    try:
        interval = mean_interval(differences.tolist())
    except ValueError as error:
        no_interval = str(error)
    if interval is not None and smallest_p_value(len(seeds)) < ALPHA:
        detectable = minimum_detectable_effect(differences.tolist())
    return PairedDifference(
        seeds=seeds,
        differences=tuple(differences.tolist()),
        mean=float(differences.mean()),
        percent=100 * float(differences.mean()) / base if base else None,
        interval=interval,
        no_interval=no_interval,
        p_value=sign_flip_p_value(differences.tolist(), rng),
        detectable=detectable,
        base=base,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's step-down method, in the order given.

    The smallest is multiplied by m, the next by m - 1, ...; none may be below the one before it, or above 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(1.0, largest)
    return corrected


def minimum_detectable_effect(differences: Sequence[float], power: float = 0.8) -> float:
    """Return the smallest true mean difference that the sign-flip test finds (p < 0.05) with this power.

    It supposes normal differences with the standard deviation of those given. The p is that of a single comparison,
    not corrected.

    Raises:
        ValueError: one seed, or all differences are equal, so that there is no spread to go by; or so few that no p
            below 0.05 can come out.
    """
    values = finite(differences)
    _check_spread(values)
    return detectable_effect_size(len(values), power) * float(values.std(ddof=1))


def mean_band(curves: npt.ArrayLike) -> Band:
    """Return the mean over seeds with its interval (`mean_interval`) at every point, each point by itself.

    Args:
        curves: shape (seeds, points), finite.

    Raises:
        ValueError: one seed.
    """
    values = np.asarray(curves, dtype=np.float64)
    if len(values) < 2:
        raise ValueError("one seed: no interval")
    mean, half = values.mean(axis=0), mean_half_width(values.T)
    return Band(mean, mean - half, mean + half)


def _check_spread(values: Floats) -> None:
    if len(values) == 1:
        raise ValueError("one seed: no interval")
    if np.ptp(values) <= 1e-12 * np.abs(values).max():  # equal but for rounding
        raise ValueError("all seeds equal: no interval")
