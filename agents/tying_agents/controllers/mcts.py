"""Monte-Carlo tree search over the entries of an action, one index at a time (the paper's future work, Sec. 5).

A node is the groups of the first units, an edge the group of the next one. As in AlphaZero (Silver et al., 2017, arXiv
1712.01815) a simulation goes down by PUCT: the value so far, and a bonus for a high prior and few visits; values are
scaled to [0, 1] by the lowest and the highest that were seen (Schrittwieser et al., 2020, arXiv 1911.08265). There is
no value network: a leaf is a whole tying, and its value is minus the log-perplexity of a short trial. The prior favours
what is in force, for a move of every unit at once is never good.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tying_agents.controllers.patient import PatientSearch
from tying_agents.settings import TreeConfig
from tying_env import partition
from tying_env.partition import IntVector


@dataclass
class _Node:
    """The groups of the units so far."""

    choices: list[int]  # groups of the next unit, by their lowest units; itself last, if there may be another group
    prior: list[float]
    visits: list[int] = field(init=False)
    totals: list[float] = field(init=False)  # of values
    below: dict[int, "_Node"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.visits, self.totals = [0] * len(self.choices), [0.0] * len(self.choices)

    @property
    def most_visited(self) -> int:
        """The edge that was gone most often; of those the one with the highest values."""
        return max(range(len(self.choices)), key=lambda i: (self.visits[i], self.totals[i]))


class MonteCarloTreeSearch(PatientSearch[TreeConfig]):
    """Search whole tyings in a tree of their entries; take the one on the path with the most visits."""

    Settings = TreeConfig

    @property
    def trials(self) -> int:
        """Different tyings that are tried for a decision."""
        return self.config.simulations

    def _choose(self, observation: IntVector) -> IntVector:
        return _Tree(self, observation).search(self._bound(), self.config.simulations)


class _Tree:
    """The tree of one decision.

    Args:
        search: whose settings, trials and kinds it takes.
        observation: the action whose tying is in force, shape (L,).
    """

    def __init__(self, search: MonteCarloTreeSearch, observation: IntVector) -> None:
        self.of, self.observation = search, observation
        # Kind by kind, each from its second unit on: the first of a kind has no choice.
        self.order = [(kind, i) for kind, units in enumerate(search.kinds.members) for i in range(1, len(units))]
        self.values: dict[tuple[int, ...], float] = {}  # of tyings that were tried
        self.root = self._node(())

    def search(self, env: Any, simulations: int) -> IntVector:
        """Try so many tyings, and return the action that was gone to most often, shape (L,)."""
        visits = 0
        # A tying that is come to again costs nothing, so there may be many more visits than trials; not without end.
        while len(self.values) < simulations and visits < 10 * simulations:
            self._simulate(env)
            visits += 1
        path: tuple[int, ...] = ()
        node: _Node | None = self.root
        while node is not None and node.choices:
            best = node.most_visited
            path, node = (*path, node.choices[best]), node.below.get(best)
        return self._action(self._whole(path))

    def _simulate(self, env: Any) -> None:
        """Go down to a whole tying, try it if it was not tried yet, and tell all nodes on the way what it is worth."""
        path: tuple[int, ...] = ()
        way: list[tuple[_Node, int]] = []
        node = self.root
        while len(path) < len(self.order):
            chosen = self._best_edge(node)
            way.append((node, chosen))
            path = (*path, node.choices[chosen])
            if chosen not in node.below:
                node.below[chosen] = self._node(path)
                path = self._whole(path)  # a leaf of the tree: the units after it stay as they are
                break
            node = node.below[chosen]
        value = self._value(env, path)
        for node, chosen in way:
            node.visits[chosen] += 1
            node.totals[chosen] += value

    def _best_edge(self, node: _Node) -> int:
        """Return the edge with the highest upper confidence bound."""
        n, config = sum(node.visits), self.of.config
        mean = sum(node.totals) / n if n else 0.0
        scores = []
        for visits, total, prior in zip(node.visits, node.totals, node.prior, strict=True):
            value = self._scaled(total / visits if visits else mean)
            scores.append(value + config.exploration * prior * math.sqrt(n + 1) / (1 + visits))
        return int(np.argmax(scores))

    def _scaled(self, value: float) -> float:
        known = [each for each in self.values.values() if math.isfinite(each)]
        if not known or max(known) == min(known):
            return 0.0
        return min(1.0, max(0.0, (value - min(known)) / (max(known) - min(known))))

    def _value(self, env: Any, path: tuple[int, ...]) -> float:
        """Return minus the log-perplexity that a whole tying leads to; minus infinity if it diverged."""
        if path not in self.values:
            self.values[path] = -self.of.losses(env, [self._action(path)])[0]
            if self.of.config.blind:
                self.values[path] = self.of.one_of(list(self.values.values()))
        return self.values[path]

    def _node(self, path: tuple[int, ...]) -> _Node:
        """Return the node after these entries; without choices where a tying is whole."""
        if len(path) == len(self.order):
            return _Node([], [])
        choices, kept = self._choices(path), self._whole(path)[len(path)]
        # As AlphaZero's noise at the root, but at every node: else the few trials would all move the first units.
        weights = self.of.noise(len(choices)) * (1 - self.of.config.keep) / max(1, len(choices) - 1)
        weights[choices.index(kept)] = self.of.config.keep
        return _Node(choices, (weights / weights.sum()).tolist())

    def _choices(self, path: tuple[int, ...]) -> list[int]:
        """Return the groups that the next unit can be of, by their lowest units, counted within its kind."""
        kind, unit = self.order[len(path)]
        found = partition.leaders(self._before(path))
        return [*found, unit] if len(found) < self.of.most[kind] else found

    def _before(self, path: tuple[int, ...]) -> IntVector:
        """Return the entries of the units before the next one, of its kind."""
        _, unit = self.order[len(path)]
        return np.array([0, *path[len(path) - unit + 1 :]], dtype=np.int64)

    def _whole(self, path: tuple[int, ...]) -> tuple[int, ...]:
        """Return these entries and after them those that leave units together which are together in force."""
        while len(path) < len(self.order):
            kind, unit = self.order[len(path)]
            in_force = self.observation[self.of.kinds.members[kind]]
            before, choices = self._before(path), self._choices(path)
            together = [int(before[i]) for i in range(unit) if in_force[i] == in_force[unit]]
            path = (*path, together[0] if together else choices[-1])
        return path

    def _action(self, path: tuple[int, ...]) -> IntVector:
        """Return the action of a whole path, shape (L,)."""
        action = np.zeros(self.of.kinds.n_units, dtype=np.int64)
        for (kind, unit), group in zip(self.order, path, strict=True):
            action[self.of.kinds.members[kind][unit]] = group
        return action
