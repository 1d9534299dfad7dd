"""Trains the rows of the tying table that are not there yet, several at a time, and writes the table's file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tying_agents.many.plan import Backend
from tying_agents.many.stoppable import call_until_stopped
from tying_agents.tabulating import store
from tying_agents.tabulating.plan import Row, TablePlan, fingerprint_of
from tying_agents.tabulating.training import TrainedRow, train_row
from tying_env.data import load_corpus
from tying_env.differences import listed
from tying_env.table.file import TyingTable, open_table, write_table


def make_rows(
    plan: TablePlan,
    folder: Path,
    known: Path | None,
    on_row: Callable[[int, int], None],
    note: Callable[[str], None],
    *,
    jobs: int,
    threads: int,
    backend: Backend,
    address: str | None,
) -> tuple[dict[Row, TrainedRow], TyingTable | None]:
    """Train the rows of a corpus that are neither in the folder nor in a table that is there already.

    Ctrl-C or SIGTERM ends it after the rows in progress; killed, it loses those.

    Args:
        plan: which rows.
        folder: for the rows, with a folder for each corpus.
        known: a table whose rows need not be trained again; None for none.
        on_row: is told (rows done, rows in all) before the first and after each.
        note: is told of a signal.
        jobs: rows at a time.
        threads: CPU threads of each.
        backend: where, as `tying_agents.many.cluster.in_parallel`.
        address: of the cluster's scheduler.

    Returns:
        All rows of the plan, and the table that was known.

    Raises:
        tying_agents.stopping.StoppedBySignal: there was a signal.
        ValueError: the folder, or the known table, is of other settings or another text.
        OSError: data or folder cannot be used.
    """
    corpus = load_corpus(plan.dataset, plan.settings["tokenizer"], None)
    shared = plan.described(
        fingerprint_of(*(split.tobytes() for split in (corpus.train, corpus.validation, corpus.test)))
    )
    own = folder / plan.corpus
    table = None if known is None else open_table(known)
    rows = {} if table is None else _rows_of(table, plan, shared)
    store.begin(own, shared)
    wanted = list(plan.rows())
    rows |= store.read_rows(own)
    waiting = [row for row in wanted if row not in rows]
    there = len(wanted) - len(waiting)
    on_row(there, len(wanted))
    call_until_stopped(
        _make_row,
        [(plan, row, own) for row in waiting],
        own,
        lambda done: on_row(there + done, len(wanted)),
        note,
        jobs=jobs,
        threads=threads,
        backend=backend,
        address=address,
    )
    return rows | store.read_rows(own), table


def write_rows(
    plan: TablePlan, rows: dict[Row, TrainedRow], folder: Path, known: TyingTable | None, path: Path
) -> None:
    """Write a table of the rows there are; other corpora of the known table are taken over.

    Raises:
        ValueError: there is not a row for each tying yet.
        OSError: the file cannot be written; an earlier one stays.
    """
    settings: dict[str, Any] = dict(known.settings) if known is not None else {"corpora": {}}
    shared = store.read_plan(folder / plan.corpus)
    corpora = settings["corpora"] | {plan.corpus: shared.pop("fingerprint")}
    del shared["corpus"]
    write_table(store.as_table({plan.corpus: (plan, rows)}, {**shared, "corpora": corpora}, known), path)


def _make_row(plan: TablePlan, row: Row, folder: Path) -> None:
    store.append_row(folder, row, train_row(plan, row))


def _rows_of(table: TyingTable, plan: TablePlan, shared: dict[str, Any]) -> dict[Row, TrainedRow]:
    there = {name: table.settings[name] for name in ("settings", "windows")}
    here = {name: shared[name] for name in ("settings", "windows")}
    if differ := listed(there, here):
        raise ValueError(f"the known table is of other settings: {'; '.join(differ)}")
    if plan.corpus not in table.corpora:
        return {}
    if table.settings["corpora"][plan.corpus] != shared["fingerprint"]:
        raise ValueError(f"the known table's corpus {plan.corpus!r} is another text than {plan.dataset!r}")
    return store.rows_of(table, plan.corpus)
