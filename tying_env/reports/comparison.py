"""The comparison of arms: every arm's results, and its difference to the reference arm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tying_env.config.network import unit_of_bits
from tying_env.reports.arms import Arm, comparability_notes, group_into_arms
from tying_env.reports.cells import format_p
from tying_env.reports.chance import ChanceComparison, compare_with_chance
from tying_env.reports.loading import Run, find_runs, load_run, unit_of_perplexity
from tying_env.reports.metrics import METRICS_BY_KEY, Metric
from tying_env.reports.pairs import Pair, corrected, pair_of, pairs_named
from tying_env.reports.sign_flips import ALPHA, seeds_needed, smallest_p_value
from tying_env.reports.statistics import (
    BOOTSTRAP_SEED,
    Interval,
    interquartile_mean,
    interquartile_mean_interval,
)


@dataclass(frozen=True)
class ArmSummary:
    """What the runs of one arm that have a result come to.

    Attributes:
        arm: the arm.
        counted: its runs with a result; all numbers below are over these.
        centre: interquartile mean of the metric over seeds.
        interval: of `centre`, or None.
        no_interval: why there is none.
        against: the reference arm; its correction is over all arms compared with it.
        chance: all decisions of all counted runs against uniformly random actions.
    """

    arm: Arm
    counted: tuple[Run, ...]
    against: Pair
    centre: float | None = None
    interval: Interval | None = None
    no_interval: str = "no result"
    chance: ChanceComparison | None = None


@dataclass(frozen=True)
class Comparison:
    """All arms side by side.

    Attributes:
        metric: what is compared.
        reference: the arm that the others are compared with.
        arms: one summary each, in the order of the arms.
        notes: what to beware of, in sentences.
        margin: per cent of the reference arm's mean within which arms are asked to be equivalent to it, or None.
        pairs: arms compared with each other besides, with a correction of their own.
    """

    metric: Metric
    reference: Arm
    arms: tuple[ArmSummary, ...]
    notes: tuple[str, ...]
    margin: float | None = None
    pairs: tuple[Pair, ...] = ()


def load_comparison(
    paths: Sequence[Path],
    reference: str | None = None,
    metric: str = "test-perplexity",
    margin: float | None = None,
    pairs: Sequence[str] = (),
) -> Comparison:
    """Read run directories, or folders of them, and compare their arms.

    Args:
        paths: run directories, or folders that hold some at any depth.
        reference: label of the arm that the others are compared with; see `choose_reference`.
        metric: a key of METRICS_BY_KEY.
        margin: of equivalence, in per cent of the reference arm's mean; None: it is not asked for.
        pairs: "arm:other" each, to be compared besides; see `tying_env.reports.pairs.pairs_named`.

    Raises:
        FileNotFoundError: no runs are there.
        ValueError: a file is damaged, the reference, the metric or an arm of a pair is unknown, the margin is not above
            0, or nothing has a result.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"the margin of equivalence must be a number of per cent above 0, got {margin!r}")
    if metric not in METRICS_BY_KEY:
        raise ValueError(f"metric must be one of {', '.join(METRICS_BY_KEY)}, got {metric!r}")
    arms = group_into_arms([load_run(path) for path in find_runs(paths)])
    found = compare(arms, choose_reference(arms, reference), METRICS_BY_KEY[metric], pairs)
    return replace(found, margin=margin)


def choose_reference(arms: Sequence[Arm], label: str | None = None) -> Arm:
    """Return the arm with this label; without one `random`, the arm of chance, or else the first.

    Raises:
        ValueError: there is no such arm; the message lists the labels.
    """
    by_label = {arm.label: arm for arm in arms}
    if label is None:
        return by_label.get("random", arms[0])
    if label not in by_label:
        raise ValueError(f"there is no arm {label!r} to refer to; the labels are {', '.join(map(repr, by_label))}")
    return by_label[label]


def compare(arms: Sequence[Arm], reference: Arm, metric: Metric, pairs: Sequence[str] = ()) -> Comparison:
    """Compare all arms with the reference arm, seed by seed, and those named with each other.

    Raises:
        ValueError: no run has a value of the metric; the message says why, and which metrics there are. Or a pair is
            none.
    """
    runs = [run for arm in arms for run in arm.runs]
    if all(run.result(metric) is None for run in runs):
        others = [key for key, other in METRICS_BY_KEY.items() if any(run.result(other) is not None for run in runs)]
        hint = f"try --metric {' or '.join(others)}" if others else "no run has finished with a result"
        raise ValueError(f"no run has a {metric.name} ({runs[0].path}: {runs[0].why_no_result(metric)}); {hint}")
    metric = _in_units(metric, runs)
    against = corrected([pair_of(arm, reference, metric) for arm in arms])
    besides = pairs_named(pairs, arms, metric)
    notes = comparability_notes(arms, reference, metric)
    notes += [_sameness_note(pair) for pair in (*against, *besides) if pair.same]
    notes += _notes_on_tests("arms", against) + _notes_on_tests("pairs", besides)
    summaries = tuple(_summarise(pair, metric) for pair in against)
    return Comparison(metric, reference, summaries, tuple(dict.fromkeys(notes)), pairs=tuple(besides))


def by_metric(comparison: Comparison, metric: Metric) -> Comparison:
    """Return the same arms, each with its centre by another metric; differences and notes stay those of the first."""
    metric = _in_units(metric, [run for summary in comparison.arms for run in summary.arm.runs])
    arms = tuple(_summarise(summary.against, metric) for summary in comparison.arms)
    return replace(comparison, metric=metric, arms=arms)


def _in_units(metric: Metric, runs: Sequence[Run]) -> Metric:
    """Return the metric with the unit that these runs have."""
    if metric.unit == "per token":
        return replace(metric, unit=unit_of_perplexity(runs))
    if metric.field == "accuracy":
        return replace(metric, unit=f"share of {unit_of_perplexity(runs).removeprefix('per ')}s")
    if metric.unit == "bits/byte":
        unit = unit_of_bits(run.env["tokenizer"] for run in runs)
        return replace(metric, unit=unit, name=metric.name.replace("bits per byte", unit.replace("/", " per ")))
    return metric


def _summarise(against: Pair, metric: Metric) -> ArmSummary:
    arm = against.arm
    results = arm.results(metric)
    counted = tuple(run for run in arm.runs if run.seed in results)
    if not counted:
        return ArmSummary(arm, counted, against)
    values = list(results.values())
    interval, no_interval = None, ""
    try:
        interval = interquartile_mean_interval(values, np.random.default_rng(BOOTSTRAP_SEED))
    except ValueError as error:
        no_interval = str(error)
    layers = [n for run in counted for n in run.independent_layers()]
    return ArmSummary(
        arm=arm,
        counted=counted,
        against=against,
        centre=interquartile_mean(values),
        interval=interval,
        no_interval=no_interval,
        chance=compare_with_chance(layers, *counted[0].kinds.sizes) if layers else None,
    )


def _sameness_note(pair: Pair) -> str:
    seeds = ", ".join(map(str, pair.difference.seeds)) if pair.difference else ""
    return (
        f"{pair.arm.label} did the same as {pair.other.label} in every seed that both have ({seeds}): every tying "
        "and every measured result is equal. There is no difference to test."
    )


def _notes_on_tests(what: str, pairs: Sequence[Pair]) -> list[str]:
    """Say when no p below 0.05 can come out, of a single test or after Holm's correction."""
    seeds = [pair.seeds for pair in pairs if pair.seeds]
    if not seeds:
        return []
    notes, tests = [], len(seeds)
    fewest, most = min(seeds), max(seeds)
    if smallest_p_value(fewest) >= ALPHA:
        notes.append(
            f"With {fewest} pairs of seeds the exact test cannot give less than p = "
            f"{format_p(smallest_p_value(fewest))}, however large the difference; {seeds_needed()} are the fewest with "
            f"which it can fall below {ALPHA}."
        )
    if tests > 1 and tests * smallest_p_value(most) >= ALPHA:
        notes.append(
            f"With {tests} {what} compared and {most} pairs of seeds no p (Holm) below {ALPHA} can come out: the least "
            f"is {format_p(min(1.0, tests * smallest_p_value(most)))}. {seeds_needed(tests)} seeds are the fewest with "
            "which one can."
        )
    return notes
