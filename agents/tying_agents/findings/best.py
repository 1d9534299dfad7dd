"""The best tying at each number of groups, what it is better than, and at which learning rates tyings are best."""

from dataclasses import dataclass

import numpy as np

from tying_agents.controllers.patterns import contiguous
from tying_agents.controllers.rules import PRIORS
from tying_agents.findings.losses import Floats, Ints, Losses, Mean
from tying_agents.findings.orders import tau
from tying_agents.settings import PriorRule
from tying_env import partition
from tying_env.table.file import TEST, VALIDATION, TyingTable

RULE: PriorRule = "own-first"  # the rule that costs least on sotu, and prior's default


@dataclass(frozen=True)
class BestOfGroups:
    """The best tying with so many groups, in perplexity per byte on the test split.

    Attributes:
        groups: how many.
        tyings: how many tyings have as many.
        tying: the best by its mean validation loss over all seeds.
        perplexity: what it comes to.
        to_conventional: how much worse than conventional training, seed by seed; for each seed the tying that is the
            best by the other seeds, so that no tying is judged by the noise it was chosen for. (Rates are chosen with
            all seeds.)
        to_contiguous: how much worse than runs of equal length, in the same way.
        to_mean: how much worse than the mean of all tyings with as many groups, in the same way.
        to_rule: how much worse than the tying of the rule RULE with as many groups, in the same way: what a choice
            among all tyings by all other seeds gains over two words.
    """

    groups: int
    tyings: int
    tying: Ints
    perplexity: Mean
    to_conventional: Mean
    to_contiguous: Mean
    to_mean: Mean
    to_rule: Mean


def best_by_groups(losses: Losses) -> list[BestOfGroups]:
    """Return the best tying at each number of groups, from 1 to L."""
    n_units, seeds = losses.tyings.shape[1], np.arange(len(losses.test))
    perplexity, last = np.exp(losses.test), losses.validation[:, :, -1]  # (S, T)
    rows = {tuple(tying): row for row, tying in enumerate(losses.tyings.tolist())}
    conventional = perplexity[:, rows[tuple(range(n_units))]]
    found = []
    for n_groups in range(1, n_units + 1):
        among = np.flatnonzero(losses.groups == n_groups)
        best = among[last[:, among].mean(axis=0).argmin()]
        chosen = [among[np.delete(last[:, among], seed, axis=0).mean(axis=0).argmin()] for seed in seeds]
        held_out = perplexity[seeds, chosen]  # (S,)
        runs = perplexity[:, rows[tuple(contiguous(n_units, n_groups).tolist())]]
        rule = perplexity[:, rows[tuple(PRIORS[RULE].best(n_units, n_groups).tolist())]]
        others = (conventional, runs, perplexity[:, among].mean(axis=1), rule)
        differences = (held_out - other for other in others)
        found.append(
            BestOfGroups(
                n_groups, len(among), losses.tyings[best], Mean.of(perplexity[:, best]), *map(Mean.of, differences)
            )
        )
    return found


def prior_costs(losses: Losses) -> dict[str, list[float]]:
    """Return how much worse each rule's tying is than the best with as many groups: rule -> one for each number.

    In perplexity on the test split, means over seeds; the best is the lowest of these means.
    """
    n_units, perplexity = losses.tyings.shape[1], np.exp(losses.test).mean(axis=0)  # (T,)
    rows = {tuple(tying): row for row, tying in enumerate(losses.tyings.tolist())}
    best = [perplexity[losses.groups == n_groups].min() for n_groups in range(1, n_units + 1)]
    return {
        name: [
            float(perplexity[rows[tuple(prior.best(n_units, n_groups).tolist())]] - best[n_groups - 1])
            for n_groups in range(1, n_units + 1)
        ]
        for name, prior in PRIORS.items()
    }


@dataclass(frozen=True)
class BestRates:
    """At which learning rates tyings are best, by validation.

    Attributes:
        rates: ascending. # (R,)
        by_groups: tyings that are best at each rate, a row for each number of groups. # (L, R)
        by_largest: the same, a row for each size of the largest group. # (L, R)
        common_cost: test perplexity with one rate for all tyings, minus each at its best, mean over tyings. # (R,)
        with_largest: Kendall's tau of a tying's best rate with the size of its largest group.
    """

    rates: Floats
    by_groups: Ints
    by_largest: Ints
    common_cost: Floats
    with_largest: float


def best_rates(table: TyingTable, corpus: str) -> BestRates:
    """Return at which learning rates tyings are best.

    Raises:
        ValueError: the table has no such corpus, or no whole seed of it.
    """
    found = table.corpus(corpus)
    groups = np.array([len(partition.leaders(tying)) for tying in table.tyings])
    largest = np.array([max(map(len, partition.groups(tying).values())) for tying in table.tyings])
    rates, n_rates = found.best_rates, len(found.learning_rates)
    losses = found.losses[..., TEST, -1][:, found.whole_seeds]  # (R, S, T)
    perplexity = np.exp(losses).mean(axis=1)  # (R, T)

    def counts(of: Ints) -> Ints:
        return np.array([np.bincount(rates[of == n], minlength=n_rates) for n in range(1, table.n_layer + 1)])

    chosen = perplexity[rates, np.arange(len(rates))]
    cost = (perplexity - chosen).mean(axis=1)
    return BestRates(
        found.learning_rates, counts(groups), counts(largest), cost, tau(rates.astype(float), largest.astype(float))
    )


def trained(table: TyingTable, corpus: str) -> dict[str, float]:
    """Return what there is of a corpus: trainings, whole seeds, rates, CPU seconds, share that diverged."""
    found = table.corpus(corpus)
    ends = found.losses[..., VALIDATION, -1]
    there = ~np.isnan(ends)
    return {
        "trainings": int(there.sum()),
        "whole seeds": len(found.whole_seeds),
        "rates": len(found.learning_rates),
        "CPU seconds": float(np.nansum(found.seconds)),
        "diverged": float(np.isinf(ends).sum() / max(1, there.sum())),
    }
