"""Prune the network of a run and export it; or prune many runs, and write how they did as a table and a figure.

layer-tying prune runs/one --sparsity 0.5
layer-tying prune runs/one --sparsity 0.5 --pattern 2:4 --method magnitude --out exported/one-24
layer-tying prune runs/one runs/two --sparsity 0.25 0.5 0.75 --method wanda magnitude --out pruned

The weights of the linear layers in the blocks are pruned. Embeddings, head, norms and biases stay as they are.
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
    place_for,
    refuse_unlike,
    refuse_unnamed_code,
    settings_of_network,
)
from tying_env.reports.loading import find_runs
from tying_env.runs.exported import is_export, is_packed
from tying_env.runs.run_directory import Which

if TYPE_CHECKING:
    from rich.console import Console

    from tying_env.compression.pruning import Pruning

TABLE = "pruning"  # the names of the files, before their endings


@dataclass(frozen=True)
class Options:
    """Prune the network of a run and export it; or prune many, and write how they did."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or folders that hold some at any depth."""
    out: Path | None = None
    """The folder to write. For one run, sparsity and method: the pruned network, as `layer-tying export` writes one;
    it must not exist yet, and by default lies beside the run, by its name with -pruned behind it. For more: a table
    (pruning.csv, pruning.md) and two figures, against sparsity and against the layers that share a weight; those of
    before are replaced."""
    sparsity: tuple[float, ...] = (0.5,)
    """The share of every output's weights that goes, from 0 to below 1."""
    method: tuple[Literal["wanda", "magnitude"], ...] = ("wanda",)
    """Which weights go first: by magnitude times the norm of their input (Wanda), or by magnitude alone."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Anywhere in the row of an output, or two of every four weights in it."""
    examples: int = 128
    """Sequences (or images) of the training split on which Wanda measures inputs."""
    windows: int = 0
    """Sequences (or images) to measure on, of the test split for a table, of validation and test split for an export;
    0 for the whole splits."""
    dataset: str | None = None
    """Data to measure on; the default is what the runs were trained on."""
    dense: bool = False
    """Export a plain checkpoint, every layer with weights of its own, as `layer-tying export --dense`."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    model: str | None = None
    """The file.py:function that makes the network, of runs whose network is your own: a file never makes code run."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""


def main(argv: Sequence[str], prog: str = "layer-tying prune") -> int:
    """Prune, say what became of the predictions, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        if exported := [path for path in options.runs if is_export(path)]:
            raise ValueError(
                f"{exported[0]} is an exported network, which is not pruned: prune its run, and export that"
            )
        if packed := [path for path in options.runs if is_packed(path)]:
            raise ValueError(f"{packed[0]} is a packed network, rounded already: prune its run, and pack that")
        runs = find_runs(options.runs)
        one = len(runs) == len(options.sparsity) == len(options.method) == 1
        if options.windows < 0:
            raise ValueError(f"windows must be at least 0 (0: the whole split), got {options.windows}")
        out = place_for(options.out, runs, "-pruned", one, "choose another folder")
        if options.dense and not one:
            raise ValueError("--dense is for the export of one run, with one sparsity and one method")
        settings = {run: settings_of_network(run, options.network) for run in runs}
        for run, env in settings.items():
            refuse_unnamed_code(env, run, options.model)
            check_data(env, run, options.dataset)
        refuse_unlike(settings)
        from tying_agents.compressing.pruned_runs import ways

        prunings = ways(options.sparsity, options.method, options.pattern, options.examples)
        if one:
            _export(runs[0], prunings[0], out, options, console)
        else:
            _tabulate(runs, prunings, out, options, console)
        return 0

    return guard.guarded(work)


def _export(path: Path, pruning: "Pruning", out: Path, options: Options, console: "Console") -> None:
    """Prune one network, measure it before and after, and export it."""
    from dataclasses import asdict

    from tying_agents.commands.before_after import effects_table, measured
    from tying_env.compression.pruning import input_norms, left_alone, linears_of, prune
    from tying_env.export import export_changed
    from tying_env.primary.models import find_device
    from tying_env.runs import load_run

    device = find_device(options.device)
    run = load_run(path, options.network, device, options.model)
    workload = run.open_workload(options.dataset)
    linears = linears_of(run.saved.network)
    with console.status("Measuring ..."):
        before = measured(workload, run.model, device, options.windows)
        wanda = pruning.method == "wanda"
        norms = input_norms(run.model, linears, workload, pruning.examples) if wanda else None
        prune(linears, norms, pruning)
        after = measured(workload, run.model, device, options.windows)
    total = sum(linear.weight.numel() for linear in linears)
    zeros = sum(int((linear.weight == 0).sum()) for linear in linears)
    numbers = after["test"]._asdict() if "test" in after else None
    about = {**asdict(pruning), "zeros": zeros, "of": total}
    folder = export_changed(run, out, "pruning", about, numbers, network=options.network, dense=options.dense)
    columns = {"trained": before, "pruned": after}
    console.print(effects_table(f"{path}, {options.network} network", workload, columns, options.windows))
    console.print(f"{zeros:,} of the {total:,} weights of the blocks' linear layers are 0", highlight=False)
    if others := left_alone(run.saved.network, linears):
        console.print(f"left alone, as no linear layer's: {', '.join(others)}", highlight=False, soft_wrap=True)
    console.print(f"written: {folder}", highlight=False, markup=False, soft_wrap=True)


def _tabulate(
    runs: Sequence[Path], prunings: "Sequence[Pruning]", out: Path, options: Options, console: "Console"
) -> None:
    """Prune many networks in many ways, and write table and figure."""
    from rich.text import Text

    from tying_agents.compressing.pruned_runs import as_csv, as_markdown, draw_by_group, draw_pruned, pruned_results
    from tying_agents.compressing.runs_in_arms import in_arms
    from tying_env.primary.models import find_device
    from tying_env.reports.drawing import save_figure
    from tying_env.reports.page import write_page
    from tying_env.runs import load_run

    device = find_device(options.device)
    counted, notes = in_arms(runs)
    results = []

    def told(text: str) -> None:
        status.update(Text(text))  # a label is no markup

    with console.status("Pruning ...") as status:
        for about in counted:
            run = load_run(about.path, options.network, device, options.model)
            results += pruned_results(
                run, about.label, about.seed, prunings, options.windows, options.dataset, device, told
            )
    for name, text in ((f"{TABLE}.csv", as_csv(results)), (f"{TABLE}.md", as_markdown(results))):
        write_page(text, out / name, overwrite=True)
    paths = save_figure(draw_pruned(results), out, TABLE)
    if (by_group := draw_by_group(results)) is not None:
        paths += save_figure(by_group, out, f"{TABLE}_groups")
    for text in (as_markdown(results), *notes):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for written in (out / f"{TABLE}.csv", out / f"{TABLE}.md", *paths):
        console.print(f"written: {written}", highlight=False, markup=False, soft_wrap=True)
