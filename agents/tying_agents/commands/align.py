"""Measure how far the layers of a run's network are aligned; or write it with heads and units in another order.

layer-tying align runs/one
layer-tying align runs/one --network final --orders stored permuted matched --seed 1 --out ordered

Attention heads, feed-forward units and channels of every two layers are matched by the cosines of their weights, and
set against random matchings and against what independent random weights come to (docs/reading.md).

An order of heads and units changes nothing that the network computes. With --out there is a plain checkpoint for each
order, every layer with weights of its own, for --init-from: as it is stored, permuted at random in each layer, or
matched to layer 0.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.saved_runs import open_network, refuse_unnamed_code, settings_of_network
from tying_env.config.checks import check_at_least
from tying_env.files import check_new
from tying_env.runs.run_directory import RunDirectory, Which

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UnitOrder = Literal["stored", "permuted", "matched"]


@dataclass(frozen=True)
class Options:
    """Measure how far the layers of a run's network are aligned."""

    run: tyro.conf.Positional[Path]
    """The run directory, or the folder of an exported network."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    draws: int = 20
    """Random matchings of every two layers, and pairs of random layers for the chance line."""
    orders: tuple[UnitOrder, ...] = ()
    """Orders of heads and units in which to write the network of a run into --out, each into a folder of its name."""
    seed: int = 0
    """Of random matchings and permuted orders."""
    out: Path | None = None
    """Folder for --orders; it must not exist yet."""
    model: str | None = None
    """The file.py:function that makes the network, of a run whose network is your own: a file never makes code run."""

    def __post_init__(self) -> None:
        check_at_least(1, draws=self.draws)
        check_at_least(0, seed=self.seed)
        if (self.out is None) != (not self.orders):
            raise ValueError("--orders and --out belong together: which orders to write, and where")
        if len(set(self.orders)) != len(self.orders):
            raise ValueError(f"orders must be different ones, got {', '.join(self.orders)}")


def main(argv: Sequence[str], prog: str = "layer-tying align") -> int:
    """Measure and print a table, or write the orders; return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        refuse_unnamed_code(settings_of_network(options.run, options.network), options.run, options.model)
        if options.out is None:
            console.print(measured(options))
        else:
            RunDirectory.open(options.run)  # what is exported already has no record of its training
            check_new(options.out)
            for folder in write_orders(options, options.out):
                console.print(f"written: {folder}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


def measured(options: Options) -> "Table":
    """Return a table of how far the layers are aligned, means over pairs of layers that do not share what is compared.

    Raises:
        ValueError, OSError, ImportError: the run cannot be read, its blocks are not known, or all share their weights.
    """
    import numpy as np
    import torch
    from rich.table import Table

    from tying_env.alignment import measure_alignment
    from tying_env.alignment.parts import blocks_of, find_parts
    from tying_env.seeding import numpy_stream

    run = open_network(options.run, options.network, torch.device("cpu"), options.model)
    blocks = blocks_of(run.saved.network)
    parts = find_parts(blocks)
    own = [i for i, part in enumerate(parts) if all(part.place != other.place for other in parts[:i])]
    if len(own) < 2:
        raise ValueError(f"{options.run} has one set of weights for all layers: there are no two to compare")
    found = measure_alignment([blocks[i] for i in own], numpy_stream(options.seed, "matchings"), options.draws)
    apart: dict[str, Any] = {}  # of each kind the pairs of layers that do not share it, two arrays (pairs,)
    for kind in found:
        shared = np.array([[parts[i].shares(parts[j], kind) for j in own] for i in own])
        apart[kind] = np.nonzero(np.triu(~shared, 1))
    counts = {kind: len(pairs[0]) for kind, pairs in apart.items()}
    one_count = f", {next(iter(counts.values()))} pairs of layers" if len(set(counts.values())) == 1 else ""
    table = Table(title=f"{options.run}, {options.network} network: mean cosines{one_count}")
    table.title_justify = "left"
    for heading in ("", "in a\nlayer", "best\nmatching", "chance", "equal\nplaces", "random\nmatching"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)  # 76 characters in all
    for kind, one in found.items():
        pairs, name = apart[kind], _NAMES[kind] if one_count else f"{_NAMES[kind]},\n{counts[kind]} pairs of layers"
        if not counts[kind]:  # attention and feed-forward part are tied apart, and one of them is one for all
            table.add_row(name, f"{one.count:,}", *["-"] * 4)
            continue
        values = (one.optimal[pairs].mean(), one.chance, one.identity[pairs].mean())
        by_chance = f"{one.random_mean[pairs].mean():+.3f} ± {one.random_spread[pairs].mean():.3f}"
        table.add_row(name, f"{one.count:,}", *(f"{value:+.3f}" for value in values), by_chance)
    return table


_NAMES = {"heads": "attention heads", "units": "feed-forward units", "channels": "channels"}


def write_orders(options: Options, out: Path) -> list[Path]:
    """Write a plain checkpoint for each order, all of them or none, and return their folders.

    Raises:
        ValueError, TypeError, OSError, ImportError: as `tying_env.export.export_changed`, or the blocks are not known.
    """
    import numpy as np
    import torch

    from tying_env.alignment import match_units, permute_units
    from tying_env.alignment.parts import blocks_of
    from tying_env.export import export_changed
    from tying_env.seeding import numpy_stream

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        unfinished = Path(aside) / out.name
        for order in options.orders:
            run = open_network(options.run, options.network, torch.device("cpu"), options.model)
            run.saved.tied.change(np.arange(len(run.tying)))  # every layer gets a copy of what it computes with
            if order == "permuted":
                permute_units(blocks_of(run.saved.network), numpy_stream(options.seed, "order of units"))
            elif order == "matched":
                match_units(blocks_of(run.saved.network))
            about = {"order": order, **({"seed": options.seed} if order == "permuted" else {})}
            export_changed(run, unfinished / order, "units", about, None, network=options.network, dense=True)
        unfinished.rename(out)
    return [out / order for order in options.orders]
