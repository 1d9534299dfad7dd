"""How often an interval holds what it should, by simulation: the ground for the choice made in `statistics`.

python -m tying_env.reports.coverage --out statistics_coverage.md

Samples of n values are drawn from distributions whose mean and interquartile mean are known; counted is how many of the
intervals made of a sample hold them. The values stand for paired differences, or for the results of an arm.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import integrate, stats

from tying_env.files import written_whole
from tying_env.reports.sign_flips import Floats, critical_shifts, sign_flips
from tying_env.reports.statistics import (
    BOOTSTRAP_FROM,
    CONFIDENCE,
    MEAN_LEVEL,
    expanded_level,
    mean_half_width,
    trimmed,
)

MEAN, INTERQUARTILE_MEAN = "mean", "interquartile mean"
# The mean of so skewed values is decided by rare ones, which a small sample does not have: no interval gets this right.
EXTREME = "lognormal, sigma 1"
SIZES = (3, 4, 5, 8, 12, 20)
DISTRIBUTIONS: Mapping[str, Any] = {
    "normal": stats.norm(),
    "uniform": stats.uniform(),
    "lognormal, sigma 0.5": stats.lognorm(0.5),
    "exponential": stats.expon(),
    EXTREME: stats.lognorm(1.0),
    "t, 3 degrees of freedom": stats.t(3),
    "t, 2 degrees of freedom": stats.t(2),
}
# Samples whose resamples are in memory at a time.
_BLOCK = 100

_HEAD = """# How often the intervals of reports hold what they should

```bash
python -m tying_env.reports.coverage --out docs/results/{} --repetitions {} --seed {}
```

Made by this command, words and all. A cell is the share of the samples of n values, in per cent, whose interval holds
the true value; in brackets the intervals' mean width in widths of the 95 % t interval of the mean. All are meant to be
95 %. Methods that resample have a tenth of the repetitions: with the default of 20,000 a cell's standard error is 0.5 %
at 95 %, and 0.15 % for the others.

"""

Bounds = tuple[Floats, Floats]


@dataclass(frozen=True)
class Method:
    """A way to make intervals.

    Attributes:
        name: in the table.
        estimand: what the intervals are of, MEAN or INTERQUARTILE_MEAN.
        bounds: makes an interval of every row of an array of shape (samples, n): low and high, shape (samples,) each.
        slow: whether it resamples; then fewer samples are drawn.
    """

    name: str
    estimand: str
    bounds: Callable[[Floats, np.random.Generator], Bounds]
    slow: bool = False


class CoverageCell(NamedTuple):
    """What came of one method, distribution and size.

    `coverage` is the share of the samples whose interval holds the true value; `error` its standard error, from the
    binomial distribution; `width` the mean width in mean widths of the 95% t interval of the same samples.
    """

    method: str
    estimand: str
    distribution: str
    n: int
    coverage: float
    error: float
    width: float


def measure_coverage(
    methods: Sequence[Method] | None = None,
    distributions: Sequence[str] = tuple(DISTRIBUTIONS),
    sizes: Sequence[int] = SIZES,
    repetitions: int = 20_000,
    seed: int = 0,
) -> list[CoverageCell]:
    """Draw samples, make intervals, and count how many hold the true value.

    Args:
        methods: METHODS unless others are given.
        distributions: keys of DISTRIBUTIONS.
        sizes: values in a sample, at least 2.
        repetitions: samples for each distribution and size; a tenth of them for methods that resample.
        seed: of all draws; the numbers of one distribution and size do not depend on which others are measured.
    """
    cells = []
    for name in distributions:
        distribution = DISTRIBUTIONS[name]
        truth = {MEAN: float(distribution.mean()), INTERQUARTILE_MEAN: true_interquartile_mean(distribution)}
        for n in sizes:
            draws = np.random.default_rng([seed, list(DISTRIBUTIONS).index(name), n])
            samples = distribution.rvs((repetitions, n), random_state=draws)
            for place, method in enumerate(METHODS if methods is None else methods):
                used = samples[: repetitions // 10] if method.slow else samples
                low, high = method.bounds(used, np.random.default_rng([seed, place, n]))
                share = float(np.mean((low <= truth[method.estimand]) & (truth[method.estimand] <= high)))
                error = float(np.sqrt(share * (1 - share) / len(used)))
                width = float(np.mean(high - low) / np.mean(2 * mean_half_width(used, CONFIDENCE)))
                cells.append(CoverageCell(method.name, method.estimand, name, n, share, error, width))
    return cells


def true_interquartile_mean(distribution: Any) -> float:
    """Return the mean of the middle half of a distribution of scipy: its quantiles' mean from 1/4 to 3/4."""
    return float(2 * integrate.quad(distribution.ppf, 0.25, 0.75)[0])


def _t(level: float) -> Callable[[Floats, np.random.Generator], Bounds]:
    def bounds(samples: Floats, rng: np.random.Generator) -> Bounds:
        mean, half = samples.mean(axis=1), mean_half_width(samples, level)
        return mean - half, mean + half

    return bounds


def _bootstrap(statistic: Any, kind: str, resamples: int, expanded: bool = False) -> Any:
    def bounds(samples: Floats, rng: np.random.Generator) -> Bounds:
        level = expanded_level(samples.shape[1]) if expanded else CONFIDENCE
        parts = [
            stats.bootstrap(
                (block,),
                statistic,
                axis=1,
                method=kind,
                confidence_level=level,
                n_resamples=resamples,
                vectorized=True,
                rng=rng,
            ).confidence_interval
            for block in _blocks(samples)
        ]
        return np.concatenate([part.low for part in parts]), np.concatenate([part.high for part in parts])

    return bounds


def _bootstrap_t(samples: Floats, rng: np.random.Generator) -> Bounds:
    """Make symmetric bootstrap-t intervals (Hall, "On Symmetric Bootstrap Confidence Intervals", JRSS B 1988)."""
    n, quantiles = samples.shape[1], []
    for block in _blocks(samples):
        drawn = block[:, rng.integers(0, n, (999, n))]  # (samples, resamples, n)
        error = drawn.std(axis=2, ddof=1) / np.sqrt(n)
        equal = error < 1e-9  # one value n times: left out, for it has no spread to go by
        distance = np.abs(drawn.mean(axis=2) - block.mean(axis=1, keepdims=True))
        ratios = np.where(equal, np.nan, distance / np.where(equal, 1.0, error))
        quantiles.append(np.nanquantile(ratios, CONFIDENCE, axis=1))
    mean, half = samples.mean(axis=1), np.concatenate(quantiles) * samples.std(axis=1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def _inverted_sign_flips(samples: Floats, rng: np.random.Generator) -> Bounds:
    """Make the intervals of all means that the sign-flip test does not reject."""
    flips = sign_flips(samples.shape[1], rng, 2_047)
    low = [-critical_shifts(block, flips) for block in _blocks(samples)]
    high = [critical_shifts(-block, flips) for block in _blocks(samples)]
    return np.concatenate(low), np.concatenate(high)


def _trimmed_t(samples: Floats, rng: np.random.Generator) -> Bounds:
    """Make the t intervals of trimmed means, from the winsorized spread (Tukey and McLaughlin, Sankhya A 1963)."""
    n = samples.shape[1]
    cut = n // 4
    left = n - 2 * cut
    ordered = np.sort(samples, axis=1)
    spread = np.clip(ordered, ordered[:, [cut]], ordered[:, [n - cut - 1]]).std(axis=1, ddof=1)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, left - 1) * spread * np.sqrt((n - 1) / (left * (left - 1)))
    return trimmed(samples) - half, trimmed(samples) + half


def _interquartile(samples: Floats, rng: np.random.Generator) -> Bounds:
    """Make the intervals of `interquartile_mean_interval`, from fewer resamples."""
    if samples.shape[1] < BOOTSTRAP_FROM:
        half = mean_half_width(samples)
        return trimmed(samples) - half, trimmed(samples) + half
    low, high = _bootstrap(trimmed, "percentile", 4_999, expanded=True)(samples, rng)
    return low, high


def _blocks(samples: Floats) -> Iterable[Floats]:
    return (samples[i : i + _BLOCK] for i in range(0, len(samples), _BLOCK))


BCA = Method("BCa bootstrap (before)", MEAN, _bootstrap(np.mean, "BCa", 999), slow=True)
CHOSEN_MEAN = Method("**t, level 98.5%**", MEAN, _t(MEAN_LEVEL))
PERCENTILE = Method(
    "percentile bootstrap (before)", INTERQUARTILE_MEAN, _bootstrap(trimmed, "percentile", 999), slow=True
)
CHOSEN_INTERQUARTILE_MEAN = Method("**expanded percentile**", INTERQUARTILE_MEAN, _interquartile, slow=True)
METHODS = (
    BCA,
    Method("t, level 95%", MEAN, _t(CONFIDENCE)),
    CHOSEN_MEAN,
    Method("t, level 99%", MEAN, _t(0.99)),
    Method("symmetric bootstrap-t", MEAN, _bootstrap_t, slow=True),
    Method("inverted sign-flip test", MEAN, _inverted_sign_flips, slow=True),
    PERCENTILE,
    CHOSEN_INTERQUARTILE_MEAN,
    Method("trimmed t", INTERQUARTILE_MEAN, _trimmed_t),
)


def as_markdown(cells: Sequence[CoverageCell]) -> str:
    """Return what came out in words, and a table for each estimand: coverage in per cent, mean width in brackets."""
    sizes = sorted({cell.n for cell in cells})
    lines = [_in_words(cells), ""]
    for estimand in dict.fromkeys(cell.estimand for cell in cells):
        lines += [f"Intervals of the {estimand}:", ""]
        lines += ["| values | interval | " + " | ".join(f"n = {n}" for n in sizes) + " |"]
        lines += ["| --- | --- |" + " --- |" * len(sizes)]
        rows: dict[tuple[str, str], dict[int, CoverageCell]] = {}
        for cell in cells:
            if cell.estimand == estimand:
                rows.setdefault((cell.distribution, cell.method), {})[cell.n] = cell
        for (distribution, method), row in rows.items():
            shown = [_shown(row[n]) for n in sizes]
            lines += [f"| {distribution} | {method} | " + " | ".join(shown) + " |"]
        lines += [""]
    return "\n".join(lines)


def _in_words(cells: Sequence[CoverageCell]) -> str:
    def span(method: Method, *sizes: int, extreme: bool = False) -> str:
        at = [cell for cell in cells if cell.method == method.name and cell.n in sizes]
        shares = [100 * cell.coverage for cell in at if extreme == (cell.distribution == EXTREME)]
        ends = dict.fromkeys(f"{end:.0f}" for end in (min(shares, default=0), max(shares, default=0)))
        return f"{' to '.join(ends)} %" if shares else "(not measured)"

    enough = [n for n in SIZES if n >= BOOTSTRAP_FROM]
    text = f"""
    From five values on the intervals in bold, which reports use, hold the true value in {span(CHOSEN_MEAN, *enough)} of
    the samples (mean) and in {span(CHOSEN_INTERQUARTILE_MEAN, *enough)} (interquartile mean), if {EXTREME}, is left
    aside. There the mean's hold it in {span(CHOSEN_MEAN, *enough, extreme=True)} only: values that small samples seldom
    have decide that mean. With three values it is {span(CHOSEN_MEAN, 3)} ({EXTREME}:
    {span(CHOSEN_MEAN, 3, extreme=True)}) and {span(CHOSEN_INTERQUARTILE_MEAN, 3)}. What stood in their place held it,
    with five values, in {span(BCA, 5)} (BCa) and {span(PERCENTILE, 5)} (percentile); with three in {span(BCA, 3)} and
    {span(PERCENTILE, 3)}. With fewer than five values the interval in bold of the interquartile mean is as wide as the
    mean's, for a bootstrap cannot leave the range of the values. A t interval at 95 % is right for normal values and
    falls short for skewed ones. Bootstrap-t mends that, but where values happen to lie close together it gets so wide
    that its mean width is several times as large. The sign-flip test rejects no mean with fewer than six values."""
    return textwrap.fill(" ".join(text.split()), 120)


def _shown(cell: CoverageCell) -> str:
    width = f"{cell.width:.2f}" if np.isfinite(cell.width) else "∞"
    return f"{100 * cell.coverage:.1f} ({width})"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the tables, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tying_env.reports.coverage", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--repetitions", type=int, default=20_000, help="samples a cell; a tenth where resampling")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.repetitions < 10:
        parser.error(f"--repetitions must be at least 10, got {options.repetitions}")
    cells = measure_coverage(repetitions=options.repetitions, seed=options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(options.out) as unfinished:
        unfinished.write_text(
            _HEAD.format(options.out.name, options.repetitions, options.seed) + as_markdown(cells), encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
