"""A restored, forked or copied environment continues with the same bits; states that do not fit are refused."""

import copy
import json
import pickle
import weakref
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.conftest import INFO_KEYS
from tying_env import partition
from tying_env.env import LayerTyingEnv


@pytest.mark.parametrize(
    ("replication", "gradient"),
    [("tied", "shared"), ("tied", "leader"), ("copied", "shared"), ("aliased", "leader")],
)
def test_a_restored_environment_continues_with_the_same_bits(
    tiny: dict[str, Any], replication: str, gradient: str
) -> None:
    tiny = tiny | {"replication": replication, "gradient": gradient, "total_steps": 10}
    env = LayerTyingEnv(**tiny)
    rng = np.random.default_rng(0)
    actions = [partition.uniform_random_action(4, rng) for _ in range(4)]
    for cut in (0, 1, 3):  # 0: at the frozen start
        env.reset(seed=7)
        for action in actions[:cut]:
            env.step(action)
        state = copy.deepcopy(env.state_dict())
        expected = [env.step(action) for action in actions[cut:]]
        other = LayerTyingEnv(**tiny)  # not even reset
        other.load_state_dict(state)
        np.testing.assert_equal([other.step(action) for action in actions[cut:]], expected)
        env.reset()
        other.reset()
        np.testing.assert_equal(other.step(actions[0]), env.step(actions[0]))  # the next episode's seed, too


def test_a_fork_is_independent_both_ways(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    env.step(np.array([0, 1, 1, 3]))
    one, two = env.fork(), env.fork()
    action, other = np.array([0, 0, 2, 2]), np.array([0, 1, 0, 3])
    first = one.step(action)
    np.testing.assert_equal(two.step(action), first)  # the same state, the same action, the same bits
    for _ in range(3):
        one.step(other)  # what a fork does is its own affair ...
    np.testing.assert_equal(env.step(action), first)  # ... and the original continues as if there were none
    np.testing.assert_equal(two.step(other), env.step(other))  # nor does the original reach into a fork
    storages = [{p.untyped_storage().data_ptr() for p in e.trainer.network.model.parameters()} for e in (env, one, two)]
    assert not (storages[0] & storages[1] or storages[0] & storages[2] or storages[1] & storages[2])
    assert one.workload is env.workload


def test_a_state_of_other_settings_is_refused_by_name(env: LayerTyingEnv, tiny: dict[str, Any]) -> None:
    env.reset(seed=0)
    state = env.state_dict()
    other = LayerTyingEnv(**tiny | {"learning_rate": 0.5, "k": 3})
    other.reset(seed=1)
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"learning_rate is 0.001 there, 0.5 here; k is 2 there, 3 here"):
        other.load_state_dict(state)
    now = other.state_dict()
    assert now["trainer"]["batches"] == before["trainer"]["batches"]
    assert all(torch.equal(t, before["trainer"]["weights"][name]) for name, t in now["trainer"]["weights"].items())


def test_a_state_is_restored_through_gym_make_and_json(tiny: dict[str, Any]) -> None:
    first = gym.make("LayerTying-GPT2-v0", **tiny)
    first.reset(seed=0)
    state = first.unwrapped.state_dict()  # type: ignore[attr-defined]  # before anything was measured
    tensors = {key: state["trainer"].pop(key) for key in ("weights", "optimizer", "dropout")}
    state = json.loads(json.dumps(state, allow_nan=False))
    state["trainer"] |= tensors
    second = gym.make("LayerTying-GPT2-v0", **tiny)
    observation, info = second.reset(options={"state": state})
    assert observation.tolist() == [0, 0, 0, 0]
    assert set(info) == INFO_KEYS
    for action in ([0, 1, 0, 3], [0, 0, 2, 2]):
        np.testing.assert_equal(second.step(np.array(action)), first.step(np.array(action)))
    assert second.unwrapped.np_random_seed == first.unwrapped.np_random_seed


def test_states_that_are_none_are_refused(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    state = env.state_dict()
    for bad, message in (
        ({}, "lacks 'config'"),
        ({key: value for key, value in state.items() if key != "over"}, "lacks 'over'"),
        ([], "is a list"),
        (state | {"train_step": "x"}, "train_step must be a whole number up to 20, got 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            env.load_state_dict(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give no seed"):
        env.reset(seed=3, options={"state": state})
    with pytest.raises(ValueError, match="options must be a dictionary"):
        env.reset(options=5)  # type: ignore[arg-type]
    assert env.step(np.zeros(4, dtype=np.int64))[4]["train_step"] == 4


@pytest.mark.parametrize("decided", [True, False])
@pytest.mark.parametrize("option", [{}, {"checkpoint_blocks": True}, {"frozen_weights": "redrawn"}])
def test_copies_and_pickles_of_an_environment_continue_the_same(
    tiny: dict[str, Any], option: dict[str, Any], decided: bool
) -> None:
    env = LayerTyingEnv(**tiny | option)
    env.reset(seed=0)
    if decided:
        env.step(np.array([0, 1, 1, 3]))
    else:
        env.trainer.train(1)
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = env.step(np.array([0, 0, 2, 0]))
    for twin in twins:
        np.testing.assert_equal(twin.step(np.array([0, 0, 2, 0])), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inside torch
@pytest.mark.parametrize(
    "option", [{}, {"checkpoint_blocks": True}, {"frozen_weights": "redrawn"}, {"compile_blocks": True}]
)
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_network_is_freed_before_the_next_one_is_built(
    tiny: dict[str, Any], option: dict[str, Any], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = LayerTyingEnv(**tiny | option)
    env.reset(seed=0)
    if "compile_blocks" not in option:  # to compile takes half a minute
        env.step(np.array([0, 0, 2, 0]))
    left = [weakref.ref(parameter) for parameter in env.trainer.network.model.parameters()]
    building = type(env)._begin

    def begin(*args: Any, **kwargs: Any) -> Any:
        assert all(parameter() is None for parameter in left)
        return building(*args, **kwargs)

    monkeypatch.setattr(type(env), "_begin", begin)
    getattr(env, how)()
    assert all(parameter() is None for parameter in left)
