"""Decisions with other numbers of training steps than k: chosen with the action, or doubled; what they are worth."""

import copy
import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tying_agents.controllers.view import View
from tying_agents.run_config import RunConfig
from tying_agents.running.agents import drive_agent

from tests.conftest import Make
from tests.reliability.runs import small
from tying_env.env import LayerTyingEnv
from tying_env.episode import Stopped
from tying_env.wrappers import ChooseInterval, DoublingInterval, SingleLayerAction, wrap

OWN = [0, 1, 2, 3]


def base_of(env: gym.Env[Any, Any]) -> LayerTyingEnv:
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, LayerTyingEnv)
    return unwrapped


def episode(env: gym.Env[Any, Any], seed: int = 1) -> list[Any]:
    """Return what the steps of an episode with random actions gave."""
    env.reset(seed=seed)
    env.action_space.seed(0)
    steps, over = [], False
    while not over:
        steps.append(env.step(env.action_space.sample()))
        over = steps[-1][2] or steps[-1][3]
    return steps


def test_an_episode_has_its_training_steps_exactly_and_equal_seeds_give_equal_bits(make: Make) -> None:
    env = ChooseInterval(make(), intervals=(1, 4, 7))
    assert env.action_space == gym.spaces.MultiDiscrete([1, 2, 3, 4, 3])
    steps = episode(env)
    lengths = [info["interval"] for *_, info in steps]
    assert [info["train_step"] for *_, info in steps] == [2 + n for n in itertools.accumulate(lengths)]
    assert 2 + sum(lengths) == base_of(env).train_step == 20
    assert set(lengths[:-1]) <= {1, 4, 7} and len(set(lengths)) > 1
    assert len(lengths) < env.decisions_per_episode == 18
    np.testing.assert_equal(episode(ChooseInterval(make(), intervals=(1, 4, 7))), steps)


def test_intervals_of_k_are_the_environment_as_it_is(make: Make) -> None:
    plain, chosen = make(), ChooseInterval(make(), intervals=(2,))
    for one in (plain, chosen):
        one.reset(seed=1)
    for action in (OWN, [0, 0, 1, 1], [0, 1, 1, 0]):
        *got, info = chosen.step([*action, 0])
        assert info.pop("interval") == 2
        np.testing.assert_equal((*got, info), plain.step(np.array(action)))


def test_one_layer_and_an_interval_are_chosen_together(make: Make) -> None:
    env = ChooseInterval(SingleLayerAction(make()), intervals=(1, 4))
    assert env.action_space == gym.spaces.MultiDiscrete([9, 2])
    env.reset(seed=0)
    observation, *_, info = env.step([8, 1])
    assert (observation.tolist(), info["interval"]) == ([0, 0, 0, 3], 4)


def test_intervals_double_up_to_the_longest(make: Make) -> None:
    env = DoublingInterval(make(), most=6)
    lengths = [info["interval"] for *_, info in episode(env)]
    assert lengths == [1, 2, 4, 6, 5]
    assert env.decisions_per_episode == 5
    base = base_of(env)
    env.reset(seed=0)
    view = View(env)
    assert (view.interval, view.decisions_per_episode) == (1, 5)
    env.step(OWN)
    assert base.interval == view.interval == base.fork().interval == 2


def test_every_training_step_has_the_reward_of_its_decision_in_units_of_k(make: Make) -> None:
    for names in (["choose-interval"], ["interval-doubling"]):
        for *_, reward, _, _, info in episode(wrap(make(), names, {"choose-interval": {"intervals": (1, 4)}})):
            assert reward == pytest.approx(-info["perplexity"] * info["interval"] / 2)
    below = wrap(make(), ["improvement"])
    differences = [reward for _, reward, *_ in episode(ChooseInterval(below, intervals=(4, 1)))]
    perplexities = [info["perplexity"] for *_, info in episode(ChooseInterval(make(), intervals=(4, 1)))]
    assert sum(differences) == pytest.approx(perplexities[0] - perplexities[-1])


def test_a_decision_in_which_training_diverged_counts_in_full(make: Make) -> None:
    env = ChooseInterval(make(), intervals=(1, 4, 19))
    for chosen, steps in ((0, 1), (1, 4), (2, 19)):
        env.reset(seed=0)
        next(base_of(env).trainer.network.model.parameters()).data.fill_(torch.nan)
        _, reward, terminated, _, info = env.step([*OWN, chosen])
        assert terminated and info["interval"] == 0
        assert reward == pytest.approx(-np.exp(20) * steps / 2)


def test_a_step_that_was_stopped_continues_with_its_interval_and_no_other(make: Make) -> None:
    actions = ([*OWN, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 1])
    whole, env = (ChooseInterval(make(), intervals=(2, 7)) for _ in range(2))
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked % 2 == 0

    base_of(env).should_stop = should_stop
    expected = [whole.reset(seed=0)[0], *(whole.step(action) for action in actions)]
    seen: list[Any] = [env.reset(seed=0)[0]]
    refused = 0
    for action in actions:
        while True:
            try:
                seen.append(env.step(action))
                break
            except Stopped:
                state = copy.deepcopy(base_of(env).state_dict())
            if state["under_way"] is not None:  # else it was in the frozen start, before the action
                with pytest.raises(ValueError, match=r"a decision of \d training steps is under way .*; got \d"):
                    env.step([*action[:-1], 1 - action[-1]])
                refused += 1
            env = ChooseInterval(make(), intervals=(2, 7))
            env.reset(options={"state": state})
            base_of(env).should_stop = should_stop
    assert refused > 5
    np.testing.assert_equal(seen, expected)


def test_trials_pay_for_their_intervals_and_leave_the_decision_what_is_left(make: Make) -> None:
    base = base_of(make(total_steps=30))
    env = ChooseInterval(base, intervals=(1, 28))
    base.reset(seed=0, options={"tying": OWN})
    trial = base.trial()
    trial.set_interval(5)
    trial.step(np.array(OWN))
    assert (base.trial_steps, base.steps_for_trials, base.interval) == (5, 23, 2)
    *_, truncated, info = env.step([*OWN, 1])
    assert truncated and info["interval"] == 25  # of 28: the trial had 5 of 30
    assert base.train_step + base.trial_steps == 30


@pytest.mark.parametrize("agent", ["hill-climbing", "halving"])
def test_who_looks_ahead_tries_as_many_steps_as_the_next_decision_has(make: Make, agent: str) -> None:
    loop = drive_agent(agent, DoublingInterval(make(total_steps=60), most=4), seed=1)
    assert loop.finished
    assert loop.inner.train_step + loop.inner.trial_steps == 60
    assert loop.inner.trial_steps > 10


def test_a_state_of_before_there_were_intervals_has_k_and_a_damaged_one_is_refused(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    env.set_interval(7)
    state = env.state_dict()
    for bad in (0, -1, 2.0, None):
        with pytest.raises(ValueError, match=f"interval must be a whole number from 1 up to .*, got {bad}"):
            env.load_state_dict(state | {"interval": bad})
    env.load_state_dict(state)
    assert env.interval == 7
    del state["interval"]
    env.load_state_dict(state)
    assert env.interval == env.config.k == 2
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        env.set_interval(0)


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ((1, 0), "intervals must be a whole number of at least 1, got 0"),
        ((1, 2.5), "intervals must be a whole number of at least 1, got 2.5"),
        ((1, True), "intervals must be a whole number of at least 1, got True"),
        ((5, 1, 5), "intervals must be different numbers of training steps, got 5 twice"),
        ((1, 21), "intervals must be at most the run's 20 training steps, got 21"),
        (5, "intervals must be a sequence of numbers of training steps, got 5"),
        ((), "intervals must be at least one number of training steps, got none"),
    ],
)
def test_wrong_intervals_are_named(make: Make, tiny: dict[str, Any], intervals: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChooseInterval(make(), intervals=intervals)
    with pytest.raises(ValueError, match=message):
        small(tiny, Path("never"), wrappers=("choose-interval",), intervals=intervals)
    small(tiny, Path("never"), intervals=intervals)  # nobody asks for them


def test_wrong_actions_and_settings_are_named(make: Make) -> None:
    env = ChooseInterval(make(), intervals=(1, 3))
    env.reset(seed=0)
    for action, message in (
        (OWN, r"action must be whole numbers of the shape \(5,\), got \[0, 1, 2, 3\]"),
        ([*OWN, 0.5], r"action must be whole numbers of the shape \(5,\)"),
        ([*OWN, 2], r"the action's last entry must be in 0..1, an index of the intervals \[1, 3\], got 2"),
        ([*OWN, -1], "got -1"),
        ([0, 2, 0, 0, 0], r"action\[1\] is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            env.step(action)
    with pytest.raises(ValueError, match="most must be a whole number of at least 1, got 0"):
        DoublingInterval(make(), most=0)
    with pytest.raises(ValueError, match="longest_interval must be at least 1, got 0"):
        RunConfig(longest_interval=0)
    with pytest.raises(ValueError, match="put ShuffledReward around it"):
        wrap(make(), ["shuffled", "choose-interval"], {"choose-interval": {"intervals": (1,)}})


def test_intervals_are_chosen_for_sublayers_too(tiny: dict[str, Any]) -> None:
    env = ChooseInterval(LayerTyingEnv(**tiny | {"units": "sublayers", "n_layer": 2, "validate_every": 0}), (1, 4))
    assert env.action_space == gym.spaces.MultiDiscrete([1, 2, 1, 2, 2])
    loop = drive_agent("dqn", env, seed=0)
    assert loop.over and env.unwrapped.train_step == env.unwrapped.total_steps
