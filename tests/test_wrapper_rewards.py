"""Wrappers of rewards: each gives what it says, from the rewards below it."""

import copy
import math
from typing import Any

import numpy as np
import pytest

from tests.conftest import Make
from tests.rewards import Rewards, rewards_of
from tying_env.env import LayerTyingEnv
from tying_env.primary.evaluation import MAX_MEAN_LOSS, mean_loss
from tying_env.wrappers import (
    ClippedReward,
    ImprovementReward,
    LogPerplexityReward,
    ParameterPenaltyReward,
    ProbeBatchReward,
    ShuffledReward,
)


def test_log_perplexity_is_bounded_as_the_environments_reward_is() -> None:
    env = LogPerplexityReward(Rewards([-math.e, -math.exp(MAX_MEAN_LOSS), -1.0]))
    assert rewards_of(env, 3) == pytest.approx([-1.0, -MAX_MEAN_LOSS, 0.0])
    for reward in (0.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="needs minus a perplexity below it, got the reward"):
            rewards_of(LogPerplexityReward(Rewards([reward])), 1)


def test_improvement_is_the_difference_to_the_decision_before_and_starts_anew() -> None:
    env = ImprovementReward(Rewards([-9.0, -5.0, -6.0]))
    assert rewards_of(env, 3) == [0.0, 4.0, -1.0]
    with pytest.raises(ValueError, match="no options"):
        env.reset(options={"x": 1})
    assert env.state_dict() == {"last": -6.0}  # a refused reset is none
    assert rewards_of(env, 2) == [0.0, 4.0]


def test_clipping_takes_the_published_bounds_by_default() -> None:
    assert rewards_of(ClippedReward(Rewards([-50.0, -3.0, 50.0])), 3) == [-10.0, -3.0, 10.0]
    assert rewards_of(ClippedReward(Rewards([-50.0, -3.0]), low=-1, high=0), 2) == [-1.0, -1.0]


def test_the_probe_is_the_same_batch_in_every_step_episode_and_seed(make: Make) -> None:
    env = ProbeBatchReward(make(), windows=3)
    base = env.unwrapped
    assert isinstance(base, LayerTyingEnv)
    windows = base.windows("train", 3).copy()
    for seed in (0, 1):
        env.reset(seed=seed)
        for _ in range(2):
            reward = env.step(np.array([0, 1, 1, 3]))[1]
            trainer = base.trainer
            loss = mean_loss(trainer.network.model, trainer.task, windows, 2, base.device)
            assert reward == pytest.approx(-math.exp(loss), rel=1e-5)


@pytest.mark.parametrize("where", ["loss", "weights"])
def test_the_probe_gives_the_environments_reward_when_training_diverged(make: Make, where: str) -> None:
    env = ProbeBatchReward(make(learning_rate=1e30 if where == "weights" else 1e-3))
    env.reset(seed=0)
    if where == "loss":  # the weights stay good: only the flag tells
        base = env.unwrapped
        assert isinstance(base, LayerTyingEnv)
        task, plain = base.trainer.task, base.trainer.task.loss
        task.loss = lambda model, batch: plain(model, batch) * (math.nan if model.training else 1.0)  # type: ignore[method-assign]
    _, reward, terminated, *_ = env.step(np.array([0, 1, 2, 3]))
    assert terminated
    assert reward == -math.exp(MAX_MEAN_LOSS)


def test_the_penalty_is_the_share_of_parameters_that_train(make: Make) -> None:
    env = ParameterPenaltyReward(make(), weight=100.0)
    env.reset(seed=0)
    penalties = []
    for action in ([0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 2, 3]):
        _, reward, _, _, info = env.step(np.array(action))
        penalties.append(-info["perplexity"] - float(reward))
    assert penalties[2] == pytest.approx(100.0)
    # one block more is as much more, from 1 over 3 to 4 independent layers
    assert penalties[1] - penalties[0] == pytest.approx(2 * (penalties[2] - penalties[1]))
    assert 0 < penalties[0] < penalties[1]


def test_shuffled_rewards_are_earlier_ones_and_never_the_steps_own() -> None:
    real = [-float(n) for n in range(1, 201)]
    got = rewards_of(ShuffledReward(Rewards(real)), 200, seed=0)
    assert got[:2] == [-1.0, -1.0]
    assert all(reward in real[:i] for i, reward in enumerate(got) if i)
    near = rewards_of(ShuffledReward(Rewards(real), window=5), 200, seed=0)
    assert all(reward in real[max(0, i - 5) : i] for i, reward in enumerate(near) if i)
    assert len(set(near)) > 100
    assert np.mean(near) == pytest.approx(np.mean(real), abs=5)  # the level of the real ones


def test_shuffled_rewards_do_not_depend_on_the_action(make: Make) -> None:
    ends = []
    for last in ([0, 0, 0, 0], [0, 1, 2, 3]):
        env = ShuffledReward(make())
        env.reset(seed=0)
        for action in ([0, 1, 1, 3], [0, 0, 2, 0]):
            env.step(np.array(action))
        ends.append(env.step(np.array(last)))
    assert ends[0][1] == ends[1][1]
    assert ends[0][4]["perplexity"] != ends[1][4]["perplexity"]


def test_a_seeded_reset_restarts_the_draws_and_each_shuffle_has_its_own() -> None:
    real = [-float(n) for n in range(50)]
    env = ShuffledReward(Rewards(real))
    first, following = rewards_of(env, 50, seed=4), rewards_of(env, 50)
    assert first != following
    assert rewards_of(env, 50, seed=4) == first
    assert rewards_of(env, 50) == following
    assert rewards_of(env, 50, seed=5) != first
    assert rewards_of(ShuffledReward(Rewards(real), seed=1), 50, seed=4) != first


def test_the_state_of_a_shuffle_is_a_copy_and_a_wrong_one_is_refused() -> None:
    env = ShuffledReward(Rewards([-1.0, -2.0, -3.0]))
    rewards_of(env, 2, seed=0)
    state = env.state_dict()
    before = copy.deepcopy(state)
    env.step(0)
    assert state == before
    now = env.state_dict()
    for wrong in ({"seen": [math.nan], "rng": state["rng"]}, {"seen": [], "rng": {"bit_generator": "other"}}):
        with pytest.raises(ValueError, match=r"a reward seen must be|not the state"):
            env.load_state_dict(wrong)
    assert env.state_dict() == now


@pytest.mark.parametrize(
    ("wrapper", "settings", "message"),
    [
        (ClippedReward, {"low": 1, "high": 1}, "low must be below high, got low=1 and high=1"),
        (ClippedReward, {"low": -math.inf}, "low must be a finite number, got -inf"),
        (ParameterPenaltyReward, {"weight": -1}, "weight must be at least 0, got -1"),
        (ParameterPenaltyReward, {"weight": "1"}, "weight must be a finite number, got '1'"),
        (ProbeBatchReward, {"windows": 0}, "windows must be a whole number of at least 1, got 0"),
        (ShuffledReward, {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (ShuffledReward, {"window": 0}, "window must be a whole number of at least 1, got 0"),
    ],
)
def test_a_bad_setting_is_refused_by_name(make: Make, wrapper: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrapper(make(), **settings)
