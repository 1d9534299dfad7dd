"""Train every tying of six layers, with several seeds and learning rates: the rows of the tying table.

A row is kept as soon as it is over: stopped at any time, the same command resumes. Rows of the table that the package
has already are not trained again. Several corpora go into one table, one after the other.

layer-tying tabulate --corpus sotu --out tables
layer-tying tabulate --corpus wikitext-2 --dataset path/to/wikitext-2 --seeds 3 --learning-rates 4e-3 8e-3 --out tables
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tying_agents.commands.early import read_options
from tying_agents.commands.many_runs import resumable
from tying_agents.many.plan import Backend, check_backend
from tying_agents.tabulating.plan import LEARNING_RATES, SEEDS, TablePlan
from tying_env.table.file import PACKAGED

if TYPE_CHECKING:
    from rich.console import Console

_A_LINE = 10  # rows for each line of output that is no terminal


@dataclass(frozen=True)
class Options:
    """Train every tying of six layers."""

    corpus: str = "sotu"
    """Name of the corpus in the table."""
    dataset: str = "sotu"
    """Text: "sotu", a name of the hub (wikitext-2, ...), a file or a folder."""
    seeds: int = SEEDS
    """Seeds of each tying and learning rate: 0, 1, 2, ..."""
    learning_rates: tuple[float, ...] = LEARNING_RATES
    """Learning rates of each tying and seed."""
    out: Path = Path("tables")
    """Folder of the rows and of the table."""
    known: Path | None = PACKAGED if PACKAGED.exists() else None
    """A table whose rows are not trained again, and whose other corpora are taken over: by default the package's."""
    jobs: int = 2
    """Trainings at a time."""
    threads: int = 1
    """CPU threads of each."""
    backend: Backend = "loky"
    """joblib's: local processes, or an existing Dask or Ray cluster."""
    address: str | None = None
    """Of the cluster's scheduler; the default is what RAY_ADDRESS or DASK_SCHEDULER_ADDRESS says."""

    def __post_init__(self) -> None:
        for name in ("jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_backend(self.backend, self.address)
        self.plan()

    def plan(self) -> TablePlan:
        """Return which rows there are to be."""
        return TablePlan(self.corpus, self.dataset, self.learning_rates, self.seeds)


def main(argv: Sequence[str], prog: str = "layer-tying tabulate") -> int:
    """Train the rows that are not there yet, write the table, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from tying_agents.tabulating.making import make_rows, write_rows

        plan = options.plan()
        columns = (MofNCompleteColumn(), BarColumn(), TextColumn("eta"), TimeRemainingColumn())
        bar = Progress(TextColumn("rows"), *columns, console=console, disable=not console.is_terminal)
        with bar:
            task = bar.add_task("", total=None)

            def on_row(done: int, total: int) -> None:
                if bar.tasks[task].total is None:  # rows of before took none of the time that is measured here
                    bar.reset(task, total=total, completed=done)
                bar.update(task, completed=done)
                if not console.is_terminal and (done % _A_LINE == 0 or done == total):
                    left = bar.tasks[task].time_remaining
                    eta = "" if left is None else f", {left / 60:,.0f} minutes left"
                    console.print(f"rows {done}/{total}{eta}", highlight=False)

            rows, known = make_rows(
                plan,
                options.out,
                options.known,
                on_row,
                lambda text: console.print(text, highlight=False),
                jobs=options.jobs,
                threads=options.threads,
                backend=options.backend,
                address=options.address,
            )
        path = options.out / PACKAGED.name
        write_rows(plan, rows, options.out, known, path)
        console.print(f"table: {path}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return resumable(work)
