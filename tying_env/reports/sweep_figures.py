"""What a sweep came to, as plain values, and its figures: history, importances, each setting, learning curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tying_env.reports.drawing import COLOURS, as_label, fit_log_axis, legend_right, name_axes, new_axes, new_figure

State = Literal["complete", "pruned", "failed", "running"]
STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running")
Scalar = bool | int | float | str | None

_COMPLETE, _PRUNED, _FAILED, _BEST = COLOURS[0], COLOURS[5], COLOURS[6], COLOURS[1]

# What a setting counts, where it is not a bare number.
_UNITS = {
    "k": "training steps",
    "total-steps": "training steps",
    "validate-every": "training steps",
    "warmup-steps": "training steps",
    "change-warmup-steps": "training steps",
    "batch-size": "sequences in a step",
    "seq-len": "tokens",
    "n-layer": "layers",
    "n-embd": "units",
    "hidden-units": "units",
    "replay-size": "decisions",
    "period": "layers",
}


@dataclass(frozen=True)
class SweptTrial:
    """One trial of a sweep.

    Attributes:
        number: counted from 0, in the order in which they were begun.
        state: how it stands.
        value: validation perplexity, mean over seeds; when pruned, the mean up to then; None if there is none.
        values: setting -> value, as the storage has it.
        curve: (training step over all seeds, value up to then) of every measurement.
        reason: why it failed, or was not run; else empty.
        seconds: from its begin to its end; None as long as it has none.
    """

    number: int
    state: State
    value: float | None
    values: Mapping[str, Scalar]
    curve: Sequence[tuple[int, float]] = ()
    reason: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class SweptSetting:
    """One setting that was searched.

    Attributes:
        name: as an option, "learning-rate".
        text: how it was searched: "log 1e-4..1e-2".
        log: whether on a logarithmic scale.
        choices: its values, where it has a choice; else empty.
    """

    name: str
    text: str
    log: bool = False
    choices: tuple[Scalar, ...] = ()

    @property
    def axis(self) -> str:
        """Its name on an axis, with a unit if it has one."""
        words = self.name.replace("-", " ")
        return f"{words} ({_UNITS[self.name]})" if self.name in _UNITS else words


@dataclass(frozen=True)
class SweepResult:
    """A sweep as its page shows it.

    Attributes:
        trials: all that were begun.
        settings: what was searched.
        seeds: of each trial's runs.
        unit: what perplexity is per: "per token".
        importances: setting -> share, highest first; empty if there are none.
        why_none: then, why.
        about: name and value of what all trials have in common.
        commands: lines for a terminal, that carry the result on.
        notes: what to beware of.
    """

    trials: Sequence[SweptTrial]
    settings: Sequence[SweptSetting]
    seeds: Sequence[int]
    unit: str
    importances: Mapping[str, float] = field(default_factory=dict)
    why_none: str = ""
    about: Sequence[tuple[str, str]] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()

    def of(self, state: State) -> list[SweptTrial]:
        """Return the trials in a state."""
        return [trial for trial in self.trials if trial.state == state]

    @property
    def complete(self) -> list[tuple[SweptTrial, float]]:
        """The complete trials with their values."""
        return [(trial, trial.value) for trial in self.of("complete") if trial.value is not None]

    @property
    def best(self) -> SweptTrial | None:
        """The complete trial with the lowest value; the first one of equals."""
        return min(self.complete, key=lambda pair: pair[1], default=(None, 0.0))[0]

    @property
    def value_axis(self) -> str:
        """What trials are judged by, with its unit."""
        return f"best validation perplexity ({self.unit})"


def history(result: SweepResult) -> Figure:
    """Draw every trial's value, and the best one so far.

    Raises:
        ValueError: no trial has a value.
    """
    figure, axes = new_axes("History", "trial", result.value_axis)
    drawn = _scatter(axes, result, lambda trial: float(trial.number))
    best, steps = math.inf, []
    for trial, value in sorted(result.complete, key=lambda pair: pair[0].number):
        best = min(best, value)
        steps.append((trial.number, best))
    if steps:
        last = max(trial.number for trial in result.trials)
        x, y = zip(*steps, (last, best), strict=True)
        axes.plot(x, y, color=_BEST, drawstyle="steps-post", lw=1.5, label="best so far", zorder=1)
    fit_log_axis(axes, drawn)
    for number, trial in enumerate(result.of("failed")):
        axes.axvline(trial.number, color=_FAILED, ls=":", lw=1, label="failed" if number == 0 else None, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.25)
    legend_right(figure)
    return figure


def importances(result: SweepResult) -> Figure:
    """Draw how much of the spread each setting explains.

    Raises:
        ValueError: there are no importances; the message says why.
    """
    if not result.importances:
        raise ValueError(result.why_none or "there are none")
    rows = len(result.importances)
    figure, axes = new_axes("Importance", "share of the variance of log perplexity (%)", "", (7.5, 1.6 + 0.4 * rows))
    names = [name.replace("-", " ") for name in result.importances]
    shares = [100 * share for share in result.importances.values()]
    bars = axes.barh(range(rows), shares, color=_COMPLETE, height=0.6)
    axes.bar_label(bars, fmt="%.0f%%", padding=3, fontsize=9)
    axes.set_yticks(range(rows), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(100, 1.1 * max(shares)))
    return figure


def each_setting(result: SweepResult) -> Figure:
    """Draw each setting against the value, one panel each.

    Raises:
        ValueError: no trial has a value.
    """
    columns = min(2, len(result.settings))
    rows = math.ceil(len(result.settings) / columns)
    figure = new_figure((7.5, 3.2 * rows + 0.6))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for panel in panels.flat[len(result.settings) :]:
        panel.set_visible(False)
    drawn: list[float] = []
    for number, setting in enumerate(result.settings):
        axes = panels.flat[number]
        name_axes(axes, setting.axis, result.value_axis if number % columns == 0 else "")
        places = {value: float(place) for place, value in enumerate(setting.choices)}

        def place(trial: SweptTrial, setting: SweptSetting = setting, places: dict[Scalar, float] = places) -> float:
            value = trial.values[setting.name]
            return places[value] if places else float(value or 0)

        drawn = _scatter(axes, result, place)
        if result.best is not None and result.best.value is not None:
            axes.plot(
                place(result.best), result.best.value, "*", color=_BEST, ms=15, mec="white", label="best", zorder=4
            )
        if places:
            axes.set_xticks(list(places.values()), [as_label(str(value).lower()) for value in places])
            axes.set_xlim(-0.5, len(places) - 0.5)
        elif setting.log:
            axes.set_xscale("log")
        axes.grid(axis="y", alpha=0.25)
    fit_log_axis(panels.flat[0], drawn)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def curves(result: SweepResult) -> Figure:
    """Draw what each trial reported along the way; the steps of its seeds stand one after the other.

    Raises:
        ValueError: no trial has reported anything.
    """
    figure, axes = new_axes(
        "Trials along the way",
        "training step" if len(result.seeds) == 1 else "training step, one seed after the other",
        f"best so far: validation perplexity ({result.unit})",
    )
    drawn: list[float] = []
    kinds: tuple[tuple[State, str, str], ...] = (
        ("complete", _COMPLETE, "-"),
        ("pruned", _PRUNED, "-"),
        ("failed", _FAILED, ":"),
    )
    for state, colour, line in kinds:
        for number, trial in enumerate(each for each in result.of(state) if each.curve):
            x, y = zip(*trial.curve, strict=True)
            chosen = trial is result.best
            axes.plot(
                x,
                y,
                line,
                color=_BEST if chosen else colour,
                lw=2.2 if chosen else 0.9,
                zorder=3 if chosen else 2,
                label="best" if chosen else state if number == 0 else None,
            )
            if state != "complete":
                axes.plot(x[-1], y[-1], "x", color=colour, ms=6, zorder=3)
            drawn += y
    if not drawn:
        raise ValueError("no trial has measured validation perplexity")
    fit_log_axis(axes, drawn)
    axes.set_xlim(left=0)
    axes.grid(axis="y", alpha=0.25)
    legend_right(figure)
    return figure


def _scatter(axes: Axes, result: SweepResult, place: Callable[[SweptTrial], float]) -> list[float]:
    """Draw complete and pruned trials; return their values.

    Raises:
        ValueError: there are none.
    """
    drawn: list[float] = []
    kinds: tuple[tuple[State, str, str, str], ...] = (
        ("complete", _COMPLETE, "o", "complete"),
        ("pruned", _PRUNED, "x", "pruned, value by then"),
    )
    for state, colour, marker, label in kinds:
        found = [(place(trial), trial.value) for trial in result.of(state) if trial.value is not None]
        if found:
            x, y = zip(*found, strict=True)
            axes.scatter(x, y, s=26, c=colour, marker=marker, label=label, zorder=2, linewidths=1.2)
            drawn += y
    if not drawn:
        raise ValueError("no trial has a value yet")
    return drawn
