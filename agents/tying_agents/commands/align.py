"""Measure how far the layers of runs' networks are aligned; or write one with heads and units in another order.

layer-tying align runs/one
layer-tying align runs/one runs/two --network final --out aligned
layer-tying align runs/one --network final --orders stored permuted matched --seed 1 --out ordered

Attention heads, feed-forward units and channels of every two layers are matched by the cosines of their weights, and
set against random matchings and against what independent random weights come to (docs/reading.md).

With --out the table is written, alignment.csv and alignment.md, for any number of runs.

An order of heads and units changes nothing that the network computes. With --orders there is a plain checkpoint in
--out for each order, every layer with weights of its own, for --init-from: as it is stored, permuted at random in each
layer, or matched to layer 0.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.saved_runs import open_network, refuse_unnamed_code, settings_of_network
from tying_env.config.checks import check_at_least
from tying_env.files import check_new
from tying_env.reports.loading import find_runs
from tying_env.runs.exported import is_export, read_training
from tying_env.runs.run_directory import RunDirectory, Which

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tying_env.alignment.table import Aligned

UnitOrder = Literal["stored", "permuted", "matched", "moved"]


@dataclass(frozen=True)
class Options:
    """Measure how far the layers of runs' networks are aligned."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, folders that hold some at any depth, or folders of exported networks."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    draws: int = 20
    """Random matchings of every two layers, and pairs of random layers for the chance line."""
    orders: tuple[UnitOrder, ...] = ()
    """Orders of heads and units in which to write the network of a run into --out, each into a folder of its name: as
    they are, permuted in every layer, matched to layer 0; and moved, whole layers in a random order."""
    seed: int = 0
    """Of random matchings and orders."""
    out: Path | None = None
    """Folder for the table, or for --orders of one run; it must not exist yet."""
    model: str | None = None
    """The file.py:function that makes the network, of a run whose network is your own: a file never makes code run."""

    def __post_init__(self) -> None:
        check_at_least(1, draws=self.draws)
        check_at_least(0, seed=self.seed)
        if self.orders and self.out is None:
            raise ValueError("--orders needs --out: where to write them")
        if self.orders and len(self.runs) != 1:
            raise ValueError(f"--orders is for one run, got {len(self.runs)}")
        if len(set(self.orders)) != len(self.orders):
            raise ValueError(f"orders must be different ones, got {', '.join(self.orders)}")


def main(argv: Sequence[str], prog: str = "layer-tying align") -> int:
    """Measure and print a table, or write the orders; return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        runs = [run for path in options.runs for run in ([path] if is_export(path) else find_runs([path]))]
        runs = list(dict.fromkeys(runs))
        if options.out is not None:
            check_new(options.out)
        for run in runs:
            refuse_unnamed_code(settings_of_network(run, options.network), run, options.model)
        if options.orders and options.out is not None:
            if len(runs) != 1:
                raise ValueError(f"--orders is for one run, and {options.runs[0]} holds {len(runs)}")
            RunDirectory.open(runs[0])  # what is exported already has no record of its training
            written = write_orders(options, runs[0], options.out)
        else:
            found = []
            with console.status("Matching ..."):
                for run in runs:
                    found.append(measured(run, options))
            for each in found:
                console.print(as_table(each))
            written = [] if options.out is None else write_table(found, options.out)
        for path in written:
            console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


def measured(path: Path, options: Options) -> "Aligned":
    """Measure how far the layers of a network are aligned.

    Raises:
        ValueError, OSError, ImportError: it cannot be read, its blocks are not known, or all share their weights.
    """
    import torch

    from tying_env.alignment.table import Aligned, aligned_rows
    from tying_env.reports.loading import load_run
    from tying_env.seeding import numpy_stream

    if is_export(path):
        label, seed, network = (
            f"{path.parent.name}/{path.name}",
            None,
            str(read_training(path).get("network", options.network)),
        )
    else:  # one that never validated has no best network
        about, network = load_run(path), RunDirectory.open(path).network_file(options.network).stem
        label, seed = about.label, about.seed
    run = open_network(path, options.network, torch.device("cpu"), options.model)
    try:
        rows = aligned_rows(run.saved.network, numpy_stream(options.seed, "matchings"), options.draws)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Aligned(str(path), label, seed, network, rows)


def as_table(found: "Aligned") -> "Table":
    """Return what was measured of a network for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    from tying_env.alignment.table import NAMES

    counts = {row.pairs for row in found.rows}
    one_count = f", {counts.pop()} pairs of layers" if len(counts) == 1 else ""
    table = Table(title=f"{escape(found.run)}, {found.network} network: mean cosines{one_count}")
    table.title_justify = "left"
    for heading in ("", "in a\nlayer", "best\nmatching", "chance", "equal\nplaces", "random\nmatching"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)  # 76 characters in all
    for row in found.rows:
        name = NAMES[row.kind] if one_count else f"{NAMES[row.kind]},\n{row.pairs} pairs of layers"
        if not row.pairs:  # attention and feed-forward part are tied apart, and one of them is one for all
            table.add_row(name, f"{row.count:,}", *["-"] * 4)
            continue
        values = (f"{value:+.3f}" for value in (row.best, row.chance, row.equal))
        table.add_row(name, f"{row.count:,}", *values, f"{row.random:+.3f} ± {row.spread:.3f}")
    return table


def write_table(found: "Sequence[Aligned]", out: Path) -> list[Path]:
    """Write the table as CSV and Markdown into a new folder, both or neither, and return the files.

    Raises:
        OSError: it cannot be written.
    """
    from tying_env.alignment.table import as_csv, as_markdown

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        unfinished = Path(aside) / out.name
        unfinished.mkdir()
        (unfinished / "alignment.csv").write_text(as_csv(found), encoding="utf-8")
        (unfinished / "alignment.md").write_text(as_markdown(found), encoding="utf-8")
        unfinished.rename(out)
    return [out / "alignment.csv", out / "alignment.md"]


def write_orders(options: Options, path: Path, out: Path) -> list[Path]:
    """Write a plain checkpoint for each order, all of them or none, and return their folders.

    Raises:
        ValueError, TypeError, OSError, ImportError: as `tying_env.export.export_changed`, or the blocks are not known.
    """
    import numpy as np
    import torch

    from tying_env.alignment import match_units, move_layers, permute_units
    from tying_env.alignment.parts import blocks_of
    from tying_env.export import export_changed
    from tying_env.seeding import numpy_stream

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        unfinished = Path(aside) / out.name
        for order in options.orders:
            run = open_network(path, options.network, torch.device("cpu"), options.model)
            run.saved.tied.change(np.arange(len(run.tying)))  # every layer gets a copy of what it computes with
            if order == "permuted":
                permute_units(blocks_of(run.saved.network), numpy_stream(options.seed, "order of units"))
            elif order == "matched":
                match_units(blocks_of(run.saved.network))
            elif order == "moved":
                move_layers(blocks_of(run.saved.network), numpy_stream(options.seed, "order of layers"))
            about = {"order": order, **({"seed": options.seed} if order in ("permuted", "moved") else {})}
            export_changed(run, unfinished / order, "units", about, None, network=options.network, dense=True)
        unfinished.rename(out)
    return [out / order for order in options.orders]
