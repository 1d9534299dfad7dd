"""The table of the positive control: means over seeds, as a file, as text, as shipped with the package. No torch."""

import functools
import importlib.resources
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tying_agents.control.arms import ARMS
from tying_env.files import to_json, written_whole

TABLE = "table.json"
MARKDOWN = "table.md"
SHIPPED = "positive_control.json"


@dataclass(frozen=True)
class Cell:
    """What an arm gets at the end of so many decisions.

    Attributes:
        arm: its name.
        kind, n_layer, noise: of the tasks.
        decisions: made before.
        seeds: over how many the means are; each has a task of its own.
        value: mean value of the last tenth of the decisions, without noise.
        best: mean value of the best tyings.
        chance: mean value of uniformly random actions.
        share: mean of (value - chance) / (best - chance): 0 is chance, 1 the best.
        deviation: standard deviation of the share over seeds; 0 with a single one.
    """

    arm: str
    kind: str
    n_layer: int
    noise: float
    decisions: int
    seeds: int
    value: float
    best: float
    chance: float
    share: float
    deviation: float


def cells_of(lines: Iterable[dict[str, Any]]) -> list[Cell]:
    """Return the means over seeds of runs that `tying_agents.control.experiment.read_runs` read."""
    found: dict[tuple[Any, ...], dict[int, tuple[float, float, float]]] = {}
    for line in lines:
        for mark, value in line["values"].items():
            key = (line["arm"], line["kind"], line["n_layer"], line["noise"], int(mark))
            found.setdefault(key, {})[line["seed"]] = (value, line["best"], line["chance"])
    return [_cell(key, list(by_seed.values())) for key, by_seed in found.items()]


def _cell(key: tuple[Any, ...], runs: Sequence[tuple[float, float, float]]) -> Cell:
    n = len(runs)
    shares = [(value - chance) / (best - chance) for value, best, chance in runs]
    share = sum(shares) / n
    deviation = math.sqrt(sum((each - share) ** 2 for each in shares) / (n - 1)) if n > 1 else 0.0
    value, best, chance = (round(sum(column) / n, 4) for column in zip(*runs, strict=True))
    arm, kind, n_layer, noise, decisions = key
    return Cell(arm, kind, n_layer, noise, decisions, n, value, best, chance, round(share, 4), round(deviation, 4))


def write_table(cells: Sequence[Cell], cpu_seconds: float, folder: Path) -> None:
    """Write the cells, and how long the runs took, as JSON; and the tables as Markdown beside it."""
    lines = ",\n".join(to_json(asdict(cell)) for cell in cells)
    content = f'{{"cpu_seconds": {round(cpu_seconds)}, "cells": [\n{lines}\n]}}\n'
    for name, text in ((TABLE, content), (MARKDOWN, markdown_tables(cells))):
        with written_whole(folder / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def read_table(text: str, where: str) -> list[Cell]:
    """Return the cells of a file that `write_table` wrote.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return [Cell(**cell) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is damaged: {error!r}") from error


@functools.cache
def shipped_cells() -> tuple[Cell, ...]:
    """Return the committed table."""
    file = importlib.resources.files("tying_agents.control") / SHIPPED
    return tuple(read_table(file.read_text(encoding="utf-8"), SHIPPED))


def text_table(cells: Sequence[Cell], kind: str, noise: float, layers: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the rows of tasks: a heading, then for each arm the share at each mark in percent.

    An entry reads "37 ± 5 (20)": mean and standard deviation over 20 seeds, in percent.
    """
    chosen = [cell for cell in cells if (cell.kind, cell.noise) == (kind, noise) and cell.n_layer in layers]
    columns = sorted({(cell.n_layer, cell.decisions) for cell in chosen})
    rows: list[tuple[str, ...]] = [("arm", *(f"L={n_layer}: {mark:,}" for n_layer, mark in columns))]
    for arm in sorted({cell.arm for cell in chosen}, key=_place):
        at = {(cell.n_layer, cell.decisions): cell for cell in chosen if cell.arm == arm}
        rows.append((arm, *(_in_percent(at[column]) if column in at else "–" for column in columns)))
    return rows


def markdown_tables(cells: Sequence[Cell]) -> str:
    """Return all tables as Markdown, one for each kind of task and noise."""
    texts = []
    for kind, noise in sorted({(cell.kind, cell.noise) for cell in cells}):
        heading, *rows = text_table(cells, kind, noise, sorted({cell.n_layer for cell in cells}))
        lines = [heading, ("---",) * len(heading), *rows]
        under = f"{kind.capitalize()}{f', noise {noise:g}' if noise else ''}:"
        texts.append("\n".join([under, "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join(texts) + "\n"


def tasks_of(cells: Sequence[Cell]) -> list[tuple[str, int, float]]:
    """Return the (kind, layers, noise) of all cells, each once, in order."""
    return sorted({(cell.kind, cell.n_layer, cell.noise) for cell in cells})


def _place(arm: str) -> tuple[int, str]:
    known = list(ARMS)
    return (known.index(arm) if arm in known else len(known), arm)


def _in_percent(cell: Cell) -> str:
    spread = f" ± {100 * cell.deviation:.0f}" if cell.seeds > 1 else ""
    return f"{round(100 * cell.share)}{spread} ({cell.seeds})"
