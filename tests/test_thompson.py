"""Thompson sampling over pairs of layers: what is learned, and what is chosen by it."""

import numpy as np
import pytest
from tying_agents.controllers.base import Context
from tying_agents.controllers.thompson import PairEffects, ThompsonSampling, pairs_of, tied_pairs
from tying_agents.settings import ThompsonConfig

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
