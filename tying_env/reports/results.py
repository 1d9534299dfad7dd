"""The tables of how well arms do: each against the reference arm, and against each other where that is asked."""

from tying_env.config.network import unit_of_bits
from tying_env.reports.arms import Arm
from tying_env.reports.cells import NOTHING, TextTable, format_p
from tying_env.reports.comparison import ArmSummary, Comparison
from tying_env.reports.frequencies import frequency_cells
from tying_env.reports.metrics import Metric
from tying_env.reports.pairs import Pair
from tying_env.reports.sign_flips import ALPHA, smallest_p_value
from tying_env.reports.statistics import Interval, interquartile_mean


def results_table(comparison: Comparison) -> TextTable:
    """Return how well the arms do: interquartile mean, and differences to the reference arm."""
    metric, reference = comparison.metric, comparison.reference
    network = metric.network if metric.network in ("best", "final") else "best"
    in_accuracy = Metric("", "", "", network, "accuracy")
    classified = any(run.result(in_accuracy) is not None for s in comparison.arms for run in s.counted)
    beside = in_accuracy if classified else Metric("", "", "", network, "bits_per_byte")
    bits = unit_of_bits(run.env["tokenizer"] for s in comparison.arms for run in s.arm.runs)
    second = "accuracy" if classified else bits
    headings = (
        "arm",
        "seeds",
        "IQM [95%]",
        second if metric.network == network else f"test {second}",  # beside what was measured on other data
        f"difference to {reference.label} [95%]",
        "p",
        "p (Holm)",
        "detectable",
        *(() if comparison.margin is None else (f"within {comparison.margin:g}%",)),
    )
    rows = [
        (*_quality_cells(s, metric, beside), *_own_cells(s, reference, metric), *_within(s.against, comparison.margin))
        for s in comparison.arms
    ]
    if cells := frequency_cells([run for s in comparison.arms for run in s.counted], metric, beside, NOTHING):
        rows.append((*cells, *[NOTHING] * (len(headings) - len(cells))))
    better = "higher" if metric.higher else "lower"
    title = f"{metric.name[0].upper()}{metric.name[1:]} ({metric.unit}), {better} is better"
    return TextTable(title, headings, tuple(rows))


def pairs_table(comparison: Comparison) -> TextTable | None:
    """Return the differences between arms named in pairs; None where none was asked for."""
    if not comparison.pairs:
        return None
    metric, margin = comparison.metric, comparison.margin
    headings = (
        *("arm", "compared with", "seeds", "difference [95%]", "p", "p (Holm)", "detectable"),
        *(() if margin is None else (f"within {margin:g}%",)),
    )
    rows = tuple(
        (
            *(pair.arm.label, pair.other.label, str(len(pair.difference.seeds)) if pair.difference else "0"),
            *_difference_cells(pair, metric),
            *_within(pair, margin),
        )
        for pair in comparison.pairs
    )
    return TextTable(f"Pairs of arms, by {metric.name} ({metric.unit})", headings, rows)


def _quality_cells(summary: ArmSummary, metric: Metric, beside: Metric) -> tuple[str, ...]:
    seeds = f"{len(summary.counted)}/{len(summary.arm.runs)}"
    if summary.centre is None:
        return summary.arm.label, seeds, "no result", NOTHING
    digits = metric.digits
    interval = _interval(summary.interval, summary.no_interval, f",.{digits}f")
    values = [value for run in summary.counted if (value := run.result(beside)) is not None]
    second = f"{interquartile_mean(values):.3f}" if values else NOTHING
    return summary.arm.label, seeds, f"{summary.centre:,.{digits}f}\n{interval}", second


def _own_cells(summary: ArmSummary, reference: Arm, metric: Metric) -> tuple[str, ...]:
    if summary.arm is reference:
        return "reference", NOTHING, NOTHING, NOTHING
    if summary.centre is None:
        return "no result", NOTHING, NOTHING, NOTHING
    return _difference_cells(summary.against, metric)


def _difference_cells(pair: Pair, metric: Metric) -> tuple[str, ...]:
    found = pair.difference
    if found is None:
        return "no seed in common", NOTHING, NOTHING, NOTHING
    if pair.same:
        return "the same", NOTHING, NOTHING, NOTHING
    spec = f"+,.{metric.digits}f"
    percent = "" if found.percent is None else f" ({found.percent:+,.{1 if abs(found.percent) < 100 else 0}f}%)"
    difference = f"{found.mean:{spec}}{percent}\n{_interval(found.interval, found.no_interval, spec)}"
    if pair.corrected_p is None:  # a single pair
        return difference, NOTHING, NOTHING, NOTHING
    detectable = NOTHING if found.detectable is None else f"{found.detectable:,.{metric.digits}f}"
    if smallest_p_value(len(found.seeds)) >= ALPHA:
        detectable = f"none:\np ≥ {smallest_p_value(len(found.seeds)):.3f}"
    return difference, format_p(found.p_value), format_p(pair.corrected_p), detectable


def _within(pair: Pair, margin: float | None) -> tuple[str, ...]:
    """Say whether the two arms are equivalent; nothing where nobody asks."""
    if margin is None:
        return ()
    if pair.same:
        return ("yes",)
    answer = None if pair.difference is None else pair.difference.within(margin)
    return (NOTHING if answer is None else "yes" if answer else "not shown",)


def _interval(interval: Interval | None, otherwise: str, spec: str) -> str:
    if interval is None:
        return f"({otherwise})".replace(": ", ":\n")  # short lines: a table has many columns
    return f"[{interval.low:{spec}}, {interval.high:{spec}}]"
