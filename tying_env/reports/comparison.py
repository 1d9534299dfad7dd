"""The comparison of arms: every arm's results, its difference to the reference arm, and the tables made from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tying_env.config.network import unit_of_bits
from tying_env.reports.arms import Arm, comparability_notes, did_the_same, group_into_arms
from tying_env.reports.chance import ChanceComparison, compare_with_chance
from tying_env.reports.frequencies import frequency_cells
from tying_env.reports.loading import METRICS_BY_KEY, Metric, Run, find_runs, load_run, unit_of_perplexity
from tying_env.reports.sign_flips import ALPHA, seeds_needed, smallest_p_value
from tying_env.reports.statistics import (
    Interval,
    PairedDifference,
    holm,
    interquartile_mean,
    interquartile_mean_interval,
    paired_difference,
)

# Every interval starts its own generator from this, so that no arm's numbers depend on which others are there.
BOOTSTRAP_SEED = 20240116
NOTHING = "–"


class TextTable(NamedTuple):
    """A table ready to print."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ArmSummary:
    """What the runs of one arm that have a result come to.

    Attributes:
        arm: the arm.
        counted: its runs with a result; all numbers below are over these.
        centre: interquartile mean of the metric over seeds.
        interval: of `centre`, or None.
        no_interval: why there is none.
        difference: to the reference arm; None for the reference itself and without a common seed.
        same: whether it did what the reference arm did in every seed that both have, and came to the same results.
        corrected_p: Holm's, over all arms compared with the reference.
        chance: all decisions of all counted runs against uniformly random actions.
    """

    arm: Arm
    counted: tuple[Run, ...]
    centre: float | None = None
    interval: Interval | None = None
    no_interval: str = "no result"
    difference: PairedDifference | None = None
    same: bool = False
    corrected_p: float | None = None
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
    """

    metric: Metric
    reference: Arm
    arms: tuple[ArmSummary, ...]
    notes: tuple[str, ...]
    margin: float | None = None


def load_comparison(
    paths: Sequence[Path],
    reference: str | None = None,
    metric: str = "test-perplexity",
    margin: float | None = None,
) -> Comparison:
    """Read run directories, or folders of them, and compare their arms.

    Args:
        paths: run directories, or folders that hold some at any depth.
        reference: label of the arm that the others are compared with; see `choose_reference`.
        metric: a key of METRICS_BY_KEY.
        margin: of equivalence, in per cent of the reference arm's mean; None: it is not asked for.

    Raises:
        FileNotFoundError: no runs are there.
        ValueError: a file is damaged, the reference or metric is unknown, the margin is not above 0, or nothing has a
            result.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"the margin of equivalence must be a number of per cent above 0, got {margin!r}")
    if metric not in METRICS_BY_KEY:
        raise ValueError(f"metric must be one of {', '.join(METRICS_BY_KEY)}, got {metric!r}")
    arms = group_into_arms([load_run(path) for path in find_runs(paths)])
    return replace(compare(arms, choose_reference(arms, reference), METRICS_BY_KEY[metric]), margin=margin)


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


def compare(arms: Sequence[Arm], reference: Arm, metric: Metric) -> Comparison:
    """Compare all arms with the reference arm, seed by seed.

    Raises:
        ValueError: no run has a value of the metric; the message says why, and which metrics there are.
    """
    runs = [run for arm in arms for run in arm.runs]
    if all(run.result(metric) is None for run in runs):
        others = [key for key, other in METRICS_BY_KEY.items() if any(run.result(other) is not None for run in runs)]
        hint = f"try --metric {' or '.join(others)}" if others else "no run has finished with a result"
        raise ValueError(f"no run has a {metric.name} ({runs[0].path}: {runs[0].why_no_result(metric)}); {hint}")
    if metric.unit == "per token":
        metric = replace(metric, unit=unit_of_perplexity(runs))
    if metric.unit == "bits/byte":
        unit = unit_of_bits(run.env["tokenizer"] for run in runs)
        metric = replace(metric, unit=unit, name=metric.name.replace("bits per byte", unit.replace("/", " per ")))
    summaries = [_summarise(arm, reference, metric) for arm in arms]
    # Of an arm that did the same as the reference there is nothing to test; in Holm's family it would cost the others.
    apart = {i: s.difference for i, s in enumerate(summaries) if s.difference and not s.same}
    tested = {i: difference for i, difference in apart.items() if len(difference.seeds) > 1}
    for i, corrected in zip(tested, holm([found.p_value for found in tested.values()]), strict=True):
        summaries[i] = replace(summaries[i], corrected_p=corrected)
    notes = comparability_notes(arms, reference, metric)
    notes += [_sameness_note(summary, reference) for summary in summaries if summary.same]
    notes += _notes_on_tests([len(found.seeds) for found in tested.values()])
    return Comparison(metric, reference, tuple(summaries), tuple(notes))


def results_table(comparison: Comparison) -> TextTable:
    """Return how well the arms do: interquartile mean, and differences to the reference arm."""
    metric, reference = comparison.metric, comparison.reference
    network = metric.network or "best"
    in_accuracy = Metric("", "", "", network, "accuracy")
    classified = any(run.result(in_accuracy) is not None for s in comparison.arms for run in s.counted)
    beside = in_accuracy if classified else Metric("", "", "", network, "bits_per_byte")
    bits = unit_of_bits(run.env["tokenizer"] for s in comparison.arms for run in s.arm.runs)
    headings = (
        "arm",
        "seeds",
        "IQM [95%]",
        "accuracy" if classified else bits,
        f"difference to {reference.label} [95%]",
        "p",
        "p (Holm)",
        "detectable",
        *(() if comparison.margin is None else (f"within {comparison.margin:g}%",)),
    )
    rows = [
        (*_quality_cells(s, metric, beside), *_difference_cells(s, reference, metric), *_within(s, comparison.margin))
        for s in comparison.arms
    ]
    if cells := frequency_cells([run for s in comparison.arms for run in s.counted], metric, beside, NOTHING):
        rows.append((*cells, *[NOTHING] * (len(headings) - len(cells))))
    better = "higher" if metric.higher else "lower"
    title = f"{metric.name[0].upper()}{metric.name[1:]} ({metric.unit}), {better} is better"
    return TextTable(title, headings, tuple(rows))


def format_p(p: float) -> str:
    """Return a p-value with three digits behind the point; "< 0.001" below."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _summarise(arm: Arm, reference: Arm, metric: Metric) -> ArmSummary:
    results = arm.results(metric)
    counted = tuple(run for run in arm.runs if run.seed in results)
    if not counted:
        return ArmSummary(arm, counted)
    values = list(results.values())
    interval, no_interval = None, ""
    try:
        interval = interquartile_mean_interval(values, _generator())
    except ValueError as error:
        no_interval = str(error)
    common = sorted(results.keys() & reference.results(metric).keys())
    compared = arm is not reference and bool(common)
    layers = [n for run in counted for n in run.independent_layers()]
    return ArmSummary(
        arm=arm,
        counted=counted,
        centre=interquartile_mean(values),
        interval=interval,
        no_interval=no_interval,
        difference=paired_difference(results, reference.results(metric), _generator()) if compared else None,
        same=compared and did_the_same(arm, reference, common),
        chance=compare_with_chance(layers, *counted[0].kinds.sizes) if layers else None,
    )


def _sameness_note(summary: ArmSummary, reference: Arm) -> str:
    seeds = ", ".join(map(str, summary.difference.seeds)) if summary.difference else ""
    return (
        f"{summary.arm.label} did the same as {reference.label} in every seed that both have ({seeds}): every tying "
        "and every measured result is equal. There is no difference to test."
    )


def _notes_on_tests(seeds: Sequence[int]) -> list[str]:
    """Say when no p below 0.05 can come out, of a single test or after Holm's correction; one entry a tested arm."""
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
            f"With {tests} arms compared and {most} pairs of seeds no p (Holm) below {ALPHA} can come out: the least "
            f"is {format_p(min(1.0, tests * smallest_p_value(most)))}. {seeds_needed(tests)} seeds are the fewest with "
            "which one can."
        )
    return notes


def _quality_cells(summary: ArmSummary, metric: Metric, beside: Metric) -> tuple[str, ...]:
    seeds = f"{len(summary.counted)}/{len(summary.arm.runs)}"
    if summary.centre is None:
        return summary.arm.label, seeds, "no result", NOTHING
    digits = metric.digits
    interval = _interval(summary.interval, summary.no_interval, f",.{digits}f")
    values = [value for run in summary.counted if (value := run.result(beside)) is not None]
    second = f"{interquartile_mean(values):.3f}" if values else NOTHING
    return summary.arm.label, seeds, f"{summary.centre:,.{digits}f}\n{interval}", second


def _difference_cells(summary: ArmSummary, reference: Arm, metric: Metric) -> tuple[str, ...]:
    if summary.arm is reference:
        return "reference", NOTHING, NOTHING, NOTHING
    found = summary.difference
    if found is None:
        return "no result" if summary.centre is None else "no seed in common", NOTHING, NOTHING, NOTHING
    if summary.same:
        return "the same", NOTHING, NOTHING, NOTHING
    spec = f"+,.{metric.digits}f"
    percent = "" if found.percent is None else f" ({found.percent:+,.{1 if abs(found.percent) < 100 else 0}f}%)"
    difference = f"{found.mean:{spec}}{percent}\n{_interval(found.interval, found.no_interval, spec)}"
    if summary.corrected_p is None:  # a single pair
        return difference, NOTHING, NOTHING, NOTHING
    detectable = NOTHING if found.detectable is None else f"{found.detectable:,.{metric.digits}f}"
    if smallest_p_value(len(found.seeds)) >= ALPHA:
        detectable = f"none:\np ≥ {smallest_p_value(len(found.seeds)):.3f}"
    return difference, format_p(found.p_value), format_p(summary.corrected_p), detectable


def _within(summary: ArmSummary, margin: float | None) -> tuple[str, ...]:
    """Say whether the arm is equivalent to the reference arm; nothing where nobody asks."""
    if margin is None:
        return ()
    if summary.same:
        return ("yes",)
    answer = None if summary.difference is None else summary.difference.within(margin)
    return (NOTHING if answer is None else "yes" if answer else "not shown",)


def _interval(interval: Interval | None, otherwise: str, spec: str) -> str:
    if interval is None:
        return f"({otherwise})".replace(": ", ":\n")  # short lines: a table has many columns
    return f"[{interval.low:{spec}}, {interval.high:{spec}}]"


def _generator() -> np.random.Generator:
    return np.random.default_rng(BOOTSTRAP_SEED)
