"""Simple rules of which tying is better, and for any L the best tying by each: a controller that does not learn.

A rule gives every tying a score, the higher the better. docs/results/tying_table.md has how far each explains the order
of the tying table.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tying_agents.controllers.base import Context, Controller
from tying_agents.controllers.fixed import FixedController
from tying_agents.controllers.patterns import chance_groups, contiguous, in_each_kind, periodic
from tying_agents.settings import PriorConfig, PriorRule
from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.partition import IntVector

# What n layers with the same weights are worth, in layers with their own: n to this power (arXiv 2604.21106).
SHARING_EXPONENT = 0.46


def groups(tying: IntVector) -> float:
    """Return the number of groups, which is what parameters count."""
    return float(len(partition.leaders(tying)))


def effective_size(tying: IntVector) -> float:
    """Return the sum over groups of their size to the power 0.46 (arXiv 2604.21106)."""
    # Rounded, so that tyings with groups of the same sizes are equal in whatever order they are added up.
    sizes = map(len, partition.groups(tying).values())
    return round(sum(math.pow(size, SHARING_EXPONENT) for size in sizes), 9)


def own_first(tying: IntVector) -> float:
    """Return 1 if the first layer shares with no other, else 0."""
    return float(np.count_nonzero(tying == 0) == 1)


def own_last(tying: IntVector) -> float:
    """Return 1 if the last layer shares with no other, else 0."""
    return float(tying[-1] == len(tying) - 1)


def own_ends(tying: IntVector) -> float:
    """Return how many of the first and the last layer share with no other."""
    return own_first(tying) + own_last(tying) if len(tying) > 1 else own_first(tying)


def contiguity(tying: IntVector) -> float:
    """Return the share of followers that copy the layer before them; 1 if there is no follower."""
    followers = len(tying) - groups(tying)
    return float(np.count_nonzero(tying[1:] == tying[:-1]) / followers) if followers else 1.0


def periodicity(tying: IntVector) -> float:
    """Return the share of followers that copy the layer as far back as there are groups; 1 if there is no follower."""
    period = int(groups(tying))
    followers = len(tying) - period
    return float(np.count_nonzero(tying[period:] == tying[:-period]) / followers) if followers else 1.0


def tied_pairs(pattern: Callable[[int], IntVector]) -> Callable[[IntVector], float]:
    """Return a score: the share of the pairs of layers which a pattern ties that a tying ties as well."""

    def score(tying: IntVector) -> float:
        of = pattern(len(tying))
        followers = np.flatnonzero(of != np.arange(len(of)))
        return float(np.mean(tying[followers] == tying[of[followers]]))

    return score


def in_order(*scores: Callable[[IntVector], float]) -> Callable[[IntVector], tuple[float, ...]]:
    """Return a score in which each counts only among tyings that are equal by those before it."""
    return lambda tying: tuple(each(tying) for each in scores)


@dataclass(frozen=True)
class Prior:
    """A rule that says for any L which tying is best.

    Attributes:
        score: of a tying; more groups are always better.
        best: (L, groups) -> the tying with the highest score of those with at most so many groups.
    """

    score: Callable[[IntVector], tuple[float, ...]]
    best: Callable[[int, int], IntVector]


def _ends(first: int, last: int) -> Callable[[int, int], IntVector]:
    """Return a maker of tyings whose first or last layer is alone, as far as groups go round; else equal runs."""

    def best(n_units: int, n_groups: int) -> IntVector:
        before = min(first, n_groups - 1)
        after = min(last, n_groups - 1 - before)
        trunk = contiguous(n_units - before - after, max(1, n_groups - before - after)) + before
        return np.concatenate([np.arange(before), trunk, np.arange(n_units - after, n_units)])

    return best


PRIORS: dict[PriorRule, Prior] = {
    "own-ends": Prior(in_order(groups, own_ends, contiguity, effective_size), _ends(1, 1)),
    "own-first": Prior(in_order(groups, own_first, contiguity, effective_size), _ends(1, 0)),
    "own-last": Prior(in_order(groups, own_last, contiguity, effective_size), _ends(0, 1)),
    "contiguous": Prior(in_order(groups, contiguity, effective_size), contiguous),
    "periodic": Prior(in_order(groups, periodicity), periodic),
}


def best_by(rule: Prior, kinds: Kinds, groups: int) -> IntVector:
    """Return the action in which each kind has the best tying by a rule, shape (L,).

    Args:
        rule: the rule.
        kinds: of the units.
        groups: of each kind; 0 for as many as chance gives.
    """
    return in_each_kind(kinds, groups, lambda n, g: rule.best(n, g or chance_groups(n)))


class FittingPrior(Controller):
    """The best tying by a rule with as many groups as a number of parameters allows; it never changes.

    Args:
        settings: with `max_parameters`.
        kinds: of the units.
    """

    needs = frozenset({"sizes"})

    def __init__(self, settings: PriorConfig, kinds: Kinds) -> None:
        self._settings, self._kinds = settings, kinds
        self._action: IntVector | None = None

    def initial_tying(self) -> IntVector:
        """Return all layers independent: nothing is trained before the first decision, which is on the tying found."""
        return self._kinds.position.copy()

    def bind(self, env: Any) -> None:
        """Find the tying in an environment, which knows the sizes.

        Raises:
            ValueError: even one group has more parameters.
        """
        rule, most = PRIORS[self._settings.rule], self._settings.max_parameters

        def size(groups: int) -> int:
            found: int = env.parameters_of(self._kinds.units_named(best_by(rule, self._kinds, groups)))
            return found

        # More groups are more parameters; a large network takes long to count, so no more are tried than are needed.
        groups = bisect.bisect_right(range(1, max(self._kinds.sizes) + 1), most, key=size)
        if not groups:
            another = size(2) - size(1) if max(self._kinds.sizes) > 1 else 0
            beside = f" ({size(1) - another:,} of them are never tied)" if another else ""
            raise ValueError(f"max_parameters must be at least {size(1):,}, that of one group{beside}, got {most:,}")
        self._action = best_by(rule, self._kinds, groups)

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying."""
        assert self._action is not None  # an environment without sizes is refused
        return self._action.copy()


def make_prior(settings: PriorConfig, context: Context) -> FixedController | FittingPrior:
    """Return a controller that keeps to the best tying by a rule.

    Raises:
        ValueError: more groups than layers.
    """
    kinds, rule = context.kinds, PRIORS[settings.rule]
    if settings.max_parameters:
        return FittingPrior(settings, kinds)
    largest = max(len(units) for units in kinds.members)
    if settings.groups > largest:
        raise ValueError(f"groups must be between 1 and the number of layers {largest}, got {settings.groups}")
    return FixedController(best_by(rule, kinds, settings.groups), kinds)
