"""How the result depends on each setting that arms vary alone, everything else as in the reference arm."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tying_env.reports.arms import YARDSTICK_SETTINGS, settings_of
from tying_env.reports.comparison import Comparison
from tying_env.reports.drawing import COLOURS, as_label, fit_log_axis, name_axes, new_figure
from tying_env.reports.statistics import PairedDifference

# Each arm may have a rate of its own, found for it.
_TUNED = frozenset({"learning_rate"})
_COLUMNS = 2


@dataclass(frozen=True)
class Varied:
    """A number that arms differ in from the reference arm, and in nothing else.

    Attributes:
        name: of the setting, without the group that it stands in.
        reference: its value in the reference arm.
        differences: value -> the arm minus the reference arm; in ascending order.
    """

    name: str
    reference: float
    differences: dict[float, PairedDifference]


def settings_varied(comparison: Comparison) -> list[Varied]:
    """Return the settings of which at least two other values than the reference arm's were tried, each alone."""
    reference = settings_of(comparison.reference.runs[0])
    found: dict[str, dict[float, PairedDifference]] = {}
    for summary in comparison.arms:
        own, difference = settings_of(summary.arm.runs[0]), summary.against.difference
        differ = [key for key in reference.keys() | own.keys() if reference.get(key) != own.get(key)]
        differ = [key for key in differ if key not in _TUNED]
        if difference is None or difference.percent is None or len(differ) != 1:
            continue
        (key,) = differ
        if key not in YARDSTICK_SETTINGS and _is_number(own.get(key)) and _is_number(reference.get(key)):
            found.setdefault(key, {})[float(own[key])] = difference
    return [
        Varied(key.rpartition(".")[2].replace("_", " "), float(reference[key]), dict(sorted(values.items())))
        for key, values in found.items()
        if len(values) > 1
    ]


def sensitivity(comparison: Comparison) -> Figure:
    """Draw a panel for each setting that was varied alone: the difference to the reference arm, in per cent.

    Raises:
        ValueError: no setting was.
    """
    varied = settings_varied(comparison)
    if not varied:
        raise ValueError("no setting has two values beside the reference arm's, all else equal")
    columns = min(_COLUMNS, len(varied))
    rows = -(-len(varied) // columns)
    figure = new_figure((4.2 * columns, 2.9 * rows))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    reference = as_label(comparison.reference.label)
    for number, axes in enumerate(panels):
        if number >= len(varied):
            axes.set_visible(False)
            continue
        _draw(axes, varied[number], reference)
        name_axes(axes, varied[number].name, "difference (percent)" if number % columns == 0 else "")
    better = "higher" if comparison.metric.higher else "lower"
    figure.suptitle(f"Difference of the {comparison.metric.name} to {reference} ({better} is better)", fontsize=11)
    return figure


def _draw(axes: Axes, varied: Varied, reference: str) -> None:
    axes.axhline(0, color="#999999", lw=1, zorder=0)
    at = sorted([*varied.differences, varied.reference])
    means = [_percent(varied.differences.get(value)) for value in at]
    axes.plot(at, means, "-", color=COLOURS[0], lw=1.2)
    for value, difference in varied.differences.items():
        if difference.interval is not None:
            bar = [100 * end / difference.base for end in difference.interval]
            axes.plot([value, value], bar, "-", color=COLOURS[0], lw=1.4)
        axes.plot(value, _percent(difference), "o", color=COLOURS[0], ms=6, mec="white")
    axes.plot(varied.reference, 0, "D", color="black", ms=6, mec="white")
    axes.annotate(reference, (varied.reference, 0), (0, -13), textcoords="offset points", ha="center", fontsize=8)
    fit_log_axis(axes, at, "x")
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.25)


def _percent(difference: PairedDifference | None) -> float:
    """Return a difference in per cent; that of the reference arm to itself is 0."""
    return 0.0 if difference is None or difference.percent is None else difference.percent


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
