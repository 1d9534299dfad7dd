"""Pack the network of a run, or an exported one, into a file of at most so many bytes.

layer-tying pack runs/one --max-bytes 16000000 --out one.packed
layer-tying pack runs/one --bits 8 --out one.packed

Every weight is stored once, in 8, 6 or 4 bits, entropy-coded. Each group of tied layers, and each matrix outside the
blocks, gets the bits that its measured damage to validation calls for. The file is opened by
`tying_env.compression.load_packed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.saved_runs import check_data, open_network, refuse_unnamed_code, settings_of_network
from tying_env.config.checks import check_at_least
from tying_env.files import check_new
from tying_env.runs.run_directory import Which

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tying_env.compression import Packed


@dataclass(frozen=True)
class Options:
    """Pack the network of a run into a file of at most so many bytes."""

    run: tyro.conf.Positional[Path]
    """The run directory, or the folder of an exported network."""
    out: Path
    """The file to write; it must not exist yet."""
    max_bytes: int = 16_000_000
    """Of the whole file: weights, and what says how they belong together."""
    bits: Literal[8, 6, 4] | None = None
    """For all weights alike, without measuring; by default each part has its own."""
    windows: int = 256
    """Sequences (or images) of the validation split on which damage is measured; 0 for all."""
    test_windows: int = 0
    """Sequences (or images) of validation and test split on which the packed network is measured; 0 for all."""
    dataset: str | None = None
    """Data to measure on; the default is what it was trained on."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    model: str | None = None
    """The file.py:function that makes the network, of a run whose network is your own: a file never makes code run."""
    device: str = "auto"
    """Where to measure: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""


def main(argv: Sequence[str], prog: str = "layer-tying pack") -> int:
    """Pack, measure what is in the file, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        check_at_least(0, test_windows=options.test_windows)
        check_new(options.out, "choose another file")
        env = settings_of_network(options.run, options.network)
        refuse_unnamed_code(env, options.run, options.model)
        check_data(env, options.run, options.dataset)
        from rich.text import Text

        from tying_agents.commands.before_after import effects_table, measured
        from tying_env.compression import load_packed, pack_network
        from tying_env.primary.models import find_device

        device = find_device(options.device)
        run = open_network(options.run, options.network, device, options.model)
        with console.status("Coding the weights ...") as status:
            packed = pack_network(
                run,
                options.out,
                options.max_bytes,
                bits=options.bits,
                windows=options.windows,
                dataset=options.dataset,
                told=lambda part: status.update(Text(f"Measuring damage, {part}")),
            )
        console.print(units_table(packed))
        workload = run.open_workload(options.dataset)
        opened = load_packed(options.out, device, options.model)
        columns = {
            "as trained": measured(workload, run.model, device, options.test_windows),
            "out of the file": measured(workload, opened, device, options.test_windows),
        }
        title = f"{options.run}, {options.network} network"
        console.print(effects_table(title, workload, columns, options.test_windows))
        text = f"written: {options.out}, {packed.size:,} of {options.max_bytes:,} bytes"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


def units_table(packed: "Packed") -> "Table":
    """Return a table of a network's parts: bits, bytes, and what was measured of each choice."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    tried = sorted({bits for part in packed.units for bits in part.choices}, reverse=True)
    measured = len(tried) > 1
    title = "+nats: rise of the validation loss with that part alone in so many bits" if measured else None
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("part", overflow="fold")
    for name in ("layers", "weights", "bits", "bytes", *(f"+nats at {bits}" for bits in tried if measured)):
        table.add_column(name, justify="right")
    for part in packed.units:
        uses = str(len(part.unit.layers) or "-")
        row = [part.unit.name, uses, f"{part.unit.numbers:,}", str(part.bits), f"{part.choices[part.bits].size:,}"]
        table.add_row(*row, *(f"{part.choices[bits].rise:+.5f}" for bits in tried if measured))
    return table
