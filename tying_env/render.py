"""The replication map (paper, Fig. 1): each layer with an arc to its leader, as text and as a picture."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.kinds import Kinds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which readers with any kind of colour vision can tell apart (jfly.uni-koeln.de/color).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_ALONE = "#808080"
_LINE_WIDTH = 80  # of the text map: a folded line would break the rails


def replication_map_text(tying: npt.ArrayLike, kinds: Kinds | None = None) -> str:
    """Return the map as lines of text, one per layer; a rail joins the layers of a group.

    Units of kinds that have names come kind by kind, counted within it.

    A list of followers that is too long for a line is cut off; each of them has a line of its own.

    >>> print(replication_map_text([0, 0, 2, 0, 2]))
     0 ●    leads 1, 3
     1 ○    = 0
     2 │ ●  leads 4
     3 ○ │  = 0
     4   ○  = 2
    """
    if kinds is not None and kinds.names:
        parts = zip(kinds.names, kinds.tyings(tying), strict=True)
        return "\n".join(f"{name}\n{replication_map_text(own)}" for name, own in parts)
    leader_of = np.asarray(tying).tolist()
    members = partition.groups(tying)
    rails: list[int | None] = []  # column -> the leader whose rail runs there
    rows: list[tuple[str, str]] = []
    for i, leader in enumerate(leader_of):
        if i == leader:
            free = rails.index(None) if None in rails else len(rails)
            rails[free : free + 1] = [leader]
        marks = [" " if r is None else "│" if r != leader else "●" if i == leader else "○" for r in rails]
        followers = _ranges(members[i][1:]) if i == leader else ""
        note = f"= {leader}" if i != leader else f"leads {followers}" if followers else "alone"
        rows.append((" ".join(marks), note))
        rails = [None if r is not None and members[r][-1] == i else r for r in rails]
        while rails and rails[-1] is None:
            rails.pop()
    digits, width = len(str(len(rows) - 1)) + 1, max(len(marks) for marks, _ in rows)
    room = max(20, _LINE_WIDTH - digits - width - 3)
    return "\n".join(
        f"{i:>{digits}} {marks:<{width}}  {textwrap.shorten(note, room, placeholder=' ...')}"
        for i, (marks, note) in enumerate(rows)
    )


def _ranges(layers: Sequence[int]) -> str:
    """Return numbers in ascending order in short.

    >>> _ranges([2, 4, 5, 6, 9, 10])
    '2, 4-6, 9-10'
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1][1:] = [layer]
        else:
            runs.append([layer])
    return ", ".join("-".join(map(str, run)) for run in runs)


def replication_map_figure(
    tying: npt.ArrayLike, title: str = "Replication map", kinds: Kinds | None = None
) -> "Figure":
    """Return the map as a matplotlib figure: followers reach over to their leader, leaders are filled.

    Units of kinds that have names have a row of arcs for each kind, counted within it.
    """
    from matplotlib.figure import Figure

    named = kinds is not None and bool(kinds.names)
    parts = list(zip(kinds.names, kinds.tyings(tying), strict=True)) if kinds is not None and named else []
    parts = parts or [("layer", np.asarray(tying))]
    longest = max(len(own) for _, own in parts)
    figure = Figure(figsize=(max(6.0, 0.24 * longest), 3.2 * len(parts)), dpi=100, layout="constrained")
    for axes, (name, own) in zip(figure.subplots(len(parts), squeeze=False)[:, 0], parts, strict=True):
        _draw_arcs(axes, own)
        axes.set_xlabel(
            f"{name} (filled: has weights of its own; ring: copies the filled one its arc ends at)", fontsize=9
        )
    units, independent = sum(len(own) for _, own in parts), sum(len(partition.leaders(own)) for _, own in parts)
    what = "units" if named else "layers"
    figure.axes[0].set_title(f"{title}: {independent} of {units} {what} independent", fontsize=11)
    return figure


def _draw_arcs(axes: "Axes", leader_of: partition.IntVector) -> None:
    from matplotlib.patches import Arc

    n_units = len(leader_of)
    members = partition.groups(leader_of)
    by_size = sorted((g for g in members.values() if len(g) > 1), key=len, reverse=True)
    colour = {g[0]: _COLOURS[n % len(_COLOURS)] for n, g in enumerate(by_size)}
    reach = max(1, int(np.max(np.arange(n_units) - leader_of)))

    for i, leader in enumerate(leader_of.tolist()):
        shade = colour.get(leader, _ALONE)
        if i != leader:
            span = i - leader
            axes.add_patch(
                Arc(((i + leader) / 2, 0), span, 2 * span / reach, theta1=0, theta2=180, color=shade, lw=1.6)
            )
        axes.plot(i, 0, "o", color=shade, markerfacecolor=shade if i == leader else "white", markersize=9, zorder=3)
    axes.set_xlim(-0.7, n_units - 0.3)
    axes.set_ylim(-0.13, 1.08)
    axes.set_xticks(range(0, n_units, 1 if n_units <= 24 else 4))
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)


def replication_map_image(
    tying: npt.ArrayLike, title: str = "Replication map", kinds: Kinds | None = None
) -> npt.NDArray[np.uint8]:
    """Return the picture as pixels, shape (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(replication_map_figure(tying, title, kinds))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
