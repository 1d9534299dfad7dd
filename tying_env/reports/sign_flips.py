"""The exact paired permutation test: its p-values, the least it can give, and the effects it can find.

Seeds are paired; under the hypothesis that two arms are alike each difference could as well have the other sign
(Fisher, "The Design of Experiments", 1935).
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
# Up to this many seeds every one of the 2^n sign flips is tried; beyond, random ones.
EXACT_SEEDS = 16


def sign_flip_p_value(differences: Sequence[float], rng: np.random.Generator) -> float:
    """Return the two-sided p of the paired permutation test: how rare is such a mean if every sign is a coin flip?

    All 2^n sign flips are tried, so n seeds cannot give less than 2 / 2^n; random ones for more than 16 seeds.
    """
    values = finite(differences)
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


def seeds_needed(n_tests: int = 1) -> int:
    """Return the fewest seeds with which the exact test can give p < 0.05 after Holm's correction for `n_tests`."""
    return next(n for n in itertools.count(1) if n_tests * smallest_p_value(n) < ALPHA)


@functools.cache
def detectable_effect_size(n_seeds: int, power: float = 0.8, samples: int = 4_000) -> float:
    """Return the mean of normal differences, in standard deviations, that the sign-flip test finds with this power.

    It is simulated, with equal draws in every call: `critical_shifts` has the shift from which on each sample is found,
    and the size in question is the quantile of these at `power`. An error of about 0.6% in the power remains.

    Raises:
        ValueError: no p below 0.05 can come out of so few seeds.
    """
    if smallest_p_value(n_seeds) >= ALPHA:
        raise ValueError(f"no p below {ALPHA} with {n_seeds} seeds")
    rng = np.random.default_rng(n_seeds)
    flips = sign_flips(n_seeds, rng)
    parts = [critical_shifts(rng.standard_normal((200, n_seeds)), flips) for _ in range(samples // 200)]
    return float(np.quantile(np.concatenate(parts), power))


def sign_flips(n_seeds: int, rng: np.random.Generator, most: int = 4_095) -> Floats:
    """Return all sign flips but the one that changes nothing, or `most` random ones; shape (flips, seeds), of +-1."""
    if 2**n_seeds - 1 <= most:
        flips = np.array(list(itertools.product((1.0, -1.0), repeat=n_seeds))[1:])
    else:
        flips = rng.choice((1.0, -1.0), (most, n_seeds))
    return flips[(flips < 0).any(axis=1)]


def critical_shifts(samples: Floats, flips: Floats) -> Floats:
    """Return what must be added to all values of a sample for the sign-flip test to give p < 0.05, upwards.

    Shifted by d, the sum S of a sample becomes S + n d and the sum F under a flip with c more plus than minus signs
    F + c d: the flip falls behind at d = (F - S) / (n - c). The test has p < 0.05 once so many have fallen behind that
    2 (1 + those still ahead) / (1 + flips) is below 0.05.

    Args:
        samples: shape (samples, n).
        flips: shape (flips, n), without the one that changes nothing.

    Returns:
        Shape (samples,); infinite where no shift is enough.
    """
    may_be_ahead = math.ceil(ALPHA * (len(flips) + 1) / 2 - 1) - 1
    if may_be_ahead < 0:
        return np.full(len(samples), np.inf)
    behind_from = (samples @ flips.T - samples.sum(axis=1, keepdims=True)) / (flips.shape[1] - flips.sum(axis=1))
    place = len(flips) - 1 - may_be_ahead
    shifts: Floats = np.partition(behind_from, place, axis=1)[:, place]
    return shifts


def finite(values: Sequence[float] | Floats) -> Floats:
    """Return the values as an array.

    Raises:
        ValueError: there is none, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"finite numbers are needed, got {list(values)}")
    return array
