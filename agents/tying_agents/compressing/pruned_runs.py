"""Runs pruned to several sparsities: measured, as a table and as a figure."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from tying_env.compression.pruning import Method, Pruning, input_norms, linears_of, prune
from tying_env.partition import leaders
from tying_env.primary.evaluation import Evaluation
from tying_env.reports.drawing import arm_styles, as_label, fit_log_axis, legend_right, new_axes
from tying_env.runs import LoadedRun


@dataclass(frozen=True)
class PrunedResult:
    """A network of a run, pruned and measured on the test split.

    Attributes:
        run: its directory.
        label: of its arm.
        seed: of the run.
        independent: layers with weights of their own.
        layers: all of them.
        largest: the most layers that share their weights.
        method: whose weights went first; empty for the network as it was trained.
        pattern: of the zeros; empty likewise.
        sparsity: that was asked for; 0 likewise.
        zeros: the share of zeros among the weights of the blocks' linear layers, each counted once.
        test: what was measured.
        frequencies: the test perplexity of token frequencies alone; None where it is not known.
    """

    run: Path
    label: str
    seed: int
    independent: int
    layers: int
    largest: int
    method: str
    pattern: str
    sparsity: float
    zeros: float
    test: Evaluation
    frequencies: float | None

    @property
    def arm(self) -> str:
        """The line of a figure that it is on."""
        return f"{self.label}, {self.method}"


def pruned_results(
    loaded: LoadedRun,
    label: str,
    seed: int,
    prunings: Sequence[Pruning],
    windows: int,
    dataset: str | None,
    device: torch.device,
    told: Callable[[str], None] = lambda _: None,
) -> list[PrunedResult]:
    """Measure a network as it was trained and pruned in each way; it is as it was trained afterwards.

    Args:
        loaded: the network, on `device`.
        label: of its arm.
        seed: of the run.
        prunings: the ways, of one number of examples.
        windows: sequences (or images) of the test split; 0 for all.
        dataset: data in place of its own.
        device: where the network is.
        told: is told what is being measured.

    Raises:
        TypeError, ValueError: the network cannot be pruned so; or as `LoadedRun.open_workload`.
    """
    workload = loaded.open_workload(dataset)
    linears = linears_of(loaded.saved.network)
    trained = [linear.weight.clone() for linear in linears]
    sizes = np.unique(loaded.tying, return_counts=True)[1]
    frequencies = workload.frequency_perplexity("test", windows)

    def result(method: str, pattern: str, sparsity: float) -> PrunedResult:
        zeros = sum(int((linear.weight == 0).sum()) for linear in linears)
        return PrunedResult(
            loaded.path,
            label,
            seed,
            len(leaders(loaded.tying)),
            len(loaded.tying),
            int(sizes.max()),
            method,
            pattern,
            sparsity,
            zeros / sum(linear.weight.numel() for linear in linears),
            workload.evaluate(loaded.model, "test", windows, device),
            frequencies,
        )

    found = [result("", "", 0.0)]
    wanda = next((pruning for pruning in prunings if pruning.method == "wanda"), None)
    norms = None if wanda is None else input_norms(loaded.model, linears, workload, wanda.examples)
    for pruning in prunings:
        told(f"{label}, seed {seed}: {pruning.method}, {pruning.pattern}, sparsity {pruning.sparsity:g}")
        prune(linears, norms if pruning.method == "wanda" else None, pruning)
        found.append(result(pruning.method, pruning.pattern, pruning.sparsity))
        with torch.no_grad():
            for linear, weight in zip(linears, trained, strict=True):
                linear.weight.copy_(weight)
    return found


_HEADINGS = (
    *("run", "label", "seed", "independent_layers", "layers", "largest_group", "method", "pattern", "sparsity"),
    *("zeros", "test_perplexity", "test_bits_per_byte", "test_accuracy", "test_perplexity_of_frequencies"),
)


def as_csv(results: Sequence[PrunedResult]) -> str:
    """Return a row for each result, with headings."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_HEADINGS)
    for each in results:
        known = (each.test.perplexity, each.test.bits_per_byte, each.test.accuracy, each.frequencies)
        about = (each.run, each.label, each.seed, each.independent, each.layers, each.largest)
        row = (*about, each.method, each.pattern, f"{each.sparsity:g}", f"{each.zeros:.6g}")
        table.writerow([*row, *("" if value is None else f"{value:.6g}" for value in known)])
    return text.getvalue()


def as_markdown(results: Sequence[PrunedResult]) -> str:
    """Return a row for each arm, way and sparsity: means over seeds, and by how much they rose."""
    lines = [
        "| arm | independent layers | method | pattern | sparsity | test perplexity | against unpruned | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    unpruned = {each.run: each.test.perplexity for each in results if not each.method}
    for key in dict.fromkeys((each.label, each.method, each.pattern, each.sparsity) for each in results):
        label, method, pattern, sparsity = key
        own = [each for each in results if (each.label, each.method, each.pattern, each.sparsity) == key]
        rise = float(np.mean([each.test.perplexity / unpruned[each.run] - 1 for each in own]))
        independent = float(np.mean([each.independent for each in own]))
        mean = float(np.mean([each.test.perplexity for each in own]))
        told = f"{rise:+.2%}" if method else "reference"
        cells = (label.replace("|", "\\|"), f"{independent:.3g} of {own[0].layers}", method or "–", pattern or "–")
        lines.append(f"| {' | '.join((*cells, f'{sparsity:g}', f'{mean:.3f}', told, str(len(own))))} |")
    if known := sorted({each.frequencies for each in results if each.frequencies is not None}):
        lines += ["", "Token frequencies alone: " + ", ".join(f"{value:.2f}" for value in known) + "."]
    return "\n".join(lines) + "\n"


def draw_pruned(results: Sequence[PrunedResult]) -> Figure:
    """Draw test perplexity against sparsity: a line through the means of each arm and method, a point for each run."""
    figure, axes = new_axes("Pruned after training", "share of the blocks' weights that are 0", "test perplexity")
    unpruned = [each for each in results if not each.method]
    arms = list(dict.fromkeys(each.arm for each in results if each.method))
    for arm, style in arm_styles(arms).items():
        own = [each for each in results if each.method and each.arm == arm]
        own += [each for each in unpruned if each.run in {other.run for other in own}]
        places = sorted({each.sparsity for each in own})
        means = [float(np.mean([each.test.perplexity for each in own if each.sparsity == at])) for at in places]
        axes.plot(places, means, style.line, color=style.colour, lw=1.4, label=as_label(arm))
        axes.plot([e.sparsity for e in own], [e.test.perplexity for e in own], style.marker, color=style.colour, ms=4)
    values = [each.test.perplexity for each in results]
    if known := [each.frequencies for each in results if each.frequencies is not None]:
        axes.axhline(known[0], color="black", lw=1, ls=":", label="token frequencies alone")
        values += known
    fit_log_axis(axes, values)
    axes.grid(axis="y", alpha=0.25)
    legend_right(figure)
    return figure


def ways(sparsities: Sequence[float], methods: Sequence[Method], pattern: str, examples: int) -> list[Pruning]:
    """Return every way to prune: each method at each sparsity, each once.

    Raises:
        ValueError: one is wrong, or none is given.
    """
    if not sparsities or not methods:
        raise ValueError("sparsity and method need at least one value each")
    found = [Pruning(sparsity, method, pattern, examples) for method in methods for sparsity in sparsities]  # type: ignore[arg-type]
    return list(dict.fromkeys(found))
