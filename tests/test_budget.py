"""Whoever looks ahead pays: training steps of trials are taken from the run's."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tying_agents import Context, Controller, drive
from tying_agents.controllers.search import SearchController
from tying_agents.controllers.view import Trial, View
from tying_agents.running.agents import drive_agent

from tests.conftest import TINY
from tying_env.budget import Budget, BudgetSpent
from tying_env.env import LayerTyingEnv
from tying_env.episode import Stopped
from tying_env.plugins import ForeignCodeError
from tying_env.primary.schedule import Schedule
from tying_env.wrappers import GradientAgreementObservation

pytestmark = pytest.mark.usefixtures("short_text")

OWN, TIED = np.arange(4), np.zeros(4, dtype=np.int64)


class Looking(Controller):
    """Tries so many tyings, each so many decisions deep, before it keeps what is in force."""

    needs = frozenset({"forks"})

    def __init__(self, width: int, depth: int = 1, until: int = 1) -> None:
        self.width, self.depth, self.until, self.decided, self.seen = width, depth, until, 0, []  # type: ignore[var-annotated]

    def initial_tying(self) -> Any:
        return OWN

    def bind(self, env: Any) -> None:
        self.env = env

    def act(self, observation: Any) -> Any:
        self.decided += 1
        for _ in range(self.width if self.decided <= self.until else 0):
            fork = self.env
            for _ in range(self.depth):
                fork = fork.fork()
                self.seen.append(fork.step(OWN)[1])
        return observation


def make(**settings: Any) -> LayerTyingEnv:
    return LayerTyingEnv(**TINY | {"warmup_steps": 0} | settings)


def begun(**settings: Any) -> LayerTyingEnv:
    """Return an environment in an episode without the frozen start."""
    env = make(**settings)
    env.reset(seed=0, options={"tying": OWN})
    return env


def test_a_run_that_looks_ahead_ends_so_much_earlier() -> None:
    env = make(total_steps=20, k=2, schedule="linear")
    loop = drive(Looking(3, depth=2), env, seed=0)
    assert env.trial_steps == 3 * 2 * 2
    assert env.train_step + env.trial_steps == 20 == loop.steps_done
    assert loop.decisions == 4 and loop.finished
    # The last training step has the rate of the last one of a run that was as short from the start.
    assert env.trainer.rates.last_share == Schedule("linear", 8, min_ratio=env.config.min_lr_ratio).share(7)
    assert math.isfinite(env._running().validation_perplexity)


@pytest.mark.parametrize("name", ["hill-climbing", "annealing", "tree-search"])
def test_every_search_spends_what_the_run_has_and_no_more(name: Any) -> None:
    env = make(total_steps=41, k=2)
    loop = drive_agent(name, env, seed=1)
    assert loop.finished
    assert env.train_step + env.trial_steps == 41
    assert env.trial_steps > env.train_step / 2
    assert env.train_step >= 2


def test_trials_of_one_state_are_alike_whatever_was_tried_before_them() -> None:
    env = begun(total_steps=20, k=2, schedule="cosine")
    view = View(env)
    first, *others = (view.fork() for _ in range(3))
    rewards = [first.step(TIED)[1], others[0].step(OWN)[1], others[1].step(TIED)[1], view.fork().step(TIED)[1]]
    assert rewards[0] == rewards[2] == rewards[3] != rewards[1]
    # And what was tried is what happens.
    assert env.step(TIED)[1] == rewards[0]
    # What happens after that has a rate that falls faster.
    other = begun(total_steps=20, k=2, schedule="cosine")
    other.step(TIED)
    assert env.trainer.optimizer.param_groups[0]["lr"] < other.trainer.optimizer.param_groups[0]["lr"]


def test_nobody_looks_ahead_for_nothing() -> None:
    """Forks of forks, states put back, episodes begun anew: a trial pays for every step; copies are refused."""
    env = begun(total_steps=40, k=2)
    trial = View(env).fork()
    inner: LayerTyingEnv = trial._inner
    start = inner.state_dict()
    inner.step(OWN)
    inner.load_state_dict(start)
    inner.step(OWN)
    assert env.trial_steps == 4
    inner.reset(options={"state": start})
    inner.step(OWN)
    inner.reset(seed=3)
    inner.step(OWN)
    trial.fork().fork().step(OWN)
    inner.fork().step(OWN)
    assert env.trial_steps == 14
    assert inner.trial_steps == 14  # it says whose budget it is
    for copying in (copy.deepcopy, copy.copy, pickle.dumps):
        for thing in (trial, View(env), inner):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                copying(thing)
    for name in ("step", "reset", "load_state_dict", "state_dict", "trainer", "unwrapped", "close"):
        assert not hasattr(View(env), name)
    for name in ("reset", "load_state_dict", "state_dict", "trainer", "unwrapped"):
        assert not hasattr(trial, name)
    with pytest.raises(
        AttributeError,
        match=r"a controller sees action_masks, .*, tying, .*, fork, gradient_agreement and mixing_weights of its env",
    ):
        _ = View(env).trainer


def test_a_trial_cannot_take_the_steps_of_the_next_decision() -> None:
    env = make(total_steps=10, k=2)
    env.reset(seed=0)
    view = View(env)
    assert view.steps_for_trials == 10 - 4  # the frozen start and one decision
    view.fork().step(OWN)
    with pytest.raises(BudgetSpent, match="a trial of 4 training steps is more than is left for trials, 2: of 10 the "):
        view.fork().step(OWN)
    assert env.trial_steps == 4
    with pytest.raises(ForeignCodeError, match=r"Looking .* BudgetSpent in act.*itself and 8 in trials, and keeps 2 "):
        drive(Looking(5), make(total_steps=10, k=2), seed=0)
    *_, truncated, _ = env.step(OWN)
    assert not truncated and view.steps_for_trials == 0
    *_, truncated, info = env.step(OWN)
    assert truncated and info["train_step"] == 6


def test_an_independent_fork_costs_nothing() -> None:
    env = begun(total_steps=8, k=2)
    twin = env.fork()
    twin.step(OWN)
    assert (env.trial_steps, twin.trial_steps, twin.train_step) == (0, 0, 2)
    tried = View(env).fork()
    tried.step(OWN)
    independent = make(total_steps=8, k=2)
    independent.reset(options={"state": tried._inner.state_dict()})  # a state is one of a run
    independent.step(OWN)
    assert (independent.trial_steps, env.trial_steps) == (0, 2)


def test_a_new_episode_has_a_budget_of_its_own() -> None:
    env = make(total_steps=20, k=2)
    loop = drive(Looking(1, until=6), env, episodes=2, seed=0)  # one trial before each of five decisions
    assert env.train_step + env.trial_steps == 20
    assert loop.steps_done == 40


class _FewSteps(SearchController):
    trials = 2

    def _choose(self, observation: Any) -> Any:
        raise AssertionError("it was not to try anything")


def test_a_search_that_cannot_pay_keeps_the_tying() -> None:
    env = make(total_steps=9, k=4)  # the frozen start, and two decisions
    controller = _FewSteps.create(_FewSteps.Settings(), Context(4, seed=0, k=4))
    drive(controller, env, seed=0)
    assert (env.train_step, env.trial_steps) == (9, 0)


def looking_run(stops: int | None = None) -> tuple[LayerTyingEnv, list[float]]:
    """Make a run with two trials before each of two decisions, stopped at that question; return it and its rewards."""
    env, controller, rewards = begun(total_steps=16, k=2, schedule="cosine"), Looking(2, until=2), []
    observation = env.tying
    controller.bind(View(env))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stops

    env.should_stop = stop
    action = None
    while not env.over:
        decided, seen = controller.decided, len(controller.seen)
        try:
            action = controller.act(observation) if action is None else action
        except Stopped:
            controller.decided, controller.seen[seen:] = decided, []
            continue
        try:
            observation, reward, *_ = env.step(action)
        except Stopped:
            state = env.state_dict()
            env = make(total_steps=16, k=2, schedule="cosine")
            env.reset(options={"state": state})
            env.should_stop = stop
            controller.bind(View(env))
            continue
        action = None
        rewards.append(reward)
    return env, [*controller.seen, *rewards]


@pytest.fixture(scope="module")
def never_stopped() -> tuple[LayerTyingEnv, list[float]]:
    """The run as it is when nothing stops it."""
    return looking_run()


@pytest.mark.parametrize("stop_at", range(1, 20))
def test_a_run_stopped_in_a_trial_or_beside_it_goes_on_to_the_same_bits(stop_at: int, never_stopped: Any) -> None:
    (whole, expected), (resumed, found) = never_stopped, looking_run(stop_at)
    assert found == expected
    assert (resumed.train_step, resumed.trial_steps) == (whole.train_step, whole.trial_steps) == (8, 8)


def test_a_state_of_before_there_were_trials_has_none() -> None:
    env = begun(total_steps=8, k=2)
    env.step(OWN)
    state = env.state_dict()
    for name in ("trial_steps", "trial_steps_paid"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number up to 6, got 9"):
            env.load_state_dict(state | {name: 9})
    old = {name: value for name, value in state.items() if not name.startswith("trial")}
    env.load_state_dict(old)
    assert (env.trial_steps, env._running().budget) == (0, Budget(8, own=2, reserved=2))


def asks(env: Any) -> object:
    return View(env).steps_for_trials


def pays(env: Any) -> object:
    return View(env).gradient_agreement()


def is_refused(env: Any) -> None:
    with pytest.raises(BudgetSpent):
        env.pay(1000)


def looks_by_a_wrapper(env: Any) -> object:
    return GradientAgreementObservation(env, windows=1000).step(OWN)  # more than the run can pay for


@pytest.mark.parametrize("ask", [asks, pays, is_refused, looks_by_a_wrapper])
def test_whoever_asks_what_is_left_for_trials_is_remembered(ask: Callable[[Any], object]) -> None:
    """Also where nothing was left: in a longer run there is, so such a run is not made longer."""
    env = begun(total_steps=8, k=2)
    env.step(OWN)
    assert env.state_dict()["trials_asked"] is False
    ask(env)
    twin = begun(total_steps=8, k=2)
    twin.load_state_dict(state := env.state_dict())
    assert state["trials_asked"] is twin.state_dict()["trials_asked"] is True
    with pytest.raises(ValueError, match="trials_asked must be true or false, got 1"):
        twin.load_state_dict(state | {"trials_asked": 1})


def test_a_wrapped_environment_is_seen_through() -> None:
    env = gym.make("LayerTying-GPT2-v0", **TINY)
    env.reset(seed=0)
    view = View(env)
    assert view.n_units == 4 and view.config.k == 2 and view.permitted(TIED).tolist() == [0] * 4
    assert isinstance(view.fork(), Trial)
    assert view.evaluate("validation", 2).perplexity > 0
    for each in (view, view.fork()):
        with pytest.raises(ValueError, match="'train' or 'validation' for a controller, got 'test'"):
            each.evaluate("test", 2)


def test_a_stop_among_trials_gives_back_what_they_cost_and_nothing_else() -> None:
    """An observation that was paid for before they began stays paid for."""
    env = begun(total_steps=40, k=2)
    env.step(OWN)
    env.pay(3)
    view = View(env)
    view.gradient_agreement()
    view.fork().step(OWN)
    assert env.trial_steps == 3 + 1 + 2
    env.should_stop = lambda: True
    for _ in range(2):
        with pytest.raises(Stopped):
            view.fork().step(OWN)
        assert env.trial_steps == 3
