"""What all wrappers have in common: true examples, checkers, specs, seeds, states, refusals."""

import copy
import doctest
import importlib
import json
import math
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from tests.conftest import Make
from tests.rewards import Rewards
from tying_env import partition
from tying_env.env import LayerTyingEnv
from tying_env.seeding import capture_numpy
from tying_env.wrappers import (
    WRAPPERS,
    ClippedReward,
    ProbeBatchReward,
    ShuffledReward,
    load_wrapper_states,
    wrap,
    wrapper_states,
)

MODULES = [
    f"tying_env.wrappers.{name}" for name in ("actions", "interval", "limits", "observations", "rewards", "size")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_example_of_every_wrapper_is_true(module: str, make: Make) -> None:
    loaded = importlib.import_module(module)
    globs = vars(loaded) | {"make": make, "math": math}
    ran = [test for test in doctest.DocTestFinder().find(loaded, globs=globs) if test.examples]
    wrappers = {f"{module}.{one.__name__}" for one in WRAPPERS.values() if one.__module__ == module}  # type: ignore[attr-defined]
    assert {test.name for test in ran} == wrappers
    runner = doctest.DocTestRunner()
    for test in ran:
        assert runner.run(test).failed == 0


# Wrappers look at what a decision is and gives, not at how the network in it is trained.
QUICK: dict[str, Any] = {"n_layer": 3, "dropout": 0.0, "k": 1, "validation_windows": 4}
# The default intervals are longer than the tiny run.
SETTINGS = {"choose-interval": {"intervals": (1, 4)}}
STACKS = [[name] for name in WRAPPERS] + [
    ["layer-sweep", "training-progress", "probe", "log-perplexity", "improvement", "shuffled"],
    ["single-layer", "one-hot", "parameter-penalty", "clipped"],
    ["layer-sweep", "one-hot"],
    ["settle", "limit-changes", "single-layer"],
    ["improvement", "limit-changes", "choose-interval", "training-progress", "shuffled"],
    ["layer-sweep", "choose-interval", "one-hot"],
]


# The checker recommends the unwrapped environment, but here the wrapper is what is checked.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_both_checkers_pass_without_a_warning(make: Make, names: list[str]) -> None:
    env = wrap(make(**QUICK, total_steps=16, validate_every=8), names, SETTINGS)
    check_env(env, skip_render_check=True)
    check_env_sb3(env)


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_a_wrapped_environment_can_be_made_again_from_its_spec(make: Make, names: list[str]) -> None:
    env = wrap(make(), names, SETTINGS)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert str(again) == str(env)
    assert (again.action_space, again.observation_space) == (env.action_space, env.observation_space)


def test_settings_of_wrappers_are_in_the_spec(make: Make) -> None:
    env = ShuffledReward(ClippedReward(ProbeBatchReward(make(), windows=3), low=-2.0, high=1.0), seed=7, window=5)
    assert env.spec is not None
    kwargs = [wrapper.kwargs for wrapper in env.spec.additional_wrappers]
    assert kwargs == [{"windows": 3}, {"low": -2.0, "high": 1.0}, {"seed": 7, "window": 5}]


ACTIONS = ("single-layer", "layer-sweep", "limit-changes", "settle", "choose-interval")


# They change how long the network trains, and info has one entry more.
LENGTHS = ("gradient-agreement", "choose-interval", "interval-doubling")


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name not in (*ACTIONS, *LENGTHS)])
def test_wrappers_of_observation_and_reward_leave_training_and_info_alone(make: Make, name: str) -> None:
    def told(info: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in info.items() if key != "packed_bytes"}  # its own

    plain, wrapped = make(), wrap(make(), [name])
    np.testing.assert_equal(told(wrapped.reset(seed=1)[1]), plain.reset(seed=1)[1])
    for action in ([0, 0, 2, 1], [0, 1, 2, 2]):
        *_, terminated, truncated, info = wrapped.step(np.array(action))
        # Flags and info, the losses in it bit for bit.
        np.testing.assert_equal((terminated, truncated, told(info)), plain.step(np.array(action))[2:])


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_equal_seeds_give_equal_episodes_and_observations_are_fresh(make: Make, names: list[str]) -> None:
    def rollout(env: gym.Env[Any, Any]) -> list[Any]:
        env.action_space.seed(5)
        seen: list[Any] = [env.reset(seed=3)]
        for _ in range(4):
            step = env.step(env.action_space.sample())
            seen.append(copy.deepcopy(step))
            step[0][:] = 0  # whatever the owner of an observation does to it
        return seen

    first, second = (rollout(wrap(make(**QUICK), names, SETTINGS)) for _ in range(2))
    np.testing.assert_equal(second, first)


def test_unknown_names_are_refused_with_the_known_ones(make: Make) -> None:
    with pytest.raises(ValueError, match=r"unknown wrapper 'shufled'; known: single-layer, .*shuffled"):
        wrap(make(), ["clipped", "shufled"])


def test_names_are_applied_from_the_inside_out(make: Make) -> None:
    env = wrap(make(), ["probe", "clipped"])
    assert isinstance(env, ClippedReward)
    assert isinstance(env.env, ProbeBatchReward)
    unwrapped = make()
    assert wrap(unwrapped, []) is unwrapped


@pytest.mark.parametrize(
    "names", [["layer-sweep", "improvement", "shuffled"], ["one-hot"], ["settle", "limit-changes"]], ids="+".join
)
def test_a_restored_wrapped_environment_continues_with_the_same_bits(make: Make, names: list[str]) -> None:
    def step(env: gym.Env[Any, Any], rng: np.random.Generator) -> Any:
        return env.step(rng.integers(4) if "layer-sweep" in names else partition.uniform_random_action(4, rng))

    env, rng = wrap(make(), names), np.random.default_rng(0)
    env.reset(seed=2)
    for _ in range(4):
        step(env, rng)
    base = env.unwrapped
    assert isinstance(base, LayerTyingEnv)
    saved = copy.deepcopy(base.state_dict()), json.loads(json.dumps(wrapper_states(env))), capture_numpy(rng)
    expected = [step(env, rng) for _ in range(4)]
    other = wrap(make(), names)
    other.reset(seed=9)  # the wrappers around LayerTyingEnv want an episode, whichever
    assert isinstance(other.unwrapped, LayerTyingEnv)
    other.unwrapped.load_state_dict(saved[0])
    load_wrapper_states(other, saved[1])
    rng.bit_generator.state = saved[2]
    np.testing.assert_equal([step(other, rng) for _ in range(4)], expected)


def test_states_of_other_wrappers_are_refused(make: Make) -> None:
    states = wrapper_states(wrap(make(), ["improvement", "shuffled"]))
    with pytest.raises(ValueError, match=r"of the wrappers \['ShuffledReward', 'ImprovementReward'\], .* has \['Impr"):
        load_wrapper_states(wrap(make(), ["improvement"]), states)


@pytest.mark.parametrize("name", [*ACTIONS, "interval-doubling", "training-progress", "probe", "parameter-penalty"])
def test_another_environment_below_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"needs a (TyingEnv, such as )?LayerTyingEnv, got Rewards"):
        wrap(Rewards([]), [name])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["single-layer", "layer-sweep"], r"LayerSweepAction needs the actions MultiDiscrete.*, got Discrete\(9\)"),
        (["layer-sweep", "single-layer"], r"SingleLayerAction needs the actions MultiDiscrete.*, got Discrete\(4\)"),
        (["one-hot", "layer-sweep"], r"got MultiBinary\(10\): put wrappers of the observation around it"),
        (["one-hot", "training-progress"], r"TrainingProgressObservation needs MultiDiscrete .*, got MultiBinary"),
        (["choose-interval", "settle"], r"SettleTying needs the actions MultiDiscrete.*, got MultiDiscrete"),
        (["choose-interval", "single-layer"], r"SingleLayerAction needs the actions .*, got MultiDiscrete"),
        (["choose-interval", "interval-doubling"], "DoublingInterval needs decisions of k .*, got ChooseInterval"),
        (["interval-doubling", "choose-interval"], "ChooseInterval needs decisions of k .*, got DoublingInterval"),
        (["shuffled", "interval-doubling"], "put ShuffledReward around it"),
        (["training-progress", "one-hot"], r"OneHotObservation needs MultiDiscrete observations below it, got Box"),
    ],
)
def test_wrappers_that_do_not_fit_each_other_are_refused(make: Make, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(make(), names, SETTINGS)


@pytest.mark.parametrize("name", ACTIONS)
def test_one_layer_leaves_nothing_to_decide(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match="at least 2 layers to decide about, got 1"):
        wrap(make(n_layer=1), [name], SETTINGS)


def test_importing_the_wrappers_brings_in_no_torch() -> None:
    code = "import sys, tying_env.wrappers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
