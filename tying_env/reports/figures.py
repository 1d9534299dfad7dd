"""Figures that compare arms: learning curves, results against changes, training speed."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tying_env.reports.arms import Arm
from tying_env.reports.comparison import Comparison
from tying_env.reports.drawing import Style, arm_styles, as_label, fit_log_axis, in_lines, legend_right, new_axes
from tying_env.reports.frequencies import ALONE, frequency_result
from tying_env.reports.learned import draw_frequencies
from tying_env.reports.loading import Run, unit_of_perplexity
from tying_env.reports.metrics import METRICS_BY_KEY
from tying_env.reports.statistics import mean_band

_X_NAMES = {"train_step": "training step", "tokens": "tokens trained on"}


def validation_curve(
    run: Run, x: Literal["train_step", "tokens"] = "train_step"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return where validation perplexity was measured, and what came out; both shape (measurements,).

    A record repeats the last measurement until the next: every `validate_every` training steps, and at the end.
    """
    every, total = run.env["validate_every"], run.env["total_steps"]
    points: list[tuple[int, float]] = []
    before = 0
    for record in run.records:
        step = record["train_step"]
        measured = every and (step >= total or before // every < step // every) and not record["diverged"]
        if measured and record["validation_perplexity"] is not None:
            points.append((record[x], record["validation_perplexity"]))
        before = step
    return np.array([p for p, _ in points], dtype=np.int64), np.array([v for _, v in points], dtype=np.float64)


def learning_curves(arms: Sequence[Arm], x: Literal["train_step", "tokens"] = "train_step") -> Figure:
    """Draw validation perplexity against training: the mean over seeds, and its 95% interval as a band.

    The mean is over runs that finished; a run that did not is a thin line up to its last measurement, with a cross.

    Raises:
        ValueError: no run has measured validation perplexity.
    """
    styles = arm_styles([arm.label for arm in arms])
    runs = [run for arm in arms for run in arm.runs]
    unit = unit_of_perplexity(runs)
    figure, axes = new_axes("Learning curves", _X_NAMES[x], f"validation perplexity ({unit})")
    drawn: list[float] = []
    for arm in arms:
        style = styles[arm.label]
        whole = [validation_curve(run, x) for run in arm.runs if run.status == "finished"]
        whole = [curve for curve in whole if len(curve[0])]
        for run in arm.runs:
            points, values = validation_curve(run, x)
            if run.status != "finished" and len(points):
                axes.plot(points, values, style.line, color=style.colour, lw=0.7)
                axes.plot(points[-1], values[-1], "x", color=style.colour, markersize=7)
                drawn += values.tolist()
        if whole:
            drawn += _draw_arm(axes, whole, style, arm.label)
    if not drawn:
        raise ValueError("no run has measured validation perplexity (validate_every is 0, or it ended before)")
    drawn += draw_frequencies(axes, frequency_result(runs, METRICS_BY_KEY["validation-perplexity"]))
    fit_log_axis(axes, drawn)
    cut_to(axes, drawn)
    axes.grid(axis="y", alpha=0.25)
    axes.set_xlim(left=0)
    if axes.get_legend_handles_labels()[0]:
        legend_right(figure)
    return figure


def cost_of_change(comparison: Comparison) -> Figure:
    """Draw the metric against the changes of a run: small a run, large an arm's centre over seeds."""
    metric = comparison.metric
    figure, axes = new_axes(
        "Results against changes of the tying",
        "changes of a layer's state in a run (tied and untied events)",
        f"{metric.name.split(' of ')[0]} ({metric.unit})",
    )
    _, values = draw_results(
        axes,
        comparison,
        lambda run: float(np.sum(run.column("tied_events")) + np.sum(run.column("untied_events"))),
        lambda counted: f"{np.mean([np.mean(run.column('independent_layers')) for run in counted]):.1f} groups",
    )
    fit_log_axis(axes, values)
    cut_to(axes, values)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=-1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.25)
    legend_right(figure)
    return figure


def results_by_arm(comparison: Comparison) -> Figure:
    """Draw a row for each arm: small every run, large the centre over seeds with its interval."""
    metric = comparison.metric
    shown = [(summary, summary.centre) for summary in comparison.arms if summary.centre is not None]
    styles = arm_styles([summary.arm.label for summary in comparison.arms])
    name = f"{metric.name.split(' of ')[0]} ({metric.unit})"
    figure, axes = new_axes("Results of the arms", name, "", (7.5, 1.6 + 0.4 * len(shown)))
    values: list[float] = []
    for row, (summary, centre) in enumerate(shown):
        style, results = styles[summary.arm.label], list(summary.arm.results(metric).values())
        below = [row + 0.24] * len(results)
        axes.plot(results, below, style.marker, color=style.colour, alpha=0.5, markersize=4, markeredgewidth=0)
        if summary.interval is not None:
            axes.plot(summary.interval, [row, row], "-", color=style.colour, lw=1.4)
        axes.plot(centre, row, style.marker, color=style.colour, markersize=7, markeredgecolor="white")
        values += results
    known = frequency_result([run for summary, _ in shown for run in summary.counted], metric)
    if known is not None:
        axes.axvline(known, color="black", ls=":", lw=1.2, zorder=1)
        axes.set_title(f"Results of the arms (dotted: {ALONE}, {known:,.2f})", fontsize=11)
    fit_log_axis(axes, values, "x")
    cut_to(axes, values, "x")
    axes.set_yticks(range(len(shown)), [in_lines(as_label(summary.arm.label)) for summary, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)
    return figure


def training_speed(arms: Sequence[Arm]) -> Figure:
    """Draw the tokens per second of every run, and each arm's mean as a line.

    Raises:
        ValueError: no run has ended.
    """
    styles = arm_styles([arm.label for arm in arms])
    size = (7.5, 1.2 + 0.35 * len(arms))
    figure, axes = new_axes("Training speed (validation included)", "tokens per second", "", size)
    largest = 0.0
    for row, arm in enumerate(arms):
        ended = [run.summary for run in arm.runs if run.summary is not None]
        speeds = [summary["tokens_per_second"] for summary in ended if summary["tokens_per_second"]]
        if speeds:
            style = styles[arm.label]
            axes.plot(speeds, [row] * len(speeds), style.marker, color=style.colour, alpha=0.6, markeredgewidth=0)
            axes.vlines(float(np.mean(speeds)), row - 0.3, row + 0.3, color=style.colour, lw=2)
            largest = max(largest, *speeds)
    if not largest:
        raise ValueError("no run has ended: there is no speed to show")
    axes.set_yticks(range(len(arms)), [in_lines(as_label(arm.label)) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlim(0, 1.05 * largest)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", alpha=0.25)
    return figure


def draw_results(
    axes: Axes, comparison: Comparison, of: Callable[[Run], float], told: Callable[[Sequence[Run]], str]
) -> tuple[list[tuple[float, float]], list[float]]:
    """Draw every run's result against something of it, each arm's centre with its interval, and the frequencies.

    Args:
        axes: where.
        comparison: the arms.
        of: the run's place on the x axis.
        told: what the legend says of an arm's runs, beside its name.

    Returns:
        The arms' centres, and all results.
    """
    styles = arm_styles([summary.arm.label for summary in comparison.arms])
    centres: list[tuple[float, float]] = []
    values: list[float] = []
    for summary in comparison.arms:
        if summary.centre is None:
            continue
        style = styles[summary.arm.label]
        places = [of(run) for run in summary.counted]
        results = list(summary.arm.results(comparison.metric).values())
        axes.plot(places, results, style.marker, color=style.colour, alpha=0.4, markersize=4, markeredgewidth=0)
        x, y = float(np.mean(places)), summary.centre
        if summary.interval is not None:
            axes.plot([x, x], summary.interval, "-", color=style.colour, lw=1.4)
        label = f"{as_label(summary.arm.label)} ({told(summary.counted)})"
        axes.plot(x, y, style.marker, color=style.colour, markersize=9, markeredgecolor="white", label=label)
        centres.append((x, y))
        values += results
    runs = [run for summary in comparison.arms for run in summary.counted]
    # Far from all results its line would leave them no room: it is seen where the axis reaches.
    draw_frequencies(axes, frequency_result(runs, comparison.metric))
    return centres, values


def _draw_arm(
    axes: Axes,
    curves: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]],
    style: Style,
    label: str,
) -> list[float]:
    """Draw the mean of finished runs where all of them were measured, and return the values it is of."""
    points = np.array(sorted(set.intersection(*(set(p.tolist()) for p, _ in curves))), dtype=np.int64)
    values = np.stack([v[np.isin(p, points)] for p, v in curves])  # (seeds, points)
    mean = values.mean(axis=0)
    if len(curves) > 2:  # two seeds' interval is 42 times as wide as they are apart: it would hide the rest
        band = mean_band(values)
        axes.fill_between(points, band.low, band.high, color=style.colour, alpha=0.18, lw=0)
    name = f"{as_label(label)} (n = {len(curves)})"
    axes.plot(points, mean, style.line, marker=style.marker, markersize=3, color=style.colour, lw=1.4, label=name)
    return [float(v) for v in values.ravel()]


def cut_to(axes: Axes, values: Sequence[float], name: Literal["x", "y"] = "y") -> None:
    """End an axis a little beyond these values: few seeds have intervals so wide that the rest would look flat."""
    scale = (axes.yaxis if name == "y" else axes.xaxis).get_transform()
    low, high = scale.transform([min(values), max(values)])
    margin = 0.05 * (high - low) or 0.5
    axes.set(**{f"{name}lim": scale.inverted().transform([low - margin, high + margin])})
