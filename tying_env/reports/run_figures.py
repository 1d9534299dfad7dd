"""Figures of a single run, the paper's among them, each with what chance would give where there is such a thing."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axis import Axis
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tying_env.config.network import is_own
from tying_env.kinds import FEED_FORWARD, Kinds
from tying_env.partition import chance_independent_layers, leaders
from tying_env.render import replication_map_figure
from tying_env.reports.chance import chance_events
from tying_env.reports.drawing import COLOURS, legend_below, name_axes, new_axes, new_figure
from tying_env.reports.loading import Run
from tying_env.runs import SavedNetwork, load_network
from tying_env.runs.run_directory import FINAL

# Perceptually even, and readable with any kind of colour vision.
_COLOUR_MAP = "viridis"
_TIED, _UNTIED = COLOURS[0], COLOURS[1]
_LEADERS = tuple(colour for colour in COLOURS if colour != "#000000")  # too near to the greys of the others
_OTHERS = "#b0b0b0"
_NEAR_COPIES = 0.99
MAX_NETWORK_BYTES = 500_000_000


def replication_map(run: Run) -> Figure:
    """Draw each layer with an arc to its leader at the end (paper, Fig. 1).

    Raises:
        ValueError: the run has no decision yet, or its layers were copied.
    """
    _check_decisions(run)
    if run.copied:
        raise ValueError("layers were copied, not tied: every layer has weights of its own")
    last = run.records[-1]
    title = f"Replication map at training step {last['train_step']:,}"
    return replication_map_figure(last["tying"], title, run.kinds)


def tying_events(run: Run) -> Figure:
    """Draw tied and untied events over decisions (paper, Fig. 2): counts thin, moving mean thick, chance dashed.

    Raises:
        ValueError: the run has no decision yet.
    """
    decisions = _decisions(run)
    window = max(1, len(decisions) // 20)
    title = f"Changes of tying (thick: mean of {window} decisions)" if window > 1 else "Changes of tying"
    figure, axes = new_axes(title, "decision", "layers changed in a decision")
    by_chance = chance_events(*run.kinds.sizes)
    for key, colour, chance in zip(("tied", "untied"), (_TIED, _UNTIED), by_chance, strict=True):
        counts = np.array(run.column(f"{key}_events"), dtype=np.float64)
        axes.plot(decisions, counts, color=colour, lw=0.6, alpha=0.35)
        smooth = np.convolve(counts, np.ones(window) / window, mode="valid")
        axes.plot(decisions[window - 1 :], smooth, color=colour, lw=2, label=f"{key} events")
        axes.axhline(chance, color=colour, lw=1, ls="--", label=f"{key}, random actions ({chance:.2f})")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, 2)
    return figure


def trainable_steps(run: Run) -> Figure:
    """Draw for how many training steps each layer was independent (paper, Fig. 3), and what random actions give.

    Raises:
        ValueError: the run has no decision yet.
    """
    steps, kinds = steps_as_leader(run), run.kinds
    layers = np.arange(run.n_units)
    size = (max(7.5, 0.2 * run.n_units), 4.0)
    figure, axes = new_axes("Training steps with weights of its own", _units_named(kinds), "training steps", size)
    axes.bar(layers, steps, color=COLOURS[0], width=0.8, label="this run")
    chance = steps[kinds.lowest] / kinds.choices
    axes.plot(layers, chance, "_", color=COLOURS[1], markersize=12, markeredgewidth=2, label="random actions")
    _name_units(axes.xaxis, kinds, 1 if run.n_units <= 24 else 4)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    legend_below(figure, 2)
    return figure


def steps_as_leader(run: Run) -> npt.NDArray[np.int64]:
    """Return the number of training steps in which each layer was independent, shape (L,).

    A decision's tying holds for the training steps from it to the next. Before the first one layer 0 alone trains, or
    with `freeze_at_start` off every layer. Layers that are copied instead of tied have weights of their own throughout.

    Raises:
        ValueError: the run has no decision yet.
    """
    _check_decisions(run)
    lengths = np.diff(run.column("train_step"), prepend=run.frozen_steps)  # (decisions,)
    independent = np.array(run.column("tying")) == np.arange(run.n_units)  # (decisions, L)
    if run.copied:
        independent[:] = True
    start = run.kinds.position == 0 if run.env["freeze_at_start"] else np.ones(run.n_units, dtype=bool)
    steps: npt.NDArray[np.int64] = (lengths[:, None] * independent).sum(axis=0) + run.frozen_steps * start
    return steps


def tying_raster(run: Run) -> Figure:
    """Draw every layer's leader at every decision, and below the number of independent layers with the chance line.

    Raises:
        ValueError: the run has no decision yet.
    """
    decisions, n_units = _decisions(run), run.n_units
    figure = new_figure((8.5, 5.5))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    tyings = np.array(run.column("tying"))  # (decisions, L)
    colours, legend = _leader_colours(tyings, run.kinds)
    above.imshow(
        tyings.T,
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(colours),
        norm=BoundaryNorm(np.arange(n_units + 1) - 0.5, n_units),
        extent=(0.5, len(decisions) + 0.5, n_units - 0.5, -0.5),
        rasterized=True,
    )
    handles = [Patch(color=colour, label=label) for label, colour in legend]
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "frameon": False}
    above.legend(handles=handles, title="its leader", alignment="left", fontsize=9, **place)
    name_axes(above, "", _units_named(run.kinds))
    _name_units(above.yaxis, run.kinds, max(1, math.ceil(n_units / 12)))
    for units in run.kinds.members[1:] if run.kinds.names else []:
        above.axhline(units[0] - 0.5, color="white", lw=2)
    above.set_title("Whose weights were copied" if run.copied else "Who has whose weights", fontsize=11)

    mean, deviation = chance_independent_layers(*run.kinds.sizes)
    below.axhspan(mean - deviation, mean + deviation, color=COLOURS[1], alpha=0.15, lw=0)
    below.axhline(mean, color=COLOURS[1], ls="--", lw=1.5, zorder=3, label=f"random actions: {mean:.2f} (band: ± 1 SD)")
    counts = run.independent_layers()
    label = f"this run: mean {np.mean(counts):.2f}"
    below.plot(decisions, counts, color=COLOURS[0], lw=0.9, drawstyle="steps-mid", label=label)
    name_axes(below, "decision", f"independent {run.kinds.counted}")
    below.set_ylim(0, 1.08 * max(*counts, mean + deviation))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    legend_below(figure, 2)
    return figure


def _units_named(kinds: Kinds) -> str:
    """Return the label of an axis of units."""
    if not kinds.names:
        return "layer"
    return ", then ".join(f"{name} 0-{size - 1}" for name, size in zip(kinds.names, kinds.sizes, strict=True))


def _name_units(axis: Axis, kinds: Kinds, every: int) -> None:
    """Label an axis of units, each by its number in its kind where kinds have names."""
    numbers = kinds.position if kinds.names else np.arange(kinds.n_units)
    units = np.flatnonzero(numbers % every == 0)
    axis.set_ticks(units.tolist(), [str(numbers[unit]) for unit in units])


def _leader_colours(tyings: npt.NDArray[np.int64], kinds: Kinds) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a colour for each layer as a leader, and the legend: (label, colour).

    The most frequent leaders have colours that anyone can tell apart, which there are few of, all others greys.
    """
    n_units = tyings.shape[1]
    counts = np.bincount(tyings.ravel(), minlength=n_units)
    frequent = np.sort(np.argsort(-counts, kind="stable")[: len(_LEADERS)])
    colours = [to_hex(colormaps["gray"](shade)) for shade in np.linspace(0.5, 0.9, n_units)]
    legend = []
    for leader, colour in zip((i for i in frequent.tolist() if counts[i]), _LEADERS, strict=False):
        colours[leader] = colour
        legend.append((f"{kinds.unit_named(leader)} ({counts[leader] / tyings.size:.0%})", colour))
    if others := int(np.count_nonzero(counts)) - len(legend):
        share = 1 - counts[frequent].sum() / tyings.size
        legend.append((f"{others} others ({share:.0%}),\nhigher ones paler", _OTHERS))
    return colours, legend


def memory_over_time(run: Run) -> Figure:
    """Draw the bytes of weights, gradients and optimizer state over training, and those of conventional training.

    Raises:
        ValueError: the run has no decision yet.
    """
    _check_decisions(run)
    ends = np.array(run.column("train_step"))
    # Flat within a decision. What the frozen start held was not recorded: it is left out.
    edges = np.stack([np.concatenate([[run.frozen_steps], ends[:-1]]), ends], axis=1).ravel()
    kinds = {"weights": "weights_bytes", "gradients": "gradients_bytes", "optimizer state": "optimizer_state_bytes"}
    heights = [np.repeat(run.column(key), 2) / 1e6 for key in kinds.values()]
    figure, axes = new_axes("Memory of what is trained (no activations)", "training step", "memory (MB)")
    axes.stackplot(edges, heights, labels=list(kinds), colors=COLOURS[:3], alpha=0.8, lw=0)
    if (conventional := run.conventional_memory()) is not None:
        axes.axhline(conventional / 1e6, color="black", ls="--", lw=1.2, label="conventional training")
    axes.set_xlim(0, max(1, int(ends[-1])))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,g}")
    if run.frozen_steps:
        axes.axvspan(0, run.frozen_steps, color="#bbbbbb", alpha=0.4, lw=0, label="before the first decision")
    legend_below(figure, 3)
    return figure


def feed_forward_correlations(run: Run, max_bytes: int = MAX_NETWORK_BYTES) -> Figure:
    """Draw Pearson's correlation between the feed-forward weights of every two independent layers (paper, Fig. 4).

    Args:
        run: its final network is read.
        max_bytes: a larger network file is not read.

    Raises:
        FileNotFoundError: the run has no final network.
        ValueError: the file is damaged or too large, has weights that are not finite, or one independent layer only.
    """
    layers, correlations = correlate_feed_forward(run, max_bytes)
    if len(layers) == 1:
        raise ValueError("one independent layer: there is nothing to correlate it with")
    title, name = "Correlation of feed-forward weights", "independent layer"
    figure, axes = new_axes(title, name, name, (7.5, min(7.5, 3.0 + 0.35 * len(layers))))
    figure.set_layout_engine("compressed", w_pad=0.1, h_pad=0.1)  # leaves no gap beside a square
    lowest = float(correlations.min())
    near = lowest > _NEAR_COPIES  # then all r look like 1, and only their distance from it tells anything
    shown = np.maximum(1 - correlations, 0) if near else correlations
    low, high = (0.0, 1 - lowest) if near else (min(0.0, lowest), 1.0)
    image = axes.imshow(shown, cmap=_COLOUR_MAP, vmin=low, vmax=high)
    figure.colorbar(image, ax=axes, label="1 - Pearson's r" if near else "Pearson's r", shrink=0.85)
    axes.set_xticks(range(len(layers)), [str(i) for i in layers])
    axes.set_yticks(range(len(layers)), [str(i) for i in layers])
    if len(layers) <= 12:
        dark = low + 0.6 * (high - low)
        for (row, column), value in np.ndenumerate(shown):
            shade = "white" if value < dark else "black"
            text = f"{value:.1e}" if near and row != column else f"{value:.{0 if near else 3}f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
    return figure


def correlate_feed_forward(run: Run, max_bytes: int = MAX_NETWORK_BYTES) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the independent layers of the final network and their correlations, shape (leaders, leaders).

    Raises:
        FileNotFoundError, ValueError: as `feed_forward_correlations`.
    """
    saved = read_network(run, run.path / FINAL, max_bytes)
    kinds, units = run.kinds, saved.network.units
    independent = leaders(saved.tying)
    if kinds.names:  # attention is none of it
        independent = [i for i in independent if kinds.unit_named(i).startswith(FEED_FORWARD)]
        if not independent:
            raise ValueError(f"no kind of unit is the {FEED_FORWARD} part: {', '.join(kinds.names)}")
    weights = [_feed_forward(units[i]) for i in independent]
    if not np.isfinite(weights).all():  # of a run that diverged
        raise ValueError("the final network has weights that are not finite")
    numbers = kinds.position[independent].tolist() if kinds.names else independent
    return numbers, np.corrcoef(weights).reshape(len(independent), len(independent))


def read_network(run: Run, path: Path, max_bytes: int = MAX_NETWORK_BYTES) -> SavedNetwork:
    """Read a network of a run for a figure.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or too large, or code of the user's own makes it.
    """
    if is_own(str(run.env.get("model"))):
        raise ValueError("not drawn for a network that is code of your own: a report makes no code run")
    if path.is_file() and path.stat().st_size > max_bytes:
        raise ValueError(f"the network is larger than {max_bytes / 1e6:,.0f} MB and was not read")
    return load_network(path)


def _feed_forward(block: object) -> npt.NDArray[np.float32]:
    """Return a block's matrices outside its attention in one row: the feed-forward part, in GPT-2, BERT, ViT, LLaMA."""
    from torch import nn

    assert isinstance(block, nn.Module)
    rows = [
        parameter.detach().float().numpy().ravel()
        for name, parameter in block.named_parameters()
        if parameter.ndim == 2 and not name.startswith(("attn.", "attention.", "self_attn."))
    ]
    return np.concatenate(rows)


def _check_decisions(run: Run) -> None:
    if not run.records:
        raise ValueError("the run has no decision yet")


def _decisions(run: Run) -> npt.NDArray[np.int64]:
    _check_decisions(run)
    return np.arange(1, len(run.records) + 1)
