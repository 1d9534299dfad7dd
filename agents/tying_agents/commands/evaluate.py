"""Measure the network of a run, or an exported one, on a split of its own data, or of others.

layer-tying evaluate runs/one
layer-tying evaluate runs/one --dataset path/to/folder --split validation --windows 0
layer-tying evaluate exported/one
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.saved_runs import check_data, open_network, refuse_unnamed_code, settings_of_network
from tying_env.runs.run_directory import Which

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Options:
    """Measure the network of a run."""

    run: tyro.conf.Positional[Path]
    """The run directory, the folder of an exported network, or the file of a packed one."""
    dataset: str | None = None
    """Data to measure on; the default is what it was trained on."""
    split: Literal["train", "validation", "test"] = "test"
    """Which split of the data."""
    windows: int = 0
    """Sequences (or images) to measure; 0 for the whole split."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    model: str | None = None
    """The file.py:function that makes the network, of a run whose network is your own: a file never makes code run."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""


def main(argv: Sequence[str], prog: str = "layer-tying evaluate") -> int:
    """Evaluate, print a table, and return the exit code."""

    def work(console: "Console") -> int:
        console.print(evaluated(read_options(Options, argv, prog, __doc__)))
        return 0

    return guard.guarded(work)


def evaluated(options: Options) -> "Table":
    """Measure, and return a table of the results.

    Raises:
        ValueError, OSError, ImportError: the run or the data cannot be read; the message says why.
    """
    if options.windows < 0:
        raise ValueError(f"windows must be at least 0 (0: the whole split), got {options.windows}")
    env = settings_of_network(options.run, options.network, packed=True)
    refuse_unnamed_code(env, options.run, options.model)
    check_data(env, options.run, options.dataset)
    from rich.table import Table

    from tying_env.config.network import unit_of_bits
    from tying_env.partition import leaders
    from tying_env.primary.models import find_device

    device = find_device(options.device)
    run = open_network(options.run, options.network, device, options.model)
    data = options.dataset or run.config.dataset
    workload = run.open_workload(options.dataset)
    result = workload.evaluate(run.model, options.split, options.windows, device)
    table = Table(show_header=False, title=f"{options.run}, {options.network} network", title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a path is as long as it is
    table.add_row("data", f"{data}, {options.split} split")
    table.add_row(f"independent {workload.kinds.counted}", f"{len(leaders(run.tying))} of {len(run.tying)}")
    table.add_row("predictions", f"{result.tokens:,}")
    table.add_row("cross-entropy", f"{result.mean_loss:.4f} nats per prediction")
    table.add_row("perplexity", f"{result.perplexity:,.2f}")
    if result.bits_per_byte is not None:
        unit = unit_of_bits([run.config.tokenizer]).replace("/", " per ")
        table.add_row(unit, f"{result.bits_per_byte:.4f}")
    if result.accuracy is not None:
        table.add_row("accuracy", f"{result.accuracy:.2%}")
    if result.input_dependence is not None:
        table.add_row("input dependence", f"{result.input_dependence:.2g} of the logits' mean square")
    return table
