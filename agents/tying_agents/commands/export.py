"""Export the network of a run: a folder in which every weight is stored once, or a plain checkpoint.

layer-tying export runs/one exported/one
layer-tying export runs/one exported/one-dense --dense
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.saved_runs import refuse_unnamed_code, settings_of_network
from tying_env.files import check_new
from tying_env.runs.run_directory import Which

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Export the network of a run."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    folder: tyro.conf.Positional[Path]
    """The folder to write; it must not exist yet."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    dense: bool = False
    """Write a plain checkpoint that `from_pretrained` of transformers opens, every layer with weights of its own."""
    model: str | None = None
    """The file.py:function that makes the network, of a run whose network is your own: a file never makes code run."""


def main(argv: Sequence[str], prog: str = "layer-tying export") -> int:
    """Export, say how large it came out, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        check_new(options.folder)
        refuse_unnamed_code(settings_of_network(options.run, options.network), options.run, options.model)
        from tying_env.export import export_tied

        folder = export_tied(
            options.run, options.folder, network=options.network, dense=options.dense, model=options.model
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        console.print(f"{folder}: {size / 1e6:,.1f} MB", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)
