"""The regime map: what tying costs or gains against conventional training, at each amount of training text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tying_env.reports.arms import Arm, group_into_arms, settings_of
from tying_env.reports.drawing import arm_styles, legend_right, new_axes
from tying_env.reports.loading import Run, find_runs, load_run
from tying_env.reports.metrics import METRICS_BY_KEY
from tying_env.reports.statistics import BOOTSTRAP_SEED, PairedDifference, interquartile_mean, paired_difference

_TEST, _VALIDATION = METRICS_BY_KEY["test-perplexity"], METRICS_BY_KEY["validation-perplexity"]
REFERENCE = "conventional"


@dataclass(frozen=True)
class Regime:
    """What an agent comes to with so much training text, at the better of its dropouts.

    Attributes:
        train_bytes: of training text.
        agent: its name.
        dropout: the one with the lower mean of the best validation perplexities over seeds.
        learning_rate: chosen by validation, too.
        test: interquartile mean of the test perplexity over seeds.
        best_at: training step of the best validation perplexity, the median over seeds.
        total_steps: of a run.
        difference: to conventional training, seed by seed; None of that itself.
    """

    train_bytes: int
    agent: str
    dropout: float
    learning_rate: float
    test: float
    best_at: int
    total_steps: int
    difference: PairedDifference | None

    @property
    def unfinished(self) -> bool:
        """Whether it was at its best in the last tenth of the run: it might have become better still."""
        return self.best_at > 0.9 * self.total_steps


def read_regimes(folders: Mapping[int, Path]) -> list[Regime]:
    """Read the comparisons of a study of regimes.

    Args:
        folders: of the runs, by bytes of training text.

    Raises:
        FileNotFoundError: no runs are there.
        ValueError: a file is damaged, or there is no conventional training to compare with.
    """
    found = []
    for train_bytes, folder in sorted(folders.items()):
        chosen = _better_dropouts(group_into_arms([load_run(path) for path in find_runs([folder])]))
        if REFERENCE not in chosen:
            raise ValueError(f"{folder} has no finished run of {REFERENCE}, which the others are compared with")
        for agent, arm in chosen.items():
            settings, results = settings_of(arm.runs[0]), arm.results(_TEST)
            against = chosen[REFERENCE].results(_TEST)
            paired = paired_difference(results, against, np.random.default_rng(BOOTSTRAP_SEED))
            found.append(
                Regime(
                    train_bytes,
                    agent,
                    float(settings["dropout"]),
                    float(settings["learning_rate"]),
                    interquartile_mean(list(results.values())),
                    round(float(np.median([_best_at(run) for run in arm.runs if run.seed in results]))),
                    int(settings["total_steps"]),
                    None if agent == REFERENCE else paired,
                )
            )
    return found


def as_table(regimes: Sequence[Regime]) -> str:
    """Return the map as a table in Markdown."""
    lines = [
        "| training text | arm | dropout | learning rate | best at step | test perplexity | against conventional [95%] "
        "| seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for regime in regimes:
        told, seeds = "reference", "–"
        if (paired := regime.difference) is not None:
            interval = paired.interval
            told = f"{paired.mean:+.2f} ({paired.percent:+.1f}%)"
            told += f" [{interval.low:+.2f}, {interval.high:+.2f}]" if interval else f" ({paired.no_interval})"
            seeds = str(len(paired.seeds))
        best = f"{regime.best_at:,} of {regime.total_steps:,}{' *' if regime.unfinished else ''}"
        cells = (f"{regime.train_bytes // 1000:,} KB", regime.agent, f"{regime.dropout:g}", f"{regime.learning_rate:g}")
        lines.append(f"| {' | '.join((*cells, best, f'{regime.test:.2f}', told, seeds))} |")
    if any(regime.unfinished for regime in regimes):
        lines += ["", "\\* Best in the last tenth of the run: it might have become better still."]
    return "\n".join(lines) + "\n"


def draw_regimes(regimes: Sequence[Regime]) -> Figure:
    """Draw the paired differences in percent, with their intervals, against the amount of training text."""
    agents = list(dict.fromkeys(regime.agent for regime in regimes if regime.difference is not None))
    figure, axes = new_axes(
        "Tying against the amount of training text",
        "bytes of training text",
        "test perplexity against conventional (%)",
    )
    axes.axhline(0, color="black", lw=1, label="conventional")
    for shift, (agent, style) in enumerate(arm_styles(agents).items()):
        own = [(each, each.difference) for each in regimes if each.agent == agent and each.difference is not None]
        # Beside each other, so that intervals can be told apart.
        places = [each.train_bytes * 1.04 ** (shift - len(agents) / 2) for each, _ in own]
        percents = [paired.percent or 0.0 for _, paired in own]
        axes.plot(places, percents, style.line, marker=style.marker, color=style.colour, lw=1.2, label=agent)
        for place, percent, (_, paired) in zip(places, percents, own, strict=True):
            if paired.interval is not None and paired.mean:
                ends = [percent * end / paired.mean for end in paired.interval]
                axes.plot([place, place], ends, "-", color=style.colour, lw=1)
    axes.set_xscale("log")
    amounts = sorted({regime.train_bytes for regime in regimes})
    axes.set_xticks(amounts, [f"{amount // 1000:,} KB" for amount in amounts], minor=False)
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.25)
    legend_right(figure)
    return figure


def _best_at(run: Run) -> int:
    """Return the training step at which validation was best; records repeat it until the next measurement."""
    measured = [(record.get("validation_perplexity"), int(record["train_step"])) for record in run.records]
    return min((float(value), step) for value, step in measured if value is not None)[1]


def _better_dropouts(arms: Sequence[Arm]) -> dict[str, Arm]:
    """Return each agent's arm with the better dropout, by validation."""
    best: dict[str, tuple[float, Arm]] = {}
    for arm in arms:
        agent, measured = arm.label.partition(",")[0], list(arm.results(_VALIDATION).values())
        if not arm.results(_TEST) or not measured:
            continue
        mean = float(np.mean(measured))
        if agent not in best or mean < best[agent][0]:
            best[agent] = (mean, arm)
    return {agent: arm for agent, (_, arm) in best.items()}
