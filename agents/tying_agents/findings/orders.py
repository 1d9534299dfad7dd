"""How far one order of the tyings agrees with another: seeds, short trainings, corpora, simple rules.

Kendall's tau-b, 1 for the same order, 0 for no relation. Within groups it goes by those pairs of tyings alone that have
the same number of groups: what is left when the number of parameters explains nothing.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tying_agents.controllers import patterns, rules
from tying_agents.findings.losses import Floats, Ints, Losses, Mean


class Agreement(NamedTuple):
    """Kendall's tau over all pairs of tyings, and over those with the same number of groups."""

    overall: float
    within: float


class Agreements(NamedTuple):
    """The same, means over seeds or over pairs of seeds with 95% intervals."""

    overall: Mean
    within: Mean


def agreement(first: Floats, second: Floats, groups: Ints) -> Agreement:
    """Return how far two orders agree; NaN where one of them orders nothing. Shapes (T,)."""
    same = groups[:, None] == groups
    return Agreement(tau(first, second), tau(first, second, same))


def tau(first: Floats, second: Floats, among: Any = True) -> float:
    """Return Kendall's tau-b of two vectors, shape (T,), over the pairs for which `among`, shape (T, T), is true."""
    pairs = np.triu(np.broadcast_to(among, (len(first), len(first))), 1)
    a, b = (np.sign(values[:, None] - values)[pairs] for values in (first, second))
    untied = np.sqrt(np.count_nonzero(a) * np.count_nonzero(b))
    return float((a * b).sum() / untied) if untied else float("nan")


def between_seeds(losses: Losses) -> Agreements:
    """Return how well one seed ranks another, on the test split, over all pairs of seeds.

    The pairs share seeds, so the intervals are somewhat too narrow.
    """
    pairs = itertools.combinations(range(len(losses.test)), 2)
    return _means([agreement(losses.test[a], losses.test[b], losses.groups) for a, b in pairs])


def seed_against_others(losses: Losses) -> Agreements:
    """Return how well one seed ranks the mean of the other seeds: what a single training can tell at most."""
    return _at_point(losses, -1)


class Noise(NamedTuple):
    """How far the tyings' means over seeds, of the test loss at the end, are noise.

    Attributes:
        error: the standard error of a tying's mean against another's, in nats: what all tyings of a seed have in common
            is taken out first.
        reliability: the share of the variance of the means that is not noise; below 0 where there is less variance than
            the noise alone would make.
    """

    error: float
    reliability: float


def noise(losses: Losses) -> Noise:
    """Return how far the means over seeds are noise, by the residuals of seeds and tyings as two additive effects."""
    seeds, tyings = losses.test.shape
    means = losses.test.mean(axis=0)
    left = losses.test - means - losses.test.mean(axis=1, keepdims=True) + losses.test.mean()
    variance = (left**2).sum() / ((seeds - 1) * (tyings - 1)) / seeds
    spread = means.var(ddof=1)
    return Noise(float(np.sqrt(variance)), float(1 - variance / spread) if spread else math.nan)


@dataclass(frozen=True)
class Fidelity:
    """How well trainings of so many steps rank whole ones of other seeds.

    Attributes:
        steps: of the short training.
        one: by one seed's validation loss, against the mean test loss of the other seeds at the end.
        half: by the mean validation loss of half of the seeds, rounded down, against that of the others at the end.
    """

    steps: int
    one: Agreements
    half: Agreements


def fidelities(losses: Losses) -> list[Fidelity]:
    """Return how well each point of the curve ranks the end."""
    size = len(losses.test) // 2
    return [
        Fidelity(int(steps), _at_point(losses, place), _at_point(losses, place, size))
        for place, steps in enumerate(losses.points)
    ]


@dataclass(frozen=True)
class Transfer:
    """What one corpus says of another.

    Attributes:
        agreement: of the means over seeds, on the test split.
        cost: perplexity on the other corpus's test split of the best tying by the one's validation, minus the best
            there is; means over seeds. One for each number of groups, and for all tyings together.
    """

    agreement: Agreement
    cost: tuple[float, ...]


def transfer(one: Losses, other: Losses) -> Transfer:
    """Return whether the ranking on one corpus holds on the other."""
    chosen_by = one.validation[:, :, -1].mean(axis=0)
    true = np.exp(other.test).mean(axis=0)
    sets = [one.groups == n for n in range(1, one.tyings.shape[1] + 1)] + [one.groups > 0]
    cost = tuple(float(true[among][chosen_by[among].argmin()] - true[among].min()) for among in sets)
    return Transfer(agreement(one.test.mean(axis=0), other.test.mean(axis=0), one.groups), cost)


# What might explain the order, the higher the better.
RULES: dict[str, Callable[[Ints], Any]] = {
    "number of groups (parameters)": rules.groups,
    "sum of group size^0.46": rules.effective_size,
    "own first layer": rules.own_first,
    "own last layer": rules.own_last,
    "own first and last layer": rules.own_ends,
    "contiguity": rules.contiguity,
    "periodicity": rules.periodicity,
    "cycle: pairs i, i + L/2 tied": rules.tied_pairs(patterns.cycle),
    "cycle-rev: pairs i, L - 1 - i tied": rules.tied_pairs(patterns.cycle_rev),
    "sequence: neighbours in pairs tied": rules.tied_pairs(patterns.sequence),
    **{f"prior, {name}": prior.score for name, prior in rules.PRIORS.items()},
}


def explained(losses: Losses) -> dict[str, Agreement]:
    """Return how far each rule explains the order of the mean test losses; 1: the higher its score, the better."""
    better = -losses.test.mean(axis=0)
    return {name: agreement(scored(rule, losses.tyings), better, losses.groups) for name, rule in RULES.items()}


def scored(rule: Callable[[Ints], Any], tyings: Ints) -> Floats:
    """Return the ranks of a rule's scores, equal for equal scores, shape (T,)."""
    scores = [rule(tying) for tying in tyings]
    place = {score: float(rank) for rank, score in enumerate(sorted(set(scores)))}
    return np.array([place[score] for score in scores])


def _at_point(losses: Losses, place: int, size: int = 1) -> Agreements:
    """Return how well so many seeds rank the others, over all choices of them, which share seeds."""
    found = []
    for chosen in map(list, itertools.combinations(range(len(losses.test)), size)):
        shown = losses.validation[chosen, :, place].mean(axis=0)
        others = np.delete(losses.test, chosen, axis=0).mean(axis=0)
        found.append(agreement(shown, others, losses.groups))
    return _means(found)


def _means(found: Sequence[Agreement]) -> Agreements:
    overall, within = zip(*found, strict=True)
    return Agreements(Mean.of(overall), Mean.of(within))
