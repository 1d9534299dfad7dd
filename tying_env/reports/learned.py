"""Figures of how networks have learned: frequencies alone as a line, input dependence; rate, gradient and reward."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tying_env.primary.collapse import HARDLY, validations
from tying_env.reports.drawing import COLOURS, fit_log_axis, legend_below, name_axes, new_figure
from tying_env.reports.frequencies import ALONE
from tying_env.reports.loading import Run, unit_of_perplexity


def draw_frequencies(axes: Axes, value: float | None) -> list[float]:
    """Draw the line of frequencies alone, where it is known, and return what the axis has to hold for it."""
    if value is None:
        return []
    axes.axhline(value, color="black", ls=":", lw=1.2, zorder=1, label=f"{ALONE} ({value:,.2f})")
    return [value]


def learning(run: Run) -> Figure:
    """Draw validation perplexity with the line of frequencies alone, and below it the input dependence.

    Raises:
        ValueError: input dependence was not measured: by an earlier version, or for a network where it cannot be had.
    """
    measured = validations(run.records)
    if not measured:
        raise ValueError("input dependence was not measured")
    steps = [one.train_step for one in measured]
    figure = new_figure((7.5, 5.5))
    above, below = figure.subplots(2, 1, sharex=True)
    perplexities = [one.perplexity for one in measured]
    above.plot(steps, perplexities, "-o", color=COLOURS[0], markersize=3, lw=1.4, label="this run")
    name_axes(above, "", f"validation perplexity\n({unit_of_perplexity([run])})")
    fit_log_axis(above, perplexities + draw_frequencies(above, run.frequency_perplexity("validation")))
    above.set_title("Has the network learned?" + (" It has collapsed." if run.collapsed else ""), fontsize=11)
    shares = [max(one.input_dependence, 1e-9) for one in measured]
    below.plot(steps, shares, "-o", color=COLOURS[0], markersize=3, lw=1.4)
    below.axhline(HARDLY, color=COLOURS[1], ls="--", lw=1.2, label=f"hardly depends on input (below {HARDLY:.0%})")
    below.set_yscale("log")
    below.set_ylim(top=1.2)
    name_axes(below, "training step", "input dependence")
    below.set_xlim(left=0)
    legend_below(figure, 3)
    return figure


def training(run: Run) -> Figure:
    """Draw learning rate, norm of the gradient and the reward that the agent saw over training, one below the other.

    Raises:
        ValueError: the run has no decision yet, or is of an earlier version, which did not record them.
    """
    if not run.records:
        raise ValueError("the run has no decision yet")
    curves = {
        "learning_rate": "learning rate",
        "gradient_norm": "norm of the gradient\n(before clipping)",
        "reward": "reward\n(as the agent saw it)",
    }
    if missing := [name for name in curves if name not in run.last]:
        raise ValueError(f"{' and '.join(missing)} {'were' if len(missing) > 1 else 'was'} not recorded")
    figure = new_figure((7.5, 6.5))
    steps = run.column("train_step")
    for (name, label), axes in zip(curves.items(), figure.subplots(len(curves), 1, sharex=True), strict=True):
        values = [math.nan if value is None else value for value in run.column(name)]  # null is what is not finite
        axes.plot(steps, values, color=COLOURS[0], lw=1.4)
        name_axes(axes, "training step" if name == "reward" else "", label)
        axes.set_xlim(left=0)
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[0].set_title("How it trained", fontsize=11)
    figure.align_ylabels()
    return figure
