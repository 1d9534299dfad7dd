"""The environment keeps Gymnasium's promises: seeds, episodes and their ends, infos, refusals, the frozen start."""

import gc
import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from tests.conftest import INFO_KEYS
from tying_env import partition
from tying_env.env import LayerTyingEnv


def rollout(env: gym.Env[Any, Any], seed: int, steps: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    seen: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        n_layer = len(seen[0][0])
        seen.append(env.step(partition.uniform_random_action(n_layer, rng)))
    return seen


def test_gymnasiums_checker_passes_without_a_warning(tiny: dict[str, Any]) -> None:
    check_env(gym.make("LayerTying-GPT2-v0", **tiny).unwrapped)


def test_stable_baselines3s_checker_passes_without_a_warning(tiny: dict[str, Any]) -> None:
    check_env_sb3(gym.make("LayerTying-GPT2-v0", **tiny))


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_two_environments_with_one_seed_agree_bit_for_bit(tiny: dict[str, Any], gradient: str) -> None:
    settings = tiny | {"total_steps": 14, "gradient": gradient}
    first = rollout(gym.make("LayerTying-GPT2-v0", **settings), 3, 6)
    second = rollout(gym.make("LayerTying-GPT2-v0", **settings), 3, 6)
    np.testing.assert_equal(second, first)  # observations, rewards, flags and infos
    assert first[-1][3]
    other = rollout(gym.make("LayerTying-GPT2-v0", **settings), 4, 6)
    assert [step[1] for step in other[1:]] != [step[1] for step in first[1:]]


def test_without_a_seed_every_episode_is_another_one(env: LayerTyingEnv) -> None:
    def first_weight() -> torch.Tensor:
        return next(env.trainer.network.model.parameters()).detach().clone()

    env.reset(seed=5)
    one = first_weight()
    env.reset()
    two = first_weight()
    env.reset()
    three = first_weight()
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)
    env.reset(seed=5)
    env.reset()
    assert torch.equal(first_weight(), two)  # and the sequence follows from the last seed


def test_infos_have_the_promised_keys_and_are_fresh(env: LayerTyingEnv) -> None:
    _, at_reset = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(np.array([0, 1, 1, 0]))
    assert set(at_reset) == set(info) == INFO_KEYS
    assert info["tying"].tolist() == observation.tolist() == [0, 1, 1, 0]
    assert (info["tied_events"], info["untied_events"], info["independent_layers"]) == (1, 1, 2)
    assert (info["train_step"], info["tokens"]) == (4, 4 * 4 * 16)  # k at the frozen start, and k
    assert reward == -info["perplexity"] < 0
    assert not terminated
    assert not truncated
    observation[:] = 9
    info["tying"][:] = 9
    assert env.trainer.tied.tying.tolist() == [0, 1, 1, 0]


def test_an_episode_ends_at_total_steps_exactly_and_needs_a_reset(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"total_steps": 5, "k": 2})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(4, dtype=np.int64))
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, dtype=np.int64))[2:] for _ in range(2)]
    assert [(terminated, truncated) for terminated, truncated, _ in ends] == [(False, False), (False, True)]
    assert [info["train_step"] for *_, info in ends] == [4, 5]
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step(np.zeros(4, dtype=np.int64))
    env.reset()
    env.step(np.zeros(4, dtype=np.int64))


@pytest.mark.parametrize(
    "action",
    [[0, 0], [0, 0, 0, 4], [0, -1, 0, 0], [0.0, 0.0, 0.0, 0.0], [0, math.nan, 0, 0], "0000", None, [[0, 0, 0, 0]]],
)
def test_a_bad_action_is_refused_and_the_environment_continues_as_if_it_had_not_come(
    env: LayerTyingEnv, tiny: dict[str, Any], action: Any
) -> None:
    undisturbed = LayerTyingEnv(**tiny)
    for one in (env, undisturbed):
        one.reset(seed=0)
        one.step(np.array([0, 1, 1, 3]))
    with pytest.raises((TypeError, ValueError), match="action"):
        env.step(action)
    np.testing.assert_equal(env.step(np.array([0, 0, 2, 2])), undisturbed.step(np.array([0, 0, 2, 2])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"options": {"tie": [0]}}, "unknown reset option 'tie'"),
        ({"options": {"tying": [0, 0, 3, 0]}}, r"action\[2\] is 3"),
    ],
)
def test_a_bad_reset_is_refused_and_the_episode_continues(
    env: LayerTyingEnv, arguments: dict[str, Any], message: str
) -> None:
    env.reset(seed=0)
    env.step(np.array([0, 1, 1, 3]))
    with pytest.raises(ValueError, match=message):
        env.reset(**arguments)
    assert env.step(np.array([0, 1, 1, 3]))[4]["train_step"] == 6


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"device": "cuda:7"}, ValueError, "device 'cuda:7' is not there"),
        ({"device": "abacus"}, ValueError, "device must be auto, cpu, cuda or cuda:N, got 'abacus'"),
        ({"device": "meta"}, ValueError, "got 'meta'"),
        ({"dataset": "no-such-text"}, ValueError, "no-such-text"),
        ({"n_layers": 3}, TypeError, "did you mean 'n_layer'"),
        ({"seq_len": 10**6}, ValueError, r"tokens"),
        ({"render_mode": "human"}, ValueError, "render_mode must be one of"),
    ],
)
def test_a_bad_setting_is_refused_when_the_environment_is_made(
    tiny: dict[str, Any], settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        LayerTyingEnv(**tiny | settings)


def test_before_the_first_decision_only_layer_0_trains_for_k_steps(tiny: dict[str, Any]) -> None:
    """The first step's action comes after k steps of the frozen start (Algorithm 1, line 2)."""
    env, twin = LayerTyingEnv(**tiny), LayerTyingEnv(**tiny)
    env.reset(seed=0)
    twin.reset(seed=0)
    env.step(np.array([0, 0, 2, 0]))
    initial = [p.detach().clone() for p in twin.trainer.network.blocks[2].parameters()]
    first = [p.detach().clone() for p in twin.trainer.network.blocks[0].parameters()]
    twin.trainer.train(2)
    blocks = twin.trainer.network.blocks
    assert all(torch.equal(p, q) for p, q in zip(blocks[2].parameters(), initial, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(blocks[0].parameters(), first, strict=True))
    twin.trainer.tied.change([0, 0, 2, 0], twin.trainer.optimizer)
    twin.trainer.train(2)
    for (name, mine), (_, theirs) in zip(env.trainer.named_parameters(), twin.trainer.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    ("settings", "first"), [({"total_steps": 1, "k": 1}, 1), ({"total_steps": 3}, 3), ({"k": 15}, 20)]
)
def test_short_episodes_end_in_order(tiny: dict[str, Any], settings: dict[str, Any], first: int) -> None:
    env = LayerTyingEnv(**tiny | settings)
    env.reset(seed=0)
    *_, truncated, info = env.step(np.array([0, 1, 0, 1]))
    assert (truncated, info["train_step"]) == (True, first)
    assert math.isfinite(info["train_loss"])


def test_the_frozen_start_is_an_ablation_away(tiny: dict[str, Any]) -> None:
    frozen, free = LayerTyingEnv(**tiny), LayerTyingEnv(**tiny | {"freeze_at_start": False})
    (observation, info), (free_observation, free_info) = frozen.reset(seed=0), free.reset(seed=0)
    assert observation.tolist() == [0, 0, 0, 0]
    assert free_observation.tolist() == [0, 1, 2, 3]
    assert info["trainable_parameters"] < free_info["trainable_parameters"]
    assert (info["independent_layers"], free_info["independent_layers"]) == (1, 4)
    observation, info = free.reset(options={"tying": [0, 0, 2, 2]})
    assert observation.tolist() == [0, 0, 2, 2]


def test_rendering(tiny: dict[str, Any]) -> None:
    env = gym.make("LayerTying-GPT2-v0", render_mode="ansi", **tiny)
    env.reset(seed=0)
    env.step(np.array([0, 0, 2, 0]))
    text = env.render()
    assert isinstance(text, str)
    assert text.startswith("Replication map at training step 4: 2 of 4 layers independent\n 0 ●    leads 1, 3")
    image = gym.make("LayerTying-GPT2-v0", render_mode="rgb_array", **tiny)
    image.reset(seed=0)
    pixels: Any = image.render()
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:The .grad attribute")  # inside torch
def test_an_environment_with_compiled_blocks_learns_the_same(tiny: dict[str, Any]) -> None:
    settings = tiny | {"dropout": 0.0, "n_layer": 3}
    plain, compiled = LayerTyingEnv(**settings), LayerTyingEnv(**settings | {"compile_blocks": True})
    for one in (plain, compiled):
        one.reset(seed=0)
    for action in ([0, 0, 2], [0, 1, 1]):
        expected, got = plain.step(np.array(action)), compiled.step(np.array(action))
        assert got[1] == pytest.approx(expected[1], rel=1e-3)


def test_numpy_seeds_do(env: LayerTyingEnv) -> None:
    env.reset(seed=np.int64(3))  # type: ignore[arg-type]
    assert env.np_random_seed == 3


def test_close_lets_go_of_the_network(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    network = weakref.ref(env.trainer.network.model)
    env.close()
    gc.collect()
    assert network() is None
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(4, dtype=np.int64))


def test_environments_in_threads_agree_with_one_alone(tiny: dict[str, Any]) -> None:
    settings = tiny | {"dropout": 0.3}
    expected = rollout(LayerTyingEnv(**settings), 3, 5)
    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(lambda seed: rollout(LayerTyingEnv(**settings), seed, 5), [3, 3]):
            np.testing.assert_equal(got, expected)


def test_vectorized_environments_are_independent(tiny: dict[str, Any]) -> None:
    envs = gym.make_vec("LayerTying-GPT2-v0", num_envs=2, vectorization_mode="sync", **tiny)
    envs.reset(seed=[3, 4])
    actions = np.array([[0, 1, 0, 1], [0, 0, 2, 0]])
    observations, rewards, *_ = envs.step(actions)
    assert observations.tolist() == actions.tolist()
    alone = LayerTyingEnv(**tiny)
    alone.reset(seed=4)
    assert alone.step(actions[1])[1] == rewards[1]


def test_too_short_a_text_names_split_and_data_set(tmp_path: Path, tiny: dict[str, Any]) -> None:
    for name, text in (("train", "a" * 500), ("valid", "abc"), ("test", "a" * 500)):
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(ValueError, match=f"the validation split of '{tmp_path}' is too short"):
        LayerTyingEnv(**tiny | {"dataset": str(tmp_path)})


def test_the_frozen_start_makes_a_difference(tiny: dict[str, Any]) -> None:
    rewards = []
    for freeze in (True, False):
        env = LayerTyingEnv(**tiny | {"freeze_at_start": freeze})
        env.reset(seed=0)
        rewards.append(env.step(np.array([0, 1, 2, 3]))[1])
    assert rewards[0] != rewards[1]
