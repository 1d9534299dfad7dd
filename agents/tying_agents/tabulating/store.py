"""Keeps the rows of the tying table as they come, and makes the table's file of them.

    <folder>/<corpus>/plan.json     what all rows share
    <folder>/<corpus>/rows.jsonl    a line for each training that is over

A line is appended as a whole under a lock, so that several processes can work on one folder; one that was cut off by a
crash is cut out when the file is read.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from tying_agents.tabulating.plan import Row, TablePlan
from tying_agents.tabulating.training import TrainedRow
from tying_env.differences import listed
from tying_env.files import to_json, written_whole
from tying_env.json_lines import append_line, read_lines
from tying_env.partition import all_tyings
from tying_env.table.file import CorpusTable, TyingTable

PLAN, ROWS, LOCK = "plan.json", "rows.jsonl", "plan.lock"


def begin(folder: Path, shared: dict[str, Any]) -> None:
    """Prepare a folder for the rows of a corpus.

    Args:
        folder: of the corpus.
        shared: what all its rows have in common.

    Raises:
        ValueError: rows of other settings, or of another text, are there; nothing is changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PLAN
    with FileLock(folder / LOCK):
        if path.exists():
            if differ := listed(read_plan(folder), json.loads(to_json(shared))):
                raise ValueError(f"{folder} has rows of another table: {'; '.join(differ)}: choose another folder")
            return
        with written_whole(path) as unfinished:
            unfinished.write_text(to_json(shared, indent=2) + "\n", encoding="utf-8")


def read_plan(folder: Path) -> dict[str, Any]:
    """Return what all rows in a folder have in common."""
    found: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    return found


def append_row(folder: Path, row: Row, trained: TrainedRow) -> None:
    """Keep a row.

    Raises:
        OSError: it cannot be written.
    """
    losses = [[loss if math.isfinite(loss) else None for loss in curve] for curve in trained.losses]
    line = {**dataclasses.asdict(row), **dataclasses.asdict(trained), "losses": losses}
    append_line(folder / ROWS, line)


def read_rows(folder: Path) -> dict[Row, TrainedRow]:
    """Return the rows that are there.

    Raises:
        ValueError: a line is damaged; the message names it.
    """
    return dict(read_lines(folder / ROWS, _row_of))


def rows_of(table: TyingTable, corpus: str) -> dict[Row, TrainedRow]:
    """Return the rows of a corpus that a table has already."""
    found = table.corpora[corpus]
    rows = {}
    for r, rate in enumerate(found.learning_rates.tolist()):
        for s, seed in enumerate(found.seeds.tolist()):
            for t, tying in enumerate(table.tyings.tolist()):
                losses = found.losses[r, s, t]
                if not np.isnan(losses).any():
                    counted = int(table.parameters[t]), int(table.memory[t]), float(found.seconds[r, s, t])
                    processor = str(found.processors[r, s, t])
                    rows[Row(seed, rate, tuple(tying))] = TrainedRow(losses.tolist(), *counted, processor)
    return rows


def as_table(
    found: dict[str, tuple[TablePlan, dict[Row, TrainedRow]]], settings: dict[str, Any], kept: TyingTable | None
) -> TyingTable:
    """Make a table of rows.

    Args:
        found: corpus -> its plan and its rows; what is missing becomes NaN.
        settings: of the table.
        kept: a table whose other corpora are taken over; None for none.

    Raises:
        ValueError: there is no row.
    """
    plans = [plan for plan, _ in found.values()]
    tyings = np.array(list(all_tyings(plans[0].settings["n_layer"])))
    parameters, memory = (np.zeros(len(tyings), dtype=np.int64) for _ in range(2))
    places = {tuple(tying): place for place, tying in enumerate(tyings.tolist())}
    for row, trained in _all_rows(found.values()):
        place = places[row.tying]
        parameters[place] = trained.parameters
        memory[place] = max(memory[place], trained.memory)  # a training that diverged at once has not measured it
    if not parameters.all():
        raise ValueError("not every tying has a row yet: there is no table without")
    corpora = dict(kept.corpora) if kept is not None else {}
    for name, (plan, rows) in found.items():
        rates, seeds = sorted(plan.learning_rates), list(range(plan.seeds))
        losses = np.full((len(rates), len(seeds), len(tyings), 3, len(plan.points)), np.nan)
        seconds, processors = np.full(losses.shape[:3], np.nan), np.full(losses.shape[:3], "", dtype=object)
        for row, trained in rows.items():
            if row.learning_rate in rates and row.seed in seeds:
                where = rates.index(row.learning_rate), row.seed, places[row.tying]
                losses[where], seconds[where] = trained.losses, trained.seconds
                processors[where] = trained.processor
        corpora[name] = CorpusTable(np.array(rates), np.array(seeds), losses, seconds, processors.astype(str))
    return TyingTable(settings, tyings, np.array(plans[0].points), parameters, memory, corpora)


def _row_of(line: Any) -> tuple[Row, TrainedRow]:
    row = Row(int(line["seed"]), float(line["learning_rate"]), tuple(map(int, line["tying"])))
    losses = [[math.inf if loss is None else float(loss) for loss in curve] for curve in line["losses"]]
    counted = int(line["parameters"]), int(line["memory"]), float(line["seconds"])
    return row, TrainedRow(losses, *counted, str(line.get("processor", "")))  # the first rows do not say


def _all_rows(
    found: Iterable[tuple[TablePlan, dict[Row, TrainedRow]]],
) -> Iterable[tuple[Row, TrainedRow]]:
    for _, rows in found:
        yield from rows.items()
