"""Runs pruned to several sparsities: measured, as a table and as a figure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from tying_env.compression.pruning import Method, Pruning, input_norms, linears_of, prune
from tying_env.files import to_csv
from tying_env.partition import leaders
from tying_env.primary.evaluation import Evaluation
from tying_env.reports.drawing import arm_styles, as_label, fit_log_axis, legend_right, new_axes
from tying_env.reports.statistics import BOOTSTRAP_SEED, paired_difference
from tying_env.runs import LoadedRun


@dataclass(frozen=True)
class PrunedResult:
    """A network of a run, pruned and measured on the test split.

    Attributes:
        run: its directory.
        label: of its arm.
        seed: of the run.
        independent: units (blocks or sublayers) with weights of their own.
        units: all of them.
        largest: the most units that share their weights.
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
    units: int
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
    *("run", "label", "seed", "independent_units", "units", "largest_group", "method", "pattern", "sparsity"),
    *("zeros", "test_perplexity", "test_bits_per_byte", "test_accuracy", "test_perplexity_of_frequencies"),
)


def as_csv(results: Sequence[PrunedResult]) -> str:
    """Return a row for each result, with headings."""
    rows = []
    for each in results:
        known = (each.test.perplexity, each.test.bits_per_byte, each.test.accuracy, each.frequencies)
        about = (each.run, each.label, each.seed, each.independent, each.units, each.largest)
        rows.append((*about, each.method, each.pattern, each.sparsity, each.zeros, *known))
    return to_csv(_HEADINGS, rows)


def as_markdown(results: Sequence[PrunedResult]) -> str:
    """Return a row for each arm, way and sparsity: means over seeds, by how much they rose, and against the reference.

    Sparsity is what was asked for, zeros the share of the blocks' weights that are. The reference is the arm with the
    smallest groups: rises minus its rises, in percentage points, seed by seed.
    """
    arms = list(dict.fromkeys(each.label for each in results))
    reference = min(arms, key=lambda arm: _mean(each.largest for each in results if each.label == arm))
    against = f"against {_cell(reference)}, points [95%]"
    lines = [
        "| arm | independent | largest group | method | pattern | sparsity | zeros | test perplexity "
        f"| against unpruned | {against} | seeds |",
        f"|{' --- |' * 11}",
    ]
    rises = rises_of(results)
    for key in dict.fromkeys((each.label, each.method, each.pattern, each.sparsity) for each in results):
        label, method, pattern, sparsity = key
        own = [each for each in results if (each.label, each.method, each.pattern, each.sparsity) == key]
        cells = (
            *(_cell(label), f"{_mean(each.independent for each in own):.3g} of {own[0].units}"),
            *(f"{_mean(each.largest for each in own):.3g}", method or "–", pattern or "–", f"{sparsity:g}"),
            *(f"{_mean(each.zeros for each in own):.3g}", f"{_mean(each.test.perplexity for each in own):.3f}"),
            *(f"{_mean(rises[key].values()):+.2f}%" if method else "reference",),
            *("–" if not method or label == reference else _against(rises[key], rises.get((reference, *key[1:]), {})),),
            *(str(len({each.seed for each in own})),),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if known := sorted({each.frequencies for each in results if each.frequencies is not None}):
        lines += ["", "Token frequencies alone: " + ", ".join(f"{value:.2f}" for value in known) + "."]
    return "\n".join(lines) + "\n"


def rises_of(results: Sequence[PrunedResult]) -> dict[tuple[str, str, str, float], dict[int, float]]:
    """Return by how many percent the perplexity rose: (label, method, pattern, sparsity) -> seed -> mean."""
    unpruned = {each.run: each.test.perplexity for each in results if not each.method}
    found: dict[tuple[str, str, str, float], dict[int, list[float]]] = {}
    for each in results:
        seeds = found.setdefault((each.label, each.method, each.pattern, each.sparsity), {})
        seeds.setdefault(each.seed, []).append(100 * (each.test.perplexity / unpruned[each.run] - 1))
    return {key: {seed: _mean(rises) for seed, rises in seeds.items()} for key, seeds in found.items()}


def _against(rises: dict[int, float], reference: dict[int, float]) -> str:
    """Return the mean of paired differences with its interval, where there can be one."""
    if not rises.keys() & reference.keys():
        return "no seed in common"
    found = paired_difference(rises, reference, np.random.default_rng(BOOTSTRAP_SEED))
    interval = f" [{found.interval.low:+.2f}, {found.interval.high:+.2f}]" if found.interval else ""
    return f"{found.mean:+.2f}{interval}"


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def draw_pruned(results: Sequence[PrunedResult]) -> Figure:
    """Draw test perplexity against sparsity: a line through the means of each arm and method, a point for each run."""
    figure, axes = new_axes("Pruned after training", "share of the blocks' weights that are 0", "test perplexity")
    unpruned = [each for each in results if not each.method]
    arms = list(dict.fromkeys(each.arm for each in results if each.method))
    for arm, style in arm_styles(arms).items():
        own = [each for each in results if each.method and each.arm == arm]
        own += [each for each in unpruned if each.run in {other.run for other in own}]
        # The share that there is, which in small networks is less than the one asked for: whole weights of each row go.
        points = [[(each.zeros, each.test.perplexity) for each in own if each.sparsity == at] for at in _sorted(own)]
        means = [np.mean(some, axis=0) for some in points]
        axes.plot(*zip(*means, strict=True), style.line, color=style.colour, lw=1.4, label=as_label(arm))
        axes.plot([e.zeros for e in own], [e.test.perplexity for e in own], style.marker, color=style.colour, ms=4)
    values = [each.test.perplexity for each in results]
    if known := [each.frequencies for each in results if each.frequencies is not None]:
        axes.axhline(known[0], color="black", lw=1, ls=":", label="token frequencies alone")
        values += known
    fit_log_axis(axes, values)
    axes.grid(axis="y", alpha=0.25)
    legend_right(figure)
    return figure


def _sorted(results: Sequence[PrunedResult]) -> list[float]:
    return sorted({each.sparsity for each in results})


def draw_by_group(results: Sequence[PrunedResult]) -> Figure | None:
    """Draw what pruning costs against how many units share a weight: a line for each method, a point for each run.

    At the sparsity nearest to a half; None where all networks have groups of one size.
    """
    if len({each.largest for each in results}) < 2:
        return None
    unpruned = {each.run: each.test.perplexity for each in results if not each.method}
    pruned = [each for each in results if each.method]
    sparsity = min({each.sparsity for each in pruned}, key=lambda at: (abs(at - 0.5), at))
    title = f"Pruned after training, {sparsity:g} of the blocks' weights"
    y = "rise of the test perplexity (percent)"
    figure, axes = new_axes(title, "blocks (or sublayers) that share a weight (largest group)", y)
    methods = list(dict.fromkeys(each.method for each in pruned))
    for number, (method, style) in enumerate(arm_styles(methods).items()):
        own = [each for each in pruned if each.method == method and each.sparsity == sparsity]
        rises: dict[int, list[float]] = {}
        for each in own:
            rises.setdefault(each.largest, []).append(100 * (each.test.perplexity / unpruned[each.run] - 1))
        sizes = sorted(rises)
        axes.plot(sizes, [_mean(rises[size]) for size in sizes], style.line, color=style.colour, lw=1.4, label=method)
        aside = 1.02 ** (number - (len(methods) - 1) / 2)  # so that methods do not hide each other
        x, y_values = zip(*((size * aside, rise) for size in sizes for rise in rises[size]), strict=True)
        axes.plot(x, y_values, style.marker, color=style.colour, ms=4, alpha=0.6, mew=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({each.largest for each in pruned}))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.axhline(0, color="black", lw=1, ls=":")
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
