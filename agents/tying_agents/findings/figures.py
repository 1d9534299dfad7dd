"""Figures of what the tying table says, a panel for each corpus."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tying_agents.controllers.rules import PRIORS
from tying_agents.findings.effects import effects
from tying_agents.findings.losses import Losses
from tying_agents.findings.orders import fidelities, seed_against_others
from tying_env.reports.drawing import COLOURS, as_label, name_axes, new_figure


def by_groups(found: Sequence[Losses]) -> Figure:
    """Draw every tying's perplexity over its number of groups, with what rules choose."""

    def draw(axes: Axes, losses: Losses) -> None:
        perplexity = np.exp(losses.test).mean(axis=0)  # (T,)
        spread = np.random.default_rng(0).uniform(-0.22, 0.22, len(perplexity))
        axes.scatter(losses.groups + spread, perplexity, s=9, color="#aaaaaa", label="a tying, mean over seeds")
        rows = {tuple(tying): row for row, tying in enumerate(losses.tyings.tolist())}
        numbers = range(1, losses.tyings.shape[1] + 1)
        for (name, prior), colour, marker in zip(PRIORS.items(), COLOURS, "osD^v", strict=False):
            chosen = [perplexity[rows[tuple(prior.best(len(numbers), n).tolist())]] for n in numbers]
            axes.plot(numbers, chosen, color=colour, marker=marker, markersize=4, linewidth=1, label=f"prior, {name}")
        axes.set_xticks(list(numbers))
        name_axes(axes, "groups", "test perplexity per byte")

    return _panels(found, draw)


def short_trainings(found: Sequence[Losses]) -> Figure:
    """Draw how well trainings of each length rank whole ones."""

    def draw(axes: Axes, losses: Losses) -> None:
        points = fidelities(losses)
        steps = [point.steps for point in points]
        ceiling = seed_against_others(losses)
        for place, (name, line) in enumerate((("all pairs", "-"), ("equal groups", "--"))):
            means = [point.one[place] for point in points]
            centre = np.array([mean.value for mean in means])
            half = np.array([mean.half for mean in means])
            axes.plot(steps, centre, color=COLOURS[0], linestyle=line, label=f"one seed, {name}")
            axes.fill_between(steps, centre - half, centre + half, color=COLOURS[0], alpha=0.15, linewidth=0)
            halves = [point.half[place].value for point in points]
            axes.plot(steps, halves, color=COLOURS[1], linestyle=line, label=f"half of them, {name}")
            axes.axhline(ceiling[place].value, color="#888888", linestyle=line, linewidth=1)
        name_axes(axes, "training steps", "Kendall's tau with the end of other seeds")

    return _panels(found, draw)


def tied_pairs(found: Sequence[Losses]) -> Figure:
    """Draw what tying two layers costs, in per cent of perplexity."""

    def draw(axes: Axes, losses: Losses) -> None:
        n_units, costs = losses.tyings.shape[1], effects(losses)
        values = np.full((n_units, n_units), np.nan)
        for (i, j), mean in costs.pair.items():
            values[i, j] = mean.value
        for i, mean in enumerate(costs.share):
            values[i, i] = mean.value
        most = np.nanmax(np.abs(values)) or 1.0
        axes.imshow(values, cmap="PuOr_r", vmin=-most, vmax=most)
        for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
            colour = "white" if abs(values[i, j]) > 0.6 * most else "black"
            axes.text(j, i, f"{values[i, j]:+.2f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(n_units))
        axes.set_yticks(range(n_units))
        name_axes(axes, "layer", "layer")

    return _panels(found, draw, legend=False)


def _panels(found: Sequence[Losses], draw: Callable[[Axes, Losses], None], legend: bool = True) -> Figure:
    figure = new_figure((4.6 * len(found), 4.4 + 0.6 * legend))
    for number, losses in enumerate(found, 1):
        axes = figure.add_subplot(1, len(found), number)
        draw(axes, losses)
        axes.set_title(as_label(losses.corpus), fontsize=11)
    if legend:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure
