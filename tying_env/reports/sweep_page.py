"""A sweep as one HTML page: the best settings, figures, every trial, and how to read them."""

from pathlib import Path

from tying_env.reports import sweep_figures
from tying_env.reports.cells import NOTHING, TextTable
from tying_env.reports.gallery import Picture, picture
from tying_env.reports.page import for_page, render, write_page
from tying_env.reports.sweep_figures import STATES, Scalar, SweepResult, SweptTrial
from tying_env.reports.template import SWEEP_PAGE


def sweep_pictures(result: SweepResult) -> list[Picture]:
    """Draw all figures of a sweep."""
    return [
        picture(
            "history",
            "Each trial's value, the mean over its seeds of the best validation perplexity of a run. A pruned trial "
            "stands where it was when it was ended; a dotted line is a trial that failed.",
            lambda: sweep_figures.history(result),
        ),
        picture(
            "importances",
            "How much of the differences between complete trials goes with each setting by itself or together with "
            "others (fANOVA on the logarithm of perplexity; the shares are made to sum to 100%). It speaks of the "
            "range that was searched, and with few trials it is rough.",
            lambda: sweep_figures.importances(result),
        ),
        picture(
            "settings",
            "Each setting against the value. A best trial at an end of its range is a reason to search further out.",
            lambda: sweep_figures.each_setting(result),
        ),
        picture(
            "curves",
            "What the trials reported, and the pruner judged by. A cross is where a trial was ended.",
            lambda: sweep_figures.curves(result),
        ),
    ]


def render_sweep(result: SweepResult, pictures: list[Picture]) -> str:
    """Return the page; every text in it is escaped."""
    counts = ", ".join(f"{len(found)} {state}" for state in STATES if (found := result.of(state)))
    names = [setting.name for setting in result.settings]
    return render(
        SWEEP_PAGE,
        title="Sweep: " + ", ".join(names),
        subtitle=f"{len(result.trials)} trials ({counts}) with {len(result.seeds)} "
        f"{'seed' if len(result.seeds) == 1 else 'seeds'} each, judged by {result.value_axis}.",
        notes=result.notes,
        best=_best_table(result),
        commands="\n".join(result.commands),
        glossary=_glossary(result),
        pictures=[for_page(each) for each in pictures],
        trials=_trials_table(result),
        searched=TextTable("What was searched", ("setting", "where"), tuple((s.name, s.text) for s in result.settings)),
        common=TextTable("What all trials have in common", ("setting", "value"), tuple(result.about)),
    )


def write_sweep(result: SweepResult, pictures: list[Picture], path: Path) -> None:
    """Write the page, over an earlier one.

    Raises:
        OSError: it cannot be written.
    """
    write_page(render_sweep(result, pictures), path, overwrite=True)


def _best_table(result: SweepResult) -> TextTable:
    best = result.best
    if best is None:
        return TextTable("No trial is complete", ("setting", "value"), ())
    rows = [(setting.name, as_text(best.values[setting.name])) for setting in result.settings]
    return TextTable(f"Trial {best.number}", ("setting", "value"), (*rows, (result.value_axis, _value(best))))


def _trials_table(result: SweepResult) -> TextTable:
    headings = ("trial", "state", result.value_axis, *(setting.name for setting in result.settings), "time", "remark")
    rows = tuple(
        (
            str(trial.number),
            trial.state,
            _value(trial),
            *(as_text(trial.values[s.name]) if s.name in trial.values else NOTHING for s in result.settings),
            NOTHING if trial.seconds is None else f"{trial.seconds:,.0f} s",
            trial.reason,
        )
        for trial in result.trials
    )
    return TextTable("All trials; of a pruned one the value when it was ended", headings, rows)


def _value(trial: SweptTrial) -> str:
    return NOTHING if trial.value is None else f"{trial.value:,.2f}"


def as_text(value: Scalar) -> str:
    """Return a setting's value in few digits."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _glossary(result: SweepResult) -> list[tuple[str, str]]:
    return [
        (
            "value",
            "The best validation perplexity of a run, mean over the trial's seeds "
            f"({', '.join(map(str, result.seeds))}). The test split is not touched. The best of many trials is better "
            "than it would be if it were run again with other seeds: that is what a comparison is for.",
        ),
        (
            "pruned",
            "Ended early, for its validation perplexity was not promising beside that of other trials at the same "
            "training step. What it would have come to is not known.",
        ),
        (
            "failed",
            "Training diverged, or these settings do not go together; the reason stands in the table.",
        ),
    ]
