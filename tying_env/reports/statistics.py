"""The numbers a comparison of arms over seeds rests on: intervals and tests.

A thing that is not defined (an interval from one seed, say) is a ValueError with a message fit for a table cell, never
a number.

Sources: Efron, "Better Bootstrap Confidence Intervals", JASA 1987 (BCa); Holm, "A Simple Sequentially Rejective
Multiple Test Procedure", Scand. J. Statist. 1979; Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", NeurIPS 2021 (interquartile mean).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9_999
# Up to this many seeds every one of the 2^n sign flips is tried; beyond, random ones.
EXACT_SEEDS = 16


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
        interval: BCa bootstrap interval of the mean, or None.
        no_interval: why there is none, else empty.
        p_value: exact paired permutation test, two-sided.
        detectable: the smallest true mean difference that a paired t-test would find with power 0.8, or None.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    interval: Interval | None
    no_interval: str
    p_value: float
    detectable: float | None


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of what is left when a quarter of the values is cut off at each end (rounded down).

    With fewer than four values nothing is cut off: it is the mean.
    """
    return float(stats.trim_mean(_finite(values), 0.25))


def interquartile_mean_interval(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """Return the percentile bootstrap interval of the interquartile mean over seeds (Agarwal et al., 2021).

    Not BCa: its acceleration comes from leaving single seeds out, which often does not move a trimmed mean at all.

    Raises:
        ValueError: one seed, or all values are equal.
    """

    def trimmed(samples: Floats, axis: int = -1) -> Any:
        return stats.trim_mean(samples, 0.25, axis=axis)

    return _bootstrap(_finite(values), trimmed, "percentile", rng)


def mean_interval(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """Return the BCa bootstrap interval of the mean.

    Raises:
        ValueError: one seed, or all values are equal.
    """
    return _bootstrap(_finite(values), np.mean, "BCa", rng)


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], rng: np.random.Generator
) -> PairedDifference:
    """Compare an arm with the reference arm over the seeds that both have.

    Args:
        values: of the arm, seed -> value.
        reference: of the reference arm.
        rng: draws the bootstrap samples.

    Raises:
        ValueError: no seed in common, or a value that is not finite.
    """
    seeds = tuple(sorted(values.keys() & reference.keys()))
    if not seeds:
        raise ValueError("no seed in common")
    differences = _finite([values[seed] - reference[seed] for seed in seeds])
    interval, detectable, no_interval = None, None, ""
    try:
        interval = mean_interval(differences.tolist(), rng)
        detectable = minimum_detectable_effect(differences.tolist())
    except ValueError as error:
        no_interval = str(error)
    return PairedDifference(
        seeds=seeds,
        differences=tuple(differences.tolist()),
        mean=float(differences.mean()),
        interval=interval,
        no_interval=no_interval,
        p_value=sign_flip_p_value(differences.tolist(), rng),
        detectable=detectable,
    )


def sign_flip_p_value(differences: Sequence[float], rng: np.random.Generator) -> float:
    """Return the two-sided p of the paired permutation test: how rare is such a mean if every sign is a coin flip?

    All 2^n sign flips are tried, so n seeds cannot give less than 2 / 2^n; random ones for more than 16 seeds.
    """
    values = _finite(differences)
    if len(values) == 1:
        return 1.0  # both signs are as far from zero; scipy refuses to look
    exact = len(values) <= EXACT_SEEDS
    result = stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if exact else 99_999,
        batch=10_000,
        rng=rng,
    )
    return float(result.pvalue)


def smallest_p_value(n_seeds: int) -> float:
    """Return the least p that the exact test can give with so many seeds: 2 / 2^n, at most 1."""
    return min(1.0, 2.0 ** (1 - n_seeds))


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


def minimum_detectable_effect(differences: Sequence[float], power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest true mean difference that a two-sided paired t-test finds with this power.

    With n differences of standard deviation s, c = t quantile (1 - alpha/2; n - 1 degrees of freedom) and T' noncentral
    t with noncentrality d * sqrt(n) / s, it is the d for which P(|T'| > c) = power.

    Raises:
        ValueError: one seed, or all differences are equal, so that there is no spread to go by.
    """
    values = _finite(differences)
    _check_spread(values)
    n = len(values)
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))

    def lacking(noncentrality: float) -> float:
        # P(T' < -c) is written as the mirrored upper tail: scipy's lower tail is NaN far out
        tails = stats.nct.sf(critical, n - 1, [noncentrality, -noncentrality])
        return float(tails.sum()) - power

    noncentrality = float(optimize.brentq(lacking, 0.0, 3 * critical + 10))
    return noncentrality * float(values.std(ddof=1)) / math.sqrt(n)


def mean_band(curves: npt.ArrayLike, rng: np.random.Generator) -> Band:
    """Return the mean over seeds with its percentile bootstrap interval at every point.

    Args:
        curves: shape (seeds, points), finite.
        rng: draws the bootstrap samples, the same seeds at all points.

    Raises:
        ValueError: one seed.
    """
    values = np.asarray(curves, dtype=np.float64)
    if len(values) < 2:
        raise ValueError("one seed: no interval")
    drawn = rng.integers(0, len(values), (1_999, len(values)))
    counts = np.stack([np.bincount(row, minlength=len(values)) for row in drawn])
    means = counts @ values / len(values)  # (samples, points)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return Band(values.mean(axis=0), low, high)


def _bootstrap(values: Floats, statistic: Any, method: str, rng: np.random.Generator) -> Interval:
    _check_spread(values)
    found = stats.bootstrap(
        (values,),
        statistic,
        method=method,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=rng,
    ).confidence_interval
    interval = Interval(float(found.low), float(found.high))
    if not all(map(math.isfinite, interval)):
        raise ValueError("the bootstrap gives no interval")
    return interval


def _check_spread(values: Floats) -> None:
    if len(values) == 1:
        raise ValueError("one seed: no interval")
    if np.ptp(values) <= 1e-12 * np.abs(values).max():  # equal but for rounding
        raise ValueError("all seeds equal: no interval")


def _finite(values: Sequence[float] | Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"finite numbers are needed, got {list(values)}")
    return array
