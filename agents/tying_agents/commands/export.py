#!/usr/bin/env python
"""Take the network of a run home: a folder in which every weight is stored once, or a plain checkpoint.

python scripts/export.py runs/one exported/one
python scripts/export.py runs/one exported/one-dense --dense
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tying_agents.commands import guard
import tyro
from rich.console import Console

from tying_env.export import export_tied
from tying_env.export.writing import Which


@dataclass(frozen=True)
class Options:
    """Take the network of a run home."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    folder: tyro.conf.Positional[Path]
    """The folder to write; it must not exist yet."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    dense: bool = False
    """Write a plain checkpoint that `from_pretrained` of transformers opens, every layer with weights of its own."""


def main() -> int:
    """Export, say how large it came out, and return the exit code."""

    def work(console: Console) -> int:
        options = tyro.cli(Options, description=__doc__)
        folder = export_tied(options.run, options.folder, network=options.network, dense=options.dense)
        size = sum(path.stat().st_size for path in folder.iterdir())
        console.print(f"{folder}: {size / 1e6:,.1f} MB", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
