"""The page of what the tying table says, in Markdown; every number comes from the table's file."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tying_agents.controllers.rules import own_first
from tying_agents.findings import figures
from tying_agents.findings.best import RULE, best_by_groups, best_rates, prior_costs, trained
from tying_agents.findings.effects import effects, fits
from tying_agents.findings.losses import Losses, Mean, losses_of
from tying_agents.findings.orders import (
    Agreement,
    Agreements,
    between_seeds,
    explained,
    fidelities,
    noise,
    seed_against_others,
    transfer,
)
from tying_env.files import written_whole
from tying_env.reports.cells import NOTHING
from tying_env.reports.drawing import as_png
from tying_env.reports.markdown import line
from tying_env.table.file import TyingTable

PAGE = "tying_table.md"
Rows = list[tuple[str, ...]]

_FIGURES: dict[str, tuple[Callable[[Sequence[Losses]], Figure], str]] = {
    "groups": (figures.by_groups, "Every tying, and what each rule chooses, against the number of groups."),
    "pairs": (
        figures.tied_pairs,
        "What tying two layers does to perplexity, in per cent (from the pairwise model); on the diagonal, what it "
        "does that a layer shares its weights at all (from the model of main effects). Above zero: tying costs.",
    ),
    "fidelities": (
        figures.short_trainings,
        "How well trainings of so many steps rank whole ones. Grey: what one seed's whole training tells of others.",
    ),
}


def write_findings(table: TyingTable, folder: Path, command: str) -> list[Path]:
    """Write the page and its figures into a folder; return their paths.

    Args:
        table: what it is about.
        folder: is made if it is not there.
        command: that makes the page.

    Raises:
        ValueError: a corpus has fewer than two whole seeds.
        OSError: a file cannot be written.
    """
    found = [losses_of(table, name) for name in table.corpora]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / PAGE, *(folder / f"tying_table_{name}.png" for name in _FIGURES)]
    for path, (draw, _) in zip(paths[1:], _FIGURES.values(), strict=True):
        with written_whole(path) as unfinished:
            unfinished.write_bytes(as_png(draw(found), dpi=110))
    with written_whole(paths[0]) as unfinished:
        unfinished.write_text(as_markdown(table, found, command), encoding="utf-8")
    return paths


def as_markdown(table: TyingTable, found: Sequence[Losses], command: str) -> str:
    """Return the page."""
    parts = [
        "# What the tying table says",
        "Made from the table's file by the command below, all numbers; the table itself is described in "
        "[its datasheet](../tying_table_card.md). Perplexities are per byte, on the test split, each tying at its best "
        "rate by validation. ± is half the width of a 95% interval over seeds (t, at level 98.5%). Kendall's tau says "
        "how far two orders of the tyings agree, 1 for the same and 0 for no relation; *within* goes by pairs of "
        "tyings with the same number of groups alone, so that the number of parameters explains nothing.",
        f"```\n{command}\n```",
        "## What is in it",
        *_in_it(table, found),
    ]
    for losses in found:
        parts += [f"## {losses.corpus}: the best tying at each number of groups", *_best(losses)]
    parts += [_figure("groups"), "## Which layers like to be tied", *itertools.chain(*map(_effects, found))]
    parts += [_figure("pairs"), "## The noise ceiling", *_ceiling(found)]
    parts += ["## Short trainings", *_short(found), _figure("fidelities")]
    if len(found) > 1:
        parts += ["## From one corpus to another", *_transfers(found)]
    parts += ["## Learning rates", *itertools.chain(*(_rates(table, losses) for losses in found))]
    parts += ["## Simple rules", *_rules(found)]
    return "\n\n".join(parts) + "\n"


def _in_it(table: TyingTable, found: Sequence[Losses]) -> list[str]:
    rows: Rows = [("corpus", "trainings", "whole seeds", "learning rates", "CPU hours", "diverged")]
    for losses in found:
        there = trained(table, losses.corpus)
        rates = ", ".join(f"{rate:g}" for rate in table.corpus(losses.corpus).learning_rates)
        hours = f"{there['CPU seconds'] / 3600:.1f}"
        counts = (f"{there['trainings']:,.0f}", f"{there['whole seeds']:.0f}", rates, hours)
        rows.append((losses.corpus, *counts, f"{100 * there['diverged']:.1f}%"))
    least, most = int(table.parameters.min()), int(table.parameters.max())
    text = (
        f"{len(table.tyings)} tyings of L = {table.n_layer} layers, {least:,} to {most:,} trainable parameters, losses "
        f"at {len(table.points)} points up to {int(table.points[-1])} training steps. sha256 {table.sha256}."
    )
    made = np.concatenate([table.corpus(losses.corpus).processors.ravel() for losses in found])
    names, times = np.unique(made, return_counts=True)
    said = "; ".join(f"{name or 'not noted'}: {count:,}" for name, count in zip(names, times, strict=True))
    return [text, _table(rows), f"Processors, and rows that were trained on each: {said}."]


def _best(losses: Losses) -> list[str]:
    heading = ("groups", "tyings", "best by validation", "perplexity", "to conventional")
    rows: Rows = [(*heading, "to runs of equal length", "to the mean of as many groups", f"to the rule {RULE}")]
    for best in best_by_groups(losses):
        tying = " ".join(map(str, best.tying.tolist()))
        differences = (_signed(each) for each in (best.to_conventional, best.to_contiguous, best.to_mean, best.to_rule))
        rows.append((str(best.groups), str(best.tyings), tying, _mean(best.perplexity), *differences))
    text = (
        "Differences are those of perplexities, seed by seed: below zero, the best is better. For each seed the best "
        "is the one by the validation losses of the other seeds, so no tying is judged by the noise it was chosen for "
        "(rates are chosen with all seeds). The last column is what that choice, among all tyings, each trained with "
        f"{len(losses.test) - 1} other seeds, gains over the rule {RULE}: a controller that chooses a tying and stays "
        "with it can hardly know more."
    )
    return [text, _table(rows)]


def _effects(losses: Losses) -> list[str]:
    rows: Rows = [("model of log-perplexity", "parameters", "R² out of sample", "tau out of sample")]
    for name, fit in fits(losses).items():
        rows.append((name, str(fit.parameters), f"{fit.r_squared:.3f}", f"{fit.tau:.3f}"))
    costs = effects(losses)
    alone: Rows = [("layer", *map(str, range(len(costs.share)))), ("%", *map(_signed, costs.share))]
    least, *_, most = sorted(costs.pair.items(), key=lambda item: item[1].value)
    text = (
        f"{losses.corpus}, ten-fold cross-validation over tyings. What it does to perplexity, in per cent, that a "
        "layer shares its weights (main effects):"
    )
    ends = (
        f"The pair that likes best to be tied: layers {least[0][0]} and {least[0][1]} ({_signed(least[1])} %); least: "
        f"{most[0][0]} and {most[0][1]} ({_signed(most[1])} %)."
    )
    return [_table(rows), text, _table(alone), ends]


def _ceiling(found: Sequence[Losses]) -> list[str]:
    heading = ("corpus", "tyings", "one seed and another", "within", "one seed and the mean of the others", "within")
    rows: Rows = [(*heading, "error of a mean, %", "reliability")]
    for losses in found:
        first = np.array([own_first(tying) > 0 for tying in losses.tyings])
        for name, chosen in ((losses.corpus, first | True), ("– first layer alone", first), ("– the others", ~first)):
            some = losses.among(chosen)
            error, reliability = noise(some)
            taus = (*_taus(between_seeds(some)), *_taus(seed_against_others(some)))
            rows.append((name, str(len(some.tyings)), *taus, f"{100 * error:.2f}", f"{reliability:.2f}"))
    text = (
        "Kendall's tau between seeds (pairs share seeds, so those intervals are somewhat narrow), and of one seed's "
        "validation loss with the mean test loss of the others: so well one training of each tying ranks them. Each "
        "tying's rate is the best by the mean of the same seeds, so they agree a little less than at one rate. The "
        "error is the standard error of a tying's mean over seeds, in per cent of perplexity, without what all tyings "
        "of a seed have in common; the reliability is the share of the variance of these means that is not noise, and "
        "so the highest R² that any rule can come to. Near 0, differences are those of seeds: there is nothing that a "
        "controller could find or a rule explain."
    )
    return [text, _table(rows)]


def _short(found: Sequence[Losses]) -> list[str]:
    columns = itertools.chain(
        *((f"{losses.corpus}: one seed", "within", "half of the seeds", "within") for losses in found)
    )
    rows: Rows = [("training steps", *columns)]
    for points in zip(*map(fidelities, found), strict=True):
        cells = itertools.chain(*((*_taus(point.one), *_taus(point.half)) for point in points))
        rows.append((str(points[0].steps), *cells))
    text = (
        "Kendall's tau of the validation loss after so many steps with the mean test loss of the other seeds at the "
        "end: of one seed, and of the mean over half of the seeds, rounded down (choices of them share seeds, so "
        "those intervals are somewhat narrow). The rate falls as it does in a whole training."
    )
    return [text, _table(rows)]


def _transfers(found: Sequence[Losses]) -> list[str]:
    numbers = range(1, found[0].tyings.shape[1] + 1)
    rows: Rows = [("chosen on", "tried on", "tau", "within", *map(_groups, numbers), "all tyings")]
    for one, other in itertools.permutations(found, 2):
        what = transfer(one, other)
        rows.append((one.corpus, other.corpus, *_taus(what.agreement), *(f"{cost:.3f}" for cost in what.cost)))
    text = (
        "Agreement of the mean test losses; and how much worse the best tying of the one, by validation, is on the "
        "other than the best there (the lowest mean of its own seeds, which is partly luck), by number of groups."
    )
    return [text, _table(rows)]


def _rates(table: TyingTable, losses: Losses) -> list[str]:
    found = best_rates(table, losses.corpus)
    rates = [f"{rate:g}" for rate in found.rates]
    rows: Rows = [(losses.corpus, *(f"best at {rate}" for rate in rates))]
    for of, counts in (("number of groups", found.by_groups), ("layers in the largest group", found.by_largest)):
        rows += [(f"{of}: {n}", *map(str, row)) for n, row in enumerate(counts.tolist(), 1)]
    rows.append(("one rate for all costs", *(f"{cost:+.3f}" for cost in found.common_cost)))
    text = (
        "How many tyings have their best rate where, and what one rate for all costs in perplexity. Kendall's tau of "
        f"the best rate with the size of the largest group: {found.with_largest:.2f}."
    )
    if len(rates) < 3:
        text += " With so few rates each is at an end of the grid, and the best may lie beyond."
    elif at_ends := int(found.by_groups[:, [0, -1]].sum()):
        text += (
            f" {at_ends} of {len(losses.tyings)} tyings have theirs at an end of the grid, where the best may lie "
            "beyond: their losses are those of the best rate that was tried."
        )
    return [text, _table(rows)]


def _rules(found: Sequence[Losses]) -> list[str]:
    explanations = [explained(losses) for losses in found]
    columns = itertools.chain(*((f"{losses.corpus}: tau", "within") for losses in found))
    rows: Rows = [("rule", *columns)]
    for name in explanations[0]:
        rows.append((name, *itertools.chain(*(_taus(each[name]) for each in explanations))))
    parts = [
        "Agreement of each rule's score with the order of the mean test losses; 1: the higher the score, the lower the "
        "loss. `--agent prior` has those called prior: more groups are better, and what the name says among equals.",
        _table(rows),
        "What the tying that a rule chooses costs against the best with as many groups, in perplexity; the best is the "
        "lowest mean of the same seeds, which is partly luck:",
    ]
    for losses in found:
        costs = prior_costs(losses)
        numbers = map(_groups, range(1, losses.tyings.shape[1] + 1))
        priced: Rows = [(losses.corpus, *numbers, "mean")]
        for name, values in costs.items():
            priced.append((name, *(f"{value:.3f}" for value in values), f"{sum(values) / len(values):.3f}"))
        parts.append(_table(priced))
    return parts


def _groups(number: int) -> str:
    return f"{number} group{'s' * (number > 1)}"


def _figure(name: str) -> str:
    caption = _FIGURES[name][1]
    return f"![{caption}](tying_table_{name}.png)\n\n{caption}"


def _table(rows: Rows) -> str:
    heading, *rest = rows
    return "\n".join(line(row) for row in (heading, ("---",) * len(heading), *rest))


def _mean(mean: Mean, sign: str = "") -> str:
    if math.isnan(mean.value):
        return NOTHING
    return f"{mean.value:{sign}.3f}" + ("" if math.isnan(mean.half) else f" ± {mean.half:.3f}")


def _signed(mean: Mean) -> str:
    return _mean(mean, "+")


def _taus(found: Agreement | Agreements) -> tuple[str, ...]:
    def text(value: Any) -> str:
        return _mean(value if isinstance(value, Mean) else Mean(value, math.nan))

    return text(found.overall), text(found.within)
