"""Thompson sampling over pairs of layers: what is learned, and what is chosen by it."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tying_agents.controllers.base import Context
from tying_agents.controllers.pair_costs import pair_costs
from tying_agents.controllers.thompson import PairEffects, ThompsonSampling, pairs_of, tied_pairs
from tying_agents.settings import ThompsonConfig

from tests.tables import made_up_table, written
from tying_env.kinds import Kinds


def test_pairs_are_those_of_a_kind() -> None:
    kinds = Kinds([0, 1, 0, 1, 0])
    assert pairs_of(kinds) == [(0, 2), (0, 4), (2, 4), (1, 3)]
    assert tied_pairs(np.array([0, 0, 0, 1, 2]), kinds).tolist() == [1, 0, 0, 0]


def test_beliefs_are_those_of_bayesian_linear_regression() -> None:
    """Against the posterior in closed form, from all observations at once."""
    rng = np.random.default_rng(0)
    mean, spread, noise = rng.standard_normal(5), 0.7, 0.3
    features, differences = rng.integers(-1, 2, (12, 5)).astype(float), rng.standard_normal(12)
    beliefs = PairEffects(mean, spread, noise)
    for row, difference in zip(features, differences, strict=True):
        beliefs.learn(row, difference)
    covariance = np.linalg.inv(np.eye(5) / spread**2 + features.T @ features / noise**2)
    expected = covariance @ (mean / spread**2 + features.T @ differences / noise**2)
    np.testing.assert_allclose(beliefs.mean, expected)
    drawn = np.array([beliefs.draw(rng) for _ in range(20_000)])
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.01)


@pytest.mark.parametrize("bad", [(0, 1), (2, 4)])
def test_it_finds_the_pair_that_must_not_be_tied(bad: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials with noise: one pair costs as much as the noise's deviation, the others nothing."""
    search = ThompsonSampling(ThompsonConfig(groups=2, begin="contiguous", until=1.0), Context(5, seed=0))
    search.bind(object())
    noise = np.random.default_rng(1)
    monkeypatch.setattr(
        search, "_trial", lambda env, action: 0.01 * float(action[bad[0]] == action[bad[1]]) + noise.normal(0, 0.005)
    )
    tying = np.zeros(5, dtype=np.int64)
    for _ in range(60):
        tying = search._choose(tying)
    worst = pairs_of(Kinds.alike(5))[int(np.argmax(search.effects.mean))]
    assert worst == bad
    assert tying[bad[0]] != tying[bad[1]]


def pair_table(folder: Path, costs: npt.NDArray[np.float64]) -> Path:
    """A table whose losses are sums over the pairs that are tied."""
    table = made_up_table()
    tied = np.array([tied_pairs(tying, Kinds.alike(6)) for tying in table.tyings])
    sotu = table.corpora["sotu"]
    losses = np.broadcast_to(2.0 + (tied @ costs)[:, None, None], sotu.losses.shape).copy()
    return written(folder, dataclasses.replace(table, corpora={"sotu": dataclasses.replace(sotu, losses=losses)}))


def test_it_can_start_from_what_the_table_says(tmp_path: Path) -> None:
    costs = np.random.default_rng(0).normal(0, 0.01, 15)
    path = pair_table(tmp_path, costs)
    np.testing.assert_allclose(pair_costs(6, path), costs, atol=1e-12)
    kinds = Kinds([0, 1] * 6)
    search = ThompsonSampling(ThompsonConfig(start="table", table=path), Context(12, seed=0, of_kinds=kinds))
    np.testing.assert_allclose(search.effects.mean, np.tile(costs, 2), atol=1e-12)


@pytest.mark.parametrize("n_units", [2, 3, 12, 24])
def test_costs_of_pairs_carry_over_to_other_depths(tmp_path: Path, n_units: int) -> None:
    first = np.array([1.0 if i == 0 else 0.0 for i, j in pairs_of(Kinds.alike(6))])  # tying the first layer costs
    found = pair_costs(n_units, pair_table(tmp_path, first))
    pairs = pairs_of(Kinds.alike(n_units))
    assert found[0] == max(found) and found[0] == pytest.approx(15 / len(pairs))
    assert all(cost < 1e-12 for (i, j), cost in zip(pairs, found, strict=True) if i / (n_units - 1) >= 1 / 5)
    even = pair_costs(n_units, pair_table(tmp_path, np.ones(15)))
    assert even.sum() == pytest.approx(15)  # all layers tied cost as much
