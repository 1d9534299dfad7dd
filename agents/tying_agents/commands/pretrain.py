"""Let a DQN learn on the tying table which layer to move, for any number of layers: for --agent pretrained-dqn.

Prints what it chooses for six layers, and what that costs on each corpus of the table against the best tying with as
many groups, beside simple rules. With --shuffled the losses are dealt out at random among the tyings: the control for
whether learning helped.

layer-tying pretrain --out values.npz
layer-tying pretrain --table tables/tying_table_v1.npz --corpus sotu --seed 1 --shuffled --out shuffled.npz
layer-tying run --agent pretrained-dqn --values values.npz --n-layer 24
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_env.config.checks import check_at_least
from tying_env.seeding import check_seed

if TYPE_CHECKING:
    from rich.console import Console

    from tying_agents.pretraining import Judged

_A_LINE = 1000  # updates for each line of output that is no terminal


@dataclass(frozen=True)
class Options:
    """What to learn from, for how long, and where to."""

    out: Path = Path("pretrained_dqn.npz")
    """File of what was learned; one of before is replaced."""
    table: Path | None = None
    """A table's file (`layer-tying tabulate` makes one); the package's own by default."""
    corpus: str = "sotu"
    """Corpus of the table."""
    seed: int = 0
    """Of everything random."""
    updates: int = 3000
    """Updates of each network, one for 64 moves."""
    members: int = 5
    """Networks that learn, each by itself; the mean of their values chooses."""
    threads: int = 1
    """CPU threads to compute with: networks so small are slower on several. Other threads round otherwise."""
    shuffled: bool = False
    """The losses are dealt out at random among the tyings."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_at_least(1, updates=self.updates, members=self.members, threads=self.threads)


def main(argv: Sequence[str], prog: str = "layer-tying pretrain") -> int:
    """Learn, write the file, print what it chooses, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        if not options.out.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder of {options.out} is not there")
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from tying_agents.controllers.pretrained import save_values
        from tying_agents.many.threads import computing_on
        from tying_agents.pretraining import judged, pretrain
        from tying_env.table import open_table

        table = open_table(options.table)
        columns = (MofNCompleteColumn(), BarColumn(), TextColumn("eta"), TimeRemainingColumn())
        bar = Progress(TextColumn("updates"), *columns, console=console, disable=not console.is_terminal)
        with bar, computing_on(options.threads):
            task = bar.add_task("", total=options.updates * options.members)

            def on_update(done: int, total: int) -> None:
                bar.update(task, completed=done)
                if not console.is_terminal and (done % _A_LINE == 0 or done == total):
                    console.print(f"updates {done:,}/{total:,}", highlight=False)

            how = (options.corpus, options.table, options.seed, options.updates, options.members, options.shuffled)
            values = pretrain(*how, on_update)
        about = {
            "table": table.sha256_of(options.corpus),
            "corpus": options.corpus,
            "seed": options.seed,
            "updates": options.updates,
            "shuffled": options.shuffled,
        }
        save_values(values, options.out, about)
        for name in sorted(table.corpora, key=lambda name: (name != options.corpus, name)):
            if len(table.corpus(name).whole_seeds):
                said = f"{name}, which it learned from" if name == options.corpus else f"{name}, which it has not seen"
                with computing_on(options.threads):
                    found = judged(values, name, options.table)
                _show(found, said, console)
        console.print(f"written: {options.out}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


def _show(found: Sequence["Judged"], corpus: str, console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    rules = list(found[0].regrets)
    title = f"Test perplexity on {corpus}, above the best tying's with as many groups at most"
    table = Table(title=escape(title), title_justify="left")
    for name in ("groups", "chosen", "", *(rule.replace("-", "\n") for rule in rules)):
        table.add_column(name)
    for each in found:
        regrets = (f"{each.regrets[rule]:.3f}" for rule in rules)
        table.add_row(str(each.groups), "".join(map(str, each.tying)), f"{each.regret:.3f}", *regrets)
    console.print(table, highlight=False)
