"""Monte-Carlo tree search over the entries of an action."""

import itertools
from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.base import Context
from tying_agents.controllers.mcts import MonteCarloTreeSearch, _Tree
from tying_agents.settings import TreeConfig

from tying_env.kinds import Kinds
from tying_env.partition import all_tyings, is_tying, leaders


def search(n_units: int = 4, kinds: Kinds | None = None, **settings: Any) -> MonteCarloTreeSearch:
    made = MonteCarloTreeSearch(TreeConfig(**settings), Context(n_units, seed=0, of_kinds=kinds))
    made.bind(object())
    return made


def with_values(made: MonteCarloTreeSearch, loss: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    tried: list[tuple[int, ...]] = []

    def trial(env: Any, action: Any) -> float:
        tried.append(tuple(action.tolist()))
        return float(loss(action))

    monkeypatch.setattr(made, "_trial", trial)
    return tried


def test_the_leaves_are_the_tyings_with_few_enough_groups() -> None:
    made = search(5, groups=3)
    tree, found = _Tree(made, np.zeros(5, dtype=np.int64)), set[tuple[int, ...]]()

    def descend(path: tuple[int, ...]) -> None:
        node = tree._node(path)
        assert not node.choices or sum(node.prior) == pytest.approx(1)
        if not node.choices:
            found.add(tuple(tree._action(path).tolist()))
        for choice in node.choices:
            descend((*path, choice))

    descend(())
    assert found == {tuple(t.tolist()) for t in all_tyings(5) if len(leaders(t)) <= 3}


def test_what_is_in_force_is_tried_first_and_each_tying_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, start = search(5, groups=3, simulations=8), np.array([0, 1, 1, 0, 4])
    tried = with_values(made, lambda action: 1.0, monkeypatch)
    made._choose(start)
    assert tried[0] == tuple(start.tolist())
    assert len(tried) == len(set(tried)) == 8
    assert all(is_tying(t) and len(leaders(t)) <= 3 for t in tried)


def test_it_goes_to_what_is_better_and_stays_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    start = np.array([0, 0, 0, 0])
    # What costs is that layer 0 shares: the fewer share with it the better, and all apart from it is best.
    made = search(4, groups=2, simulations=8)
    with_values(made, lambda action: np.count_nonzero(action == 0), monkeypatch)
    chosen = start
    for _ in range(3):
        chosen = made._choose(chosen)
    assert chosen.tolist() == [0, 1, 1, 1]
    with_values(made, lambda action: float((action != chosen).any()), monkeypatch)
    assert made._choose(chosen).tolist() == chosen.tolist()


def test_kinds_are_searched_each_within_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = Kinds([0, 1, 0, 1, 0])
    made = search(5, kinds, groups=2, simulations=20, exploration=9.0, keep=0.3)
    tried = with_values(made, lambda action: action.sum(), monkeypatch)
    made._choose(np.array([0, 0, 0, 0, 0]))
    expected = {
        (a[0], b[0], a[1], b[1], a[2])
        for a, b in itertools.product([(0, 0, 0), (0, 0, 2), (0, 1, 0), (0, 1, 1)], [(0, 0), (0, 1)])
    }
    # Nearly all there are; it ends although 20 were asked for.
    assert set(tried) <= expected and 7 <= len(tried) <= 8


def test_a_blind_search_learns_nothing_of_where_a_value_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for blind in (False, True):
        made = search(4, groups=3, simulations=9, exploration=9.0, keep=0.3, blind=blind)
        with_values(made, lambda action: float(action.sum()), monkeypatch)
        tree = _Tree(made, np.zeros(4, dtype=np.int64))
        tree.search(None, 9)
        right = [value == -sum(path) for path, value in tree.values.items()]
        assert len(right) == 9 and all(right) != blind
        assert {-value for value in tree.values.values()} <= {float(sum(path)) for path in tree.values}
