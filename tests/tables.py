"""A tying table whose numbers are made up, for what does not depend on them."""

from pathlib import Path

import numpy as np
from tying_agents.tabulating.plan import Row, TablePlan
from tying_agents.tabulating.training import TrainedRow, train_row

from tying_env import partition
from tying_env.table import CorpusTable, TyingTable, write_table

POINTS = np.array([32, 64, 96])


def made_up_table(n_layer: int = 6, seeds: int = 3, rates: int = 2, missing: int = 0) -> TyingTable:
    """Return a table whose losses fall with the number of groups, with noise.

    Args:
        n_layer: L.
        seeds: of each corpus.
        rates: learning rates of each corpus.
        missing: trainings of the last seed that are not there yet.
    """
    tyings = np.array(list(partition.all_tyings(n_layer)))
    groups = np.array([len(partition.leaders(tying)) for tying in tyings])
    corpora = {}
    for number, name in enumerate(("sotu", "other")):
        rng = np.random.default_rng(number)
        losses = 3.0 - 0.1 * groups[:, None, None] - 0.2 * np.arange(len(POINTS))
        losses = losses + rng.normal(0, 0.05, (rates, seeds, len(tyings), 3, len(POINTS)))
        losses[-1, -1, len(tyings) - missing :] = np.nan
        seconds = np.where(np.isnan(losses).any(axis=(3, 4)), np.nan, 1.5)
        processors = np.where(np.isnan(seconds), "", "an abacus")
        corpora[name] = CorpusTable(np.geomspace(1e-3, 4e-3, rates), np.arange(seeds), losses, seconds, processors)
    parameters = 1000 + 500 * groups
    return TyingTable({"settings": {"k": 32}, "corpora": {}}, tyings, POINTS, parameters, 12 * parameters, corpora)


def written(folder: Path, table: TyingTable | None = None) -> Path:
    """Return the path of a table that was written to a folder."""
    path = folder / "table.npz"
    write_table(made_up_table() if table is None else table, path)
    return path


def trained_again(table: TyingTable, row: Row, corpus: str, dataset: str) -> TrainedRow:
    """Train a row anew, with what the table's file says of its trainings."""
    settings, windows = dict(table.settings["settings"]), table.settings["windows"]
    return train_row(TablePlan(corpus, dataset, (row.learning_rate,), 1, settings, windows), row)
