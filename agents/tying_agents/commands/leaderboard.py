"""Let every agent search the tying table many times, and write the leaderboard: a page and a figure.

Settings are fixed beforehand (tying_agents.contest.entries). A run is kept as soon as it is over: stopped at any time,
the same command resumes. With 500 runs of all agents it takes hours of CPU time, most of it that of the libraries'
agents; the page says how much.

layer-tying leaderboard --table tables/tying_table_v1.npz
layer-tying leaderboard --objective limited --max-parameters 50000 --out contests/limited
layer-tying leaderboard --agents random dqn evolution my_folder/my_controller.py:MyController --seeds 100
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tying_agents.commands.early import read_options
from tying_agents.commands.many_runs import resumable
from tying_agents.commands.typed import command_line
from tying_agents.contest.entries import CHOSEN_ON, ENTRIES, entry_of
from tying_agents.contest.runs import Task
from tying_env.table.objectives import Objective

if TYPE_CHECKING:
    from rich.console import Console

    from tying_env.table import TyingTable

_LINES = 100  # of progress, where output is no terminal


@dataclass(frozen=True)
class Options:
    """Who searches, and how often."""

    agents: tuple[str, ...] = tuple(ENTRIES)
    """Names of the leaderboard, or any agents by name or import string at their defaults."""
    corpora: tuple[str, ...] = ()
    """Which texts the networks of the table were trained on; by default all that the table has."""
    seeds: int = 500
    """Searches of each agent on each corpus: seeds 0, 1, 2, ..."""
    objective: Objective = "perplexity"
    """The lowest perplexity; perplexity plus a price for parameters; the lowest under a limit on parameters."""
    price: float = 1.0
    """Of the objective "priced": what conventional training's parameters cost, in units of perplexity."""
    max_parameters: int | None = None
    """Of the objective "limited"."""
    trainings: int = 200
    """Trainings that a search may buy."""
    jobs: int = 2
    """Searches at a time."""
    table: Path | None = None
    """A table's file (`layer-tying tabulate` makes one); the package's own by default."""
    out: Path = Path("contests/leaderboard")
    """Folder of the runs."""
    pages: Path | None = None
    """Folder of the page and its figure; by default that of the runs."""

    def __post_init__(self) -> None:
        for name, least in (("seeds", 2), ("trainings", 1), ("jobs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.agents:
            raise ValueError("agents must name at least one agent, got none")

    def task(self, corpus: str) -> Task:
        """Return what is to be found on a corpus."""
        return Task(corpus, self.objective, self.trainings, self.price, self.max_parameters, self.table)


def main(argv: Sequence[str], prog: str = "layer-tying leaderboard") -> int:
    """Make the runs that are not there yet, write the leaderboard, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        entries = tuple(entry_of(name) for name in dict.fromkeys(options.agents))
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from tying_agents.contest.leaderboard import Board, write_board
        from tying_agents.contest.runs import make_runs
        from tying_agents.contest.standings import standings
        from tying_env.table import open_table

        table = open_table(options.table)
        names = options.corpora or sorted(table.corpora, key=lambda name: (name != CHOSEN_ON, name))
        for name in names:
            options.task(name).make().close()  # what is wrong with one of them shows before anything is written
        arms, found = [entry.arm() for entry in entries], {}
        each = len(arms) * options.seeds
        columns = (MofNCompleteColumn(), BarColumn(), TextColumn("eta"), TimeRemainingColumn())
        bar = Progress(TextColumn("searches"), *columns, console=console, disable=not console.is_terminal)
        with bar:
            progress = bar.add_task("", total=None)
            for number, name in enumerate(names):

                def on_run(done: int, total: int, arm: str, before: int = number * each) -> None:
                    if bar.tasks[progress].total is None:  # runs of before took none of the time that is measured here
                        bar.reset(progress, total=len(names) * each, completed=before + done)
                    bar.update(progress, completed=before + done)
                    if not console.is_terminal and (done % max(1, len(names) * each // _LINES) == 0 or done == total):
                        left = bar.tasks[progress].time_remaining
                        eta = "" if left is None else f", {left / 60:,.0f} minutes left"
                        console.print(f"searches {before + done}/{len(names) * each}{eta}", highlight=False)

                task = options.task(name)
                found[name] = standings(
                    make_runs(
                        arms,
                        task,
                        options.seeds,
                        options.out,
                        on_run,
                        lambda text: console.print(text, highlight=False),
                        jobs=options.jobs,
                    )
                )
        about = f"The table's sha256 begins with {table.sha256[:16]}; it has {len(table.tyings)} tyings of L = "
        about += f"{table.n_layer} layers. {options.task(names[0]).in_words()} {_apart(table, names)}"
        board = Board(
            entries, found, options.seeds, int(table.points[-1]), about, command_line("layer-tying leaderboard", argv)
        )
        for path in write_board(board, options.pages or options.out):
            console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return resumable(work)


def _apart(table: "TyingTable", names: Sequence[str]) -> str:
    """Say how far two tyings have to be apart before the table can tell them apart."""
    import math

    import numpy as np

    from tying_agents.findings.losses import losses_of
    from tying_agents.findings.orders import noise

    said = []
    for name in names:
        seeds = len(table.corpus(name).whole_seeds)
        if seeds > 1:
            losses = losses_of(table, name)
            means = losses.test.mean(axis=0)
            best, good = math.exp(means.min()), losses.among(means <= np.quantile(means, 0.25))
            said.append(f"{2 * math.sqrt(2) * noise(good).error * best:.2f} on {name} ({seeds} seeds)")
    if not said:
        return "With one seed the table cannot tell tyings that are nearly alike apart."
    return (
        "The table itself is noisy: of the quarter of tyings with the lowest means two differ by more than twice the "
        f"standard error of the difference if they are {' and '.join(said)} apart. Regrets "
        "below that are those of tyings that are as good as the best, as far "
        "as its seeds can tell, and agents draw from the same seeds that judge them."
    )
