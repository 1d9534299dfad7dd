"""The line that results are held against: what the frequencies of the training split alone come to."""

import math
from collections.abc import Sequence

from tying_env.reports.loading import Run
from tying_env.reports.metrics import Metric

ALONE = "frequencies alone"


def frequency_result(runs: Sequence[Run], metric: Metric) -> float | None:
    """Return what frequencies alone come to in a metric; None where runs do not say, or say different things."""
    known = [value for run in runs if (value := run.frequencies(metric)) is not None]
    alike = bool(known) and all(math.isclose(value, known[0], rel_tol=1e-6) for value in known)
    return known[0] if alike else None


def frequency_cells(runs: Sequence[Run], metric: Metric, beside: Metric, nothing: str) -> tuple[str, ...]:
    """Return a table's line of a network that has learned frequencies alone: name, seeds, metric, the one beside it.

    Args:
        runs: those of the table.
        metric: its metric.
        beside: what stands beside it.
        nothing: what an empty cell reads.
    """
    value, second = frequency_result(runs, metric), frequency_result(runs, beside)
    if value is None:
        return ()
    return ALONE, nothing, f"{value:,.{metric.digits}f}", nothing if second is None else f"{second:.3f}"
