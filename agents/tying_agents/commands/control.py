"""Try controllers on tasks whose best tying is known: does a controller learn at all in so many decisions?

Shows the share of what there is to gain over chance, after each number of decisions, for each agent. No network is
trained but the agents' own, so it takes a CPU only. A run is kept as soon as it is over: stopped at any time, the same
command resumes. More agents, tasks, decisions and seeds can be asked for later, into the same folder.

layer-tying control --arms random dqn dqn-bandit --kinds additive --layers 12
layer-tying control --arms my_folder/my_controller.py:MyController --marks 59 400 --seeds 20 --out control/mine
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.control.arms import ARMS
from tying_env.synthetic.tasks import Kind

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tying_agents.control.experiment import OneRun


@dataclass(frozen=True)
class Options:
    """Try controllers on tasks whose best tying is known."""

    arms: tuple[str, ...] = tuple(ARMS)
    """Agents by name or import string, at their defaults; dqn-bandit is dqn with gamma 0 and learning rate 0.01."""
    kinds: tuple[Kind, ...] = ("additive", "pairwise")
    """Tasks: independent (the reward is the number of independent layers), additive (each layer's leader counts),
    pairwise (a hidden partition: which layers belong together)."""
    layers: tuple[int, ...] = (6, 12, 48)
    """Numbers of layers."""
    marks: tuple[int, ...] = (59, 400)
    """After how many decisions to look."""
    seeds: int = 20
    """Seeds, 0, 1, 2, ..., each with a task of its own."""
    noise: float = 0.0
    """Standard deviation of the rewards' noise, in units of what lies between chance and the best."""
    out: Path = Path("control")
    """Folder of the runs and the table."""


def main(argv: Sequence[str], prog: str = "layer-tying control") -> int:
    """Make the runs that are not there yet, write and print the table, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        from tying_agents.control.experiment import ControlPlan, make_runs, read_runs
        from tying_agents.control.table import TABLE, cells_of, tasks_of, text_table, write_table

        plan = ControlPlan(options.arms, options.kinds, options.layers, options.marks, options.seeds, options.noise)
        _on_one_thread()
        with console.status("control") as status:

            def on_run(done: int, total: int, run: "OneRun | None") -> None:
                text = f"runs {done}/{total}"
                status.update(text if run is None else f"{text}: {run.arm}, {run.kind}, L = {run.n_layer}")
                if not console.is_terminal and (run is None or done % 100 == 0):
                    console.print(text, highlight=False)

            make_runs(plan, options.out, on_run)
        lines = read_runs(options.out)
        cells = cells_of(lines)
        write_table(cells, sum(line["cpu_seconds"] for line in lines), options.out)
        for kind, n_layer, noise in tasks_of(cells):
            rows = text_table(cells, kind, noise, [n_layer])
            console.print(_as_rich(f"{kind}, noise {noise:g}: % of what lies between chance and best", rows))
        console.print(f"table: {options.out / TABLE}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work, "The same command resumes from what is in the folder.")


def _on_one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # networks this small are slower on several


def _as_rich(title: str, rows: Sequence[Sequence[str]]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(*rows[0], title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    for column in shown.columns:
        column.overflow = "fold"
    for row in rows[1:]:
        shown.add_row(*row)
    return shown
