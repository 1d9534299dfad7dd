"""What all figures share: colours, figures without global state, axes, and files that are equal for equal figures."""

import contextlib
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tying_env.files import written_whole

# Okabe and Ito's colours, which readers with any kind of colour vision can tell apart (jfly.uni-koeln.de/color).
# Yellow comes last: on white it is hard to see.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")
# A logarithmic axis is for values that spread further than this.
_LOG_FROM = 3.0


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure; told apart by more than colour."""

    colour: str
    marker: str
    line: str


def arm_styles(labels: Sequence[str]) -> dict[str, Style]:
    """Return a style for every label, the same for the same labels."""
    return {
        # Neighbours differ in colour, marker and line; the line shifts when the colours begin again.
        label: Style(
            COLOURS[i % len(COLOURS)],
            _MARKERS[i % len(_MARKERS)],
            _LINES[(i + i // len(COLOURS)) % len(_LINES)],
        )
        for i, label in enumerate(labels)
    }


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure that makes room for its labels, with a margin; size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    return Figure(figsize=size, dpi=100, layout=layout)


def new_axes(title: str, x: str, y: str, size: tuple[float, float] = (7.5, 4.0)) -> tuple[Figure, Axes]:
    """Return a figure with one pair of named axes."""
    figure = new_figure(size)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    name_axes(axes, x, y)
    return figure, axes


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Name both axes and take away what says nothing."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["right", "top"]].set_visible(False)


def fit_log_axis(axes: Axes, values: Sequence[float], name: Literal["x", "y"] = "y") -> None:
    """Make an axis, y or x, logarithmic if the values on it call for it; ticks are plain numbers."""
    if min(values) <= 0 or max(values) < _LOG_FROM * min(values):
        return
    axes.set(**{f"{name}scale": "log"})
    axis = axes.yaxis if name == "y" else axes.xaxis
    ratio = max(values) / min(values)
    few = (1.0,) if ratio > 100 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=few if ratio > 5 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_right(figure: Figure) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_text(in_lines(text.get_text()))


def as_label(text: str) -> str:
    """Return a text of the user's as matplotlib draws it: no "$" begins a formula, and no "_" hides it from a legend.

    A character that the fonts of `matplotlib.rcParams` do not have is written as its number in hexadecimal, so that
    labels can still be told apart.
    """
    fonts = [get_font(path) for path in _font_paths()]
    missing = {character for character in text if not any(font.get_char_index(ord(character)) for font in fonts)}
    shown = "".join(
        c.encode("ascii", "backslashreplace").decode() if c in missing and c.isprintable() else c for c in text
    )
    return ("\u200b" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def _font_paths() -> list[str]:
    """Return the files of the fonts that text is drawn in, those that are there."""
    paths: list[str] = []
    for family in matplotlib.rcParams["font.family"]:
        with contextlib.suppress(ValueError):
            paths.append(str(findfont(FontProperties(family=[family]), fallback_to_default=False)))
    return paths or [str(findfont(FontProperties()))]


def in_lines(label: str) -> str:
    """Return a label in lines so short that it leaves room for the axes."""
    return textwrap.fill(label, 28)


def legend_below(figure: Figure, columns: int) -> None:
    """Put the legend below the axes, where it hides nothing."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def as_svg(figure: Figure) -> bytes:
    """Return the figure as SVG; text as outlines, so that it looks the same everywhere."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "tying_env", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return the figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.svg into a folder, which is made if need be, and return their paths.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, content in ((".png", as_png(figure)), (".svg", as_svg(figure))):
        path = folder / f"{name}{suffix}"
        with written_whole(path) as unfinished:
            unfinished.write_bytes(content)
        paths.append(path)
    return paths
