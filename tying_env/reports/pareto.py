"""Figures of results against size: trainable parameters, and the bytes of a file."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tying_env.reports.comparison import Comparison, by_metric
from tying_env.reports.drawing import fit_log_axis, legend_right, new_axes
from tying_env.reports.figures import cut_to, draw_results
from tying_env.reports.loading import Run
from tying_env.reports.metrics import METRICS_BY_KEY
from tying_env.reports.over_training import mean_over_training


def pareto(comparison: Comparison) -> Figure:
    """Draw the metric against the mean number of trainable parameters: small a run, large an arm's centre over seeds.

    The line joins the arms that no other arm beats in both. Bars are the 95% intervals, cut off beyond all runs.
    """
    metric = comparison.metric
    figure, axes = new_axes(
        "Results against trainable parameters",
        "trainable parameters, mean over training (millions)",
        f"{metric.name.split(' of ')[0]} ({metric.unit})",
    )
    _draw(axes, comparison, lambda run: mean_over_training(run.column("trainable_parameters"), run.records) / 1e6)
    legend_right(figure)
    return figure


def has_bytes(comparison: Comparison) -> bool:
    """Return whether `pareto_bytes` can be drawn: all runs with a result know bits per byte, and their bytes alike."""
    metric = METRICS_BY_KEY["bits-per-byte"]
    runs = [run for summary in comparison.arms for run in summary.counted]
    return _common_bits(runs) is not None and all(run.result(metric) is not None for run in runs)


def pareto_bytes(comparison: Comparison) -> Figure:
    """Draw bits per byte of the best network against what its weights take, each once, in so many bits, before coding.

    The bits are those of a limit that runs were given as an objective, 8 where there is none or they differ. A limit is
    a dashed line.

    Raises:
        ValueError: a run does not know one of the two, or they count in different bits.
    """
    found = by_metric(comparison, METRICS_BY_KEY["bits-per-byte"])
    runs = [run for summary in found.arms for run in summary.counted]
    bits = _common_bits(runs)
    if bits is None or not has_bytes(comparison):
        raise ValueError("not all runs know their bits per byte and, in the same bits a weight, their bytes")
    figure, axes = new_axes(
        "Results against bytes",
        f"bytes of the best network, {bits} bits a weight, not yet coded (thousands)",
        f"{found.metric.name.split(' of ')[0]} ({found.metric.unit})",
    )
    limits = {(run.config["max_bytes"], _packed(run)["bits"]) for run in runs if _is_limited(run)}
    for limit, own in sorted(limits):
        counted = "" if own == bits else f" in {own} bits"
        axes.axvline(limit / 1e3, ls="--", lw=1, color="#555555", zorder=0, label=f"limit: {limit:,} bytes{counted}")
    _draw(axes, found, lambda run: (_bytes_in(bits, run) or 0) / 1e3)
    legend_right(figure)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points for which no other has both coordinates lower or equal (and one lower), by the first."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _draw(axes: Axes, comparison: Comparison, size: Callable[[Run], float]) -> None:
    """Draw the results against a size, and the front of the arms that no other beats in both."""
    centres, values = draw_results(axes, comparison, size, lambda counted: f"n = {len(counted)}")
    sign = -1 if comparison.metric.higher else 1
    front = [(x, sign * y) for x, y in pareto_front([(x, sign * y) for x, y in centres])]
    axes.plot(
        *zip(*front, strict=True),
        "-",
        drawstyle="steps-post",
        color="#999999",
        lw=1,
        zorder=0,
        label="not beaten in both",
    )
    fit_log_axis(axes, values)
    cut_to(axes, values)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)


def _common_bits(runs: Sequence[Run]) -> int | None:
    """Return in how many bits a weight all runs know their bytes; None if in none."""
    limits = {_packed(run).get("bits") for run in runs if _is_limited(run)}
    others = {_packed(run).get("bits") for run in runs}
    for bits in (*(limits if len(limits) == 1 else ()), 8, *(others if len(others) == 1 else ())):
        if bits is not None and all(_bytes_in(bits, run) is not None for run in runs):
            return int(bits)
    return None


def _is_limited(run: Run) -> bool:
    return "max-bytes" in run.config.get("rewards", ())


def _bytes_in(bits: int, run: Run) -> int | None:
    """Return the bytes of the best network in so many bits a weight; None if they were not counted."""
    packed = _packed(run)
    known: dict[str, int] = packed.get("bytes_by_bits") or {str(packed.get("bits")): packed.get("bytes")}  # of before
    return known.get(str(bits))


def _packed(run: Run) -> dict[str, Any]:
    """Return in how many bits a weight the best network was counted, and the bytes; nothing if it was not."""
    found: dict[str, Any] = (run.summary or {}).get("packed") or {}
    return found
