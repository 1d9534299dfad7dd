"""What arms cost: how they tie, parameters, seconds and memory, as a table beside the comparison's."""

from collections.abc import Iterable

import numpy as np

from tying_env.reports.cells import NOTHING, TextTable, format_p
from tying_env.reports.comparison import ArmSummary, Comparison
from tying_env.reports.loading import Run
from tying_env.reports.over_training import mean_over_training


def cost_table(comparison: Comparison) -> TextTable:
    """Return how the arms tie and what they cost: means over decisions and runs."""
    counted = counted_in(run for summary in comparison.arms for run in summary.arm.runs)
    ties = ("arm", f"independent {counted}", "z", "p (chance)")
    headings = (*ties, "trainable parameters", "seconds a run", "memory (peak)")
    rows = [(summary.arm.label, *_cost_cells(summary)) for summary in comparison.arms]
    return TextTable("Tying and cost, means over decisions and runs", headings, tuple(rows))


def counted_in(runs: Iterable[Run]) -> str:
    """Return what is counted in these runs: "layers", or "units" where some tie finer than blocks."""
    return "units" if any(run.kinds.names for run in runs) else "layers"


def _cost_cells(summary: ArmSummary) -> tuple[str, ...]:
    chance = summary.chance
    if chance is None:
        return (NOTHING,) * 6
    runs = summary.counted
    records = [record for run in runs for record in run.records]
    parameters = mean_over_training([record["trainable_parameters"] for record in records], records)
    memory = [n for run in runs for n in run.memory()]
    summaries = [run.summary for run in runs if run.summary is not None]
    conventional = summaries[0]["parameters_conventional"]
    seconds = _seconds([summary["seconds"] for summary in summaries])
    if epochs := [each for summary in summaries if (each := summary.get("seconds_per_epoch")) is not None]:
        seconds += f"\n(epoch: {_seconds(epochs)})"
    decides = any(run.decides and not run.copied for run in runs)
    return (
        f"{chance.mean:.2f} of {runs[0].n_units}\n(chance {chance.chance_mean:.2f})",
        f"{chance.z:+.1f}" if decides and np.isfinite(chance.z) else NOTHING,
        format_p(chance.p_value) if decides else NOTHING,
        f"{parameters / 1e6:,.2f} M\n({parameters / conventional:.0%})",
        seconds,
        f"{mean_over_training(memory, records) / 1e6:,.1f} MB\n({max(memory) / 1e6:,.1f} MB)",
    )


def _seconds(found: list[float]) -> str:
    mean = float(np.mean(found))
    return f"{mean:,.0f}" if mean >= 10 else f"{mean:.1f}"
