"""Pack the network of a run into a file of at most so many bytes; or pack many runs, and write tables and a figure.

layer-tying pack runs/one --max-bytes 16000000
layer-tying pack runs/one --bits 8 --out one.packed
layer-tying pack runs/one runs/two --max-bytes 20000 40000 80000 --out packed

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
from tying_agents.commands.saved_runs import (
    check_data,
    open_network,
    place_for,
    refuse_unlike,
    refuse_unnamed_code,
    settings_of_network,
)
from tying_env.config.checks import check_at_least
from tying_env.reports.loading import find_runs
from tying_env.runs.exported import is_export, is_packed
from tying_env.runs.run_directory import Which

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tying_agents.compressing.packed_runs import Way
    from tying_env.compression import Packed

TABLE = "packing"  # the names of the files, before their endings


@dataclass(frozen=True)
class Options:
    """Pack the network of a run into a file of at most so many bytes; or pack many, and write how they did."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run directory, or the folder of an exported network; or run directories, and folders that hold some at any
    depth."""
    out: Path | None = None
    """The file to write, of one network packed in one way; it must not exist yet, and by default lies beside the run,
    by its name with .packed behind it. For more: a folder for tables (packing.csv, packing.md, packing_parts.csv) and a
    figure; those of before are replaced."""
    max_bytes: tuple[int, ...] = (16_000_000,)
    """Of the whole file: weights, and what says how they belong together."""
    bits: tuple[Literal[4, 6, 8], ...] = ()
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
        check_at_least(0, test_windows=options.test_windows, windows=options.windows)
        if not options.max_bytes:
            raise ValueError("max_bytes needs at least one number")
        for limit in options.max_bytes:
            check_at_least(1, max_bytes=limit)
        whole = len(options.runs) == 1 and (is_export(options.runs[0]) or is_packed(options.runs[0]))
        runs = list(options.runs) if whole else find_runs(options.runs)
        one = len(runs) == len(options.max_bytes) == 1 and len(options.bits) < 2
        out = place_for(options.out, runs, ".packed", one, "choose another file")
        settings = {run: settings_of_network(run, options.network) for run in runs}
        for run, env in settings.items():
            refuse_unnamed_code(env, run, options.model)
            check_data(env, run, options.dataset)
        refuse_unlike(settings, in_bits=True)
        from tying_agents.compressing.packed_runs import Way

        ways = [Way(limit, bits) for bits in dict.fromkeys(options.bits or (None,)) for limit in options.max_bytes]
        if one:
            _pack(runs[0], ways[0], out, options, console)
        else:
            _tabulate(runs, list(dict.fromkeys(ways)), out, options, console)
        return 0

    return guard.guarded(work)


def _pack(path: Path, way: "Way", out: Path, options: Options, console: "Console") -> None:
    """Pack one network, and measure what is in the file."""
    from rich.text import Text

    from tying_agents.commands.before_after import effects_table, measured
    from tying_env.compression import load_packed, pack_network
    from tying_env.primary.models import find_device

    device = find_device(options.device)
    run = open_network(path, options.network, device, options.model)
    with console.status("Coding the weights ...") as status:
        packed = pack_network(
            run,
            out,
            way.max_bytes,
            bits=way.bits,
            windows=options.windows,
            dataset=options.dataset,
            told=lambda part: status.update(Text(f"Measuring damage, {part}")),
        )
    console.print(units_table(packed))
    workload = run.open_workload(options.dataset)
    opened = load_packed(out, device, options.model)
    columns = {
        "as trained": measured(workload, run.model, device, options.test_windows),
        "out of the file": measured(workload, opened, device, options.test_windows),
    }
    title = f"{path}, {options.network} network"
    console.print(effects_table(title, workload, columns, options.test_windows))
    text = f"written: {out}, {packed.size:,} of {way.max_bytes:,} bytes"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _tabulate(runs: Sequence[Path], ways: "Sequence[Way]", out: Path, options: Options, console: "Console") -> None:
    """Pack many networks in many ways, and write tables and figure."""
    from rich.text import Text

    from tying_agents.compressing.packed_figure import draw_packed
    from tying_agents.compressing.packed_runs import as_csv, as_markdown, packed_results, parts_as_csv
    from tying_agents.compressing.runs_in_arms import RunOfArm, in_arms
    from tying_env.config.network import unit_of_bits
    from tying_env.primary.models import find_device
    from tying_env.reports.drawing import save_figure
    from tying_env.reports.page import write_page

    device = find_device(options.device)
    # A network that is exported or packed has neither label nor seed.
    alone = [RunOfArm(path, path.name, 0) for path in runs if is_export(path) or is_packed(path)]
    counted, notes = (alone, list[str]()) if alone else in_arms(runs)
    results = []
    with console.status("Packing ...") as status:
        for about in counted:
            run = open_network(about.path, options.network, device, options.model)
            results += packed_results(
                run,
                about.label,
                about.seed,
                ways,
                unit_of_bits([run.config.tokenizer]),
                windows=options.windows,
                test_windows=options.test_windows,
                dataset=options.dataset,
                device=device,
                model=options.model,
                told=lambda text: status.update(Text(text)),  # a label is no markup
            )
    figure = draw_packed(results)  # refuses where nothing fits, before anything is written
    texts = {".csv": as_csv(results), ".md": as_markdown(results), "_parts.csv": parts_as_csv(results)}
    for ending, text in texts.items():
        write_page(text, out / f"{TABLE}{ending}", overwrite=True)
    paths = save_figure(figure, out, TABLE)
    for text in (texts[".md"], *notes):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for written in (*(out / f"{TABLE}{ending}" for ending in texts), *paths):
        console.print(f"written: {written}", highlight=False, markup=False, soft_wrap=True)


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
