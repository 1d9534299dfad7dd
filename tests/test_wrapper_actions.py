"""Wrappers of actions: one layer at a time, of the agent's choice or in turn."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN

from tests.conftest import Make
from tying_env import partition
from tying_env.wrappers import (
    LayerSweepAction,
    SingleLayerAction,
    wrap,
)

ALL_INDEPENDENT = {"tying": [0, 1, 2, 3]}


def test_indices_and_pairs_are_each_others_inverse(make: Make) -> None:
    env = SingleLayerAction(make())
    pairs = [env.pair(index) for index in range(9)]
    assert pairs == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (3, 3)]
    assert [env.index(*pair) for pair in pairs] == list(range(9))
    for n_layer in (2, 12):
        wide = SingleLayerAction(make(n_layer=n_layer, n_embd=2))
        n = (n_layer + 2) * (n_layer - 1) // 2
        assert wide.action_space == gym.spaces.Discrete(n)
        assert [wide.index(*wide.pair(index)) for index in range(n)] == list(range(n))


def test_a_single_layer_moves_with_its_followers_and_nothing_else_does(make: Make) -> None:
    env = SingleLayerAction(make())
    for tying in partition.all_tyings(4):
        env.reset(seed=0, options={"tying": tying})
        for index in range(9):
            layer, target = env.pair(np.int64(index))  # what agents send
            after = partition.canonicalise(env.action(index))
            leader = tying[target] if target < layer else layer
            for i in range(4):
                moves = i == layer or tying[i] == layer  # its followers, if it leads any
                assert after[i] == (leader if moves else tying[i]), (tying, layer, target)


@pytest.mark.parametrize("bad", [-1, 9, 1.0, "1", None, [1], np.array([0, 1, 2, 3])])
@pytest.mark.parametrize("name", ["single-layer", "layer-sweep"])
def test_a_bad_index_is_refused_and_the_episode_continues(make: Make, name: str, bad: Any) -> None:
    env, undisturbed = wrap(make(), [name]), wrap(make(), [name])
    for one in (env, undisturbed):
        one.reset(seed=0)
        one.step(1)
    with pytest.raises(ValueError, match=r"action must be a whole number in 0\.\.\d, got"):
        env.step(bad)
    np.testing.assert_equal(env.step(1), undisturbed.step(1))


@pytest.mark.parametrize(("pair", "message"), [((0, 0), r"in 1\.\.3, got 0"), ((4, 0), "got 4"), ((1, 2), "got 2")])
def test_a_bad_pair_is_refused(make: Make, pair: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SingleLayerAction(make()).index(*pair)


@pytest.mark.parametrize("name", ["single-layer", "layer-sweep"])
def test_one_layer_actions_need_an_episode(make: Make, name: str) -> None:
    env = wrap(make(), [name])
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(0)
    env.reset()
    while not env.step(0)[3]:
        pass
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step(0)


def test_a_sweep_asks_for_the_layers_in_turn_and_begins_anew_at_reset(make: Make) -> None:
    env = LayerSweepAction(make())
    observation, _ = env.reset(seed=0, options=ALL_INDEPENDENT)
    asked, masks = [int(observation[-1])], [env.action_masks()]
    for target in (0, 1, 1, 1):
        observation, *_ = env.step(np.int64(target))
        asked.append(int(observation[-1]))
        masks.append(env.action_masks())
    assert asked == [1, 2, 3, 1, 2]
    assert [int(mask.sum()) for mask in masks] == [2, 3, 4, 2, 3]
    assert all(mask[: layer + 1].all() for mask, layer in zip(masks, asked, strict=True))
    assert observation[:-1].tolist() == [0, 1, 0, 0]  # layers 2 and 3 tied to 1 as a follower of 0, then it was untied
    assert env.reset()[0][-1] == 1


def test_a_sweep_counts_decisions_and_not_whole_intervals(make: Make) -> None:
    env = LayerSweepAction(make(total_steps=5, k=2))
    assert [env.reset(seed=0)[0][-1], env.step(0)[0][-1], env.step(0)[0][-1]] == [1, 2, 3]


def test_a_target_above_the_layer_makes_it_independent(make: Make) -> None:
    env = LayerSweepAction(make())
    env.reset(seed=0)
    assert env.step(3)[0].tolist() == [0, 1, 0, 0, 2]


def test_a_mask_reaches_the_agent_through_wrappers_and_fits_the_space(make: Make) -> None:
    env = wrap(make(), ["layer-sweep", "one-hot", "clipped"])
    env.reset(seed=0)
    mask = env.get_wrapper_attr("action_masks")()
    assert (mask.dtype, mask.shape) == (np.bool_, (4,))
    assert {int(env.action_space.sample(mask=mask.astype(np.int8))) for _ in range(30)} == {0, 1}


@pytest.mark.parametrize("names", [["single-layer", "training-progress"], ["layer-sweep"]], ids="+".join)
def test_stable_baselines3s_dqn_learns_on_one_layer_actions(make: Make, names: list[str]) -> None:
    agent = DQN("MlpPolicy", wrap(make(), names), learning_starts=2, train_freq=2, batch_size=2, buffer_size=20)
    agent.learn(12)
    assert agent.num_timesteps == 12
