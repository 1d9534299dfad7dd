import copy
import doctest
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import DQN
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from tying_env import partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.evaluation import MAX_MEAN_LOSS, mean_loss
from tying_env.seeding import capture_numpy
from tying_env.wrappers import (
    WRAPPERS,
    ClippedReward,
    ImprovementReward,
    LayerSweepAction,
    LogPerplexityReward,
    OneHotObservation,
    ParameterPenaltyReward,
    ProbeBatchReward,
    ShuffledReward,
    SingleLayerAction,
    TrainingProgressObservation,
    load_wrapper_states,
    wrap,
    wrapper_states,
)

Make = Callable[..., gym.Env[Any, Any]]
MODULES = ["tying_env.wrappers.actions", "tying_env.wrappers.observations", "tying_env.wrappers.rewards"]
ALL_INDEPENDENT = {"tying": [0, 1, 2, 3]}


class Rewards(gym.Env[int, int]):
    """Gives a list of rewards, one a step."""

    observation_space = gym.spaces.Discrete(1)
    action_space = gym.spaces.Discrete(1)

    def __init__(self, rewards: list[float]) -> None:
        self.rewards = rewards

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        if options:
            raise ValueError("no options here")
        self.given = iter(self.rewards)
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return 0, next(self.given), False, False, {}


def rewards_of(env: gym.Env[Any, Any], steps: int, seed: int | None = None) -> list[float]:
    env.reset(seed=seed)
    return [float(env.step(0)[1]) for _ in range(steps)]


@pytest.fixture
def make(tiny: dict[str, Any]) -> Make:
    return lambda **settings: gym.make("LayerTying-GPT2-v0", **tiny | settings)


# All wrappers


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


STACKS = [[name] for name in WRAPPERS] + [
    ["layer-sweep", "training-progress", "probe", "log-perplexity", "improvement", "shuffled"],
    ["single-layer", "one-hot", "parameter-penalty", "clipped"],
    ["layer-sweep", "one-hot"],
]


# The checker recommends the unwrapped environment, but here the wrapper is what is checked.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_both_checkers_pass_without_a_warning(make: Make, names: list[str]) -> None:
    env = wrap(make(), names)
    check_env(env, skip_render_check=True)
    check_env_sb3(env)


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_a_wrapped_environment_can_be_made_again_from_its_spec(make: Make, names: list[str]) -> None:
    env = wrap(make(), names)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert str(again) == str(env)
    assert (again.action_space, again.observation_space) == (env.action_space, env.observation_space)


def test_settings_of_wrappers_are_in_the_spec(make: Make) -> None:
    env = ShuffledReward(ClippedReward(ProbeBatchReward(make(), windows=3), low=-2.0, high=1.0), seed=7, window=5)
    assert env.spec is not None
    kwargs = [wrapper.kwargs for wrapper in env.spec.additional_wrappers]
    assert kwargs == [{"windows": 3}, {"low": -2.0, "high": 1.0}, {"seed": 7, "window": 5}]


@pytest.mark.parametrize("name", [name for name in WRAPPERS if "single" not in name and "sweep" not in name])
def test_wrappers_of_observation_and_reward_leave_training_and_info_alone(make: Make, name: str) -> None:
    plain, wrapped = make(), wrap(make(), [name])
    np.testing.assert_equal(wrapped.reset(seed=1)[1], plain.reset(seed=1)[1])
    for action in ([0, 0, 2, 1], [0, 1, 2, 2]):
        got, expected = wrapped.step(np.array(action)), plain.step(np.array(action))
        np.testing.assert_equal(got[2:], expected[2:])  # flags and info, the losses in it bit for bit


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

    first, second = rollout(wrap(make(), names)), rollout(wrap(make(), names))
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


@pytest.mark.parametrize("names", [["layer-sweep", "improvement", "shuffled"], ["one-hot"]], ids="+".join)
def test_a_restored_wrapped_environment_goes_on_with_the_same_bits(make: Make, names: list[str]) -> None:
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


@pytest.mark.parametrize("name", ["single-layer", "layer-sweep", "training-progress", "probe", "parameter-penalty"])
def test_another_environment_below_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="needs a LayerTyingEnv, got Rewards"):
        wrap(Rewards([]), [name])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["single-layer", "layer-sweep"], r"LayerSweepAction needs the actions MultiDiscrete.*, got Discrete\(9\)"),
        (["layer-sweep", "single-layer"], r"SingleLayerAction needs the actions MultiDiscrete.*, got Discrete\(4\)"),
        (["one-hot", "layer-sweep"], r"got MultiBinary\(10\): put wrappers of the observation around it"),
        (["one-hot", "training-progress"], r"TrainingProgressObservation needs MultiDiscrete .*, got MultiBinary"),
        (["training-progress", "one-hot"], r"OneHotObservation needs MultiDiscrete observations below it, got Box"),
    ],
)
def test_wrappers_that_do_not_fit_each_other_are_refused(make: Make, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(make(), names)


@pytest.mark.parametrize("name", ["single-layer", "layer-sweep"])
def test_one_layer_leaves_nothing_to_decide(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match="at least 2 layers to decide about, got 1"):
        wrap(make(n_layer=1), [name])


def test_importing_the_wrappers_brings_in_no_torch() -> None:
    code = "import sys, tying_env.wrappers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Actions


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
def test_a_bad_index_is_refused_and_the_episode_goes_on(make: Make, name: str, bad: Any) -> None:
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


# Observations


def test_progress_says_tying_loss_time_and_independent_layers(make: Make) -> None:
    env = TrainingProgressObservation(make())
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [0, 0, 0, 0, MAX_MEAN_LOSS, 0, 0.25]
    observation, *_, info = env.step(np.array([0, 1, 0, 1]))
    expected = [0, 1, 0, 1 / 3, info["train_loss"], 4 / 20, 0.5]
    np.testing.assert_allclose(observation, expected, rtol=1e-6)
    assert observation.dtype == np.float32
    while not env.step(np.array([0, 1, 2, 3]))[3]:
        pass
    assert env.observation_space.contains(observation)


def test_progress_is_inside_its_space_when_training_diverged(make: Make) -> None:
    env = TrainingProgressObservation(make(learning_rate=1e30))
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(np.array([0, 1, 2, 3]))
    assert terminated
    assert env.observation_space.contains(observation)


def test_progress_keeps_the_layer_that_a_sweep_asks_for(make: Make) -> None:
    env = wrap(make(), ["layer-sweep", "training-progress"])
    observation, _ = env.reset(seed=0)
    assert observation[4] == np.float32(1 / 3)


def test_one_hot_observations_are_as_many_as_tyings(make: Make) -> None:
    env = OneHotObservation(make())
    seen = set()
    for tying in partition.all_tyings(4):
        observation, _ = env.reset(seed=0, options={"tying": tying})
        places = np.split(observation, [1, 3, 6])
        assert [int(place.argmax()) for place in places] == tying.tolist()
        assert observation.sum() == 4
        seen.add(observation.tobytes())
    assert len(seen) == partition.bell_number(4)


# Rewards


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
