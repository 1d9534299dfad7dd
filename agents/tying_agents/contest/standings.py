"""The standings of a contest: mean regrets over seeds with 95 % intervals, as text and as Markdown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tying_agents.contest.runs import Played
from tying_env.reports.markdown import line
from tying_env.reports.statistics import mean_half_width


class Mean(NamedTuple):
    """A mean over seeds, and half the width of its 95 % interval; NaN with a single seed."""

    value: float
    half_width: float


@dataclass(frozen=True)
class Standing:
    """How one agent does.

    Attributes:
        arm: its name.
        seeds: runs.
        regret: mark -> mean over seeds; None where some run had found nothing allowed yet.
        seconds: CPU seconds of a run, the mean.
    """

    arm: str
    seeds: int
    regret: dict[int, Mean | None]
    seconds: float


def standings(runs: Iterable[Played]) -> list[Standing]:
    """Return how agents do, the lowest regret at the last mark first."""
    by_arm: dict[str, list[Played]] = {}
    for run in runs:
        by_arm.setdefault(run.arm, []).append(run)
    found = [_standing(arm, played) for arm, played in by_arm.items()]
    return sorted(found, key=lambda standing: (_last(standing), standing.arm))


def text_rows(found: Sequence[Standing]) -> list[tuple[str, ...]]:
    """Return a heading and a row for each agent: mean regret and half the width of its interval."""
    marks = sorted({mark for standing in found for mark in standing.regret})
    rows: list[tuple[str, ...]] = [("agent", "runs", *(f"after {mark}" for mark in marks), "CPU seconds")]
    for standing in found:
        cells = (_cell(standing.regret.get(mark)) for mark in marks)
        rows.append((standing.arm, str(standing.seeds), *cells, f"{standing.seconds:.2g}"))
    return rows


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as a Markdown table."""
    heading, *rest = rows
    return "\n".join(line(row) for row in (heading, ("---",) * len(heading), *rest)) + "\n"


def _standing(arm: str, runs: Sequence[Played]) -> Standing:
    regret: dict[int, Mean | None] = {}
    for mark in runs[0].regret:
        values = [run.regret[mark] for run in runs]
        regret[mark] = _mean(values) if all(map(math.isfinite, values)) else None
    return Standing(arm, len(runs), regret, sum(run.seconds for run in runs) / len(runs))


def _mean(values: Sequence[float]) -> Mean:
    half = float(mean_half_width(np.array(values))) if len(values) > 1 else math.nan
    return Mean(float(np.mean(values)), half)


def _last(standing: Standing) -> float:
    mean = standing.regret[max(standing.regret)]
    return math.inf if mean is None else mean.value


def _cell(mean: Mean | None) -> str:
    if mean is None:
        return "none yet"
    return f"{mean.value:.3f}" if math.isnan(mean.half_width) else f"{mean.value:.3f} ± {mean.half_width:.3f}"
