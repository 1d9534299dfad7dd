"""Write what a tying table says, a page with figures; every number comes from the table's file.

The best tying at each number of groups, which layers like to be tied, the noise ceiling, how well short trainings rank
long ones, whether one corpus tells of another, learning rates, and how far simple rules explain the order.

layer-tying findings --table tables/tying_table_v1.npz --out docs/results
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.typed import command_line

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Which table, and where to."""

    table: Path | None = None
    """A table's file (`layer-tying tabulate` makes one); the package's own by default."""
    out: Path = Path("findings")
    """Folder of the page and its figures; those of before are replaced."""


def main(argv: Sequence[str], prog: str = "layer-tying findings") -> int:
    """Write the page and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        from tying_agents.findings.page import write_findings
        from tying_env.table import open_table

        command = command_line("layer-tying findings", argv)
        for path in write_findings(open_table(options.table), options.out, command):
            console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)
