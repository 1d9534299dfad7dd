"""Decisions with other numbers of training steps than k: chosen with the action, or doubled; what they are worth."""

import copy
import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tying_agents.controllers.base import Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.controllers.traces import header, read_trace
from tying_agents.controllers.view import View
from tying_agents.run_config import RunConfig
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import resume, run
from tying_agents.running.saved import OtherSettings
from tying_agents.settings import DQNConfig, ReplayConfig
from tying_agents.stopping import StopSignals

from tests.conftest import Make
from tests.controllers import vector
from tests.reliability.runs import Watcher, finish, interrupt, outcome, small
from tests.reliability.test_longer import CONSTANT, longer, without_trace
from tying_env.env import LayerTyingEnv
from tying_env.episode import Stopped
from tying_env.kinds import Kinds
from tying_env.reports.loading import load_run
from tying_env.reports.over_training import mean_over_training
from tying_env.runs import RunDirectory
from tying_env.seeding import numpy_stream, torch_stream
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


def dqn(intervals: tuple[float, ...], seed: int = 0, **settings: Any) -> FactorizedDQN:
    streams = numpy_stream(seed, "controller"), torch_stream(seed, "controller weights")
    return FactorizedDQN(Kinds.alike(3), DQNConfig(**settings), *streams, intervals)


@pytest.mark.parametrize("dueling", [False, True])
def test_q_has_a_summand_for_the_interval_and_discounts_by_training_steps(dueling: bool) -> None:
    controller = dqn((0.5, 1.0, 2.0, 4.0), epsilon_start=0.0, epsilon_floor=0.0, dueling=dueling)
    state, following = vector(0, 0, 0), vector(0, 1, 2)
    table, after = (controller.values(each).detach() for each in (state, following))
    assert table.isfinite().sum(1).tolist() == [2, 3, 4]
    np.testing.assert_array_equal(controller.act(state)[1:], table.argmax(1))
    target = -5 + 0.99**4.0 * after.amax(1).sum()
    controller.update(Transition(state, vector(0, 1, 2, 3), -5.0, following, False))
    expected = (table[0, 1] + table[1, 2] + table[2, 3] - target) ** 2
    assert controller.metrics()["q_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_dqn_with_intervals_continues_from_its_state_and_refuses_that_of_others() -> None:
    def decide(controller: FactorizedDQN) -> list[Any]:
        seen = []
        for reward in range(12):
            action = controller.act(vector(0, 0, 2))
            controller.update(Transition(vector(0, 0, 2), action, -float(reward), vector(0, 1, 1), False))
            seen.append((action.tolist(), controller.metrics()))
        return seen

    options: dict[str, Any] = {"replay_size": 5, "target_every": 3, "double_q": True}
    controller, other = dqn((0.5, 2.0), **options), dqn((0.5, 2.0), 9, **options)
    first = decide(controller)
    assert {action[-1] for action, _ in first} == {0, 1}
    other.load_state_dict(controller.state_dict())
    assert decide(other) == decide(controller)
    with pytest.raises(ValueError, match=r"intervals is \[0.5, 2.0\] there, \[0.5, 4.0\] here"):
        dqn((0.5, 4.0), **options).load_state_dict(controller.state_dict())
    with pytest.raises(ValueError, match="intervals is None there"):
        dqn((0.5, 2.0), **options).load_state_dict(dqn((), **options).state_dict())
    state = controller.state_dict()
    state["replay"]["transitions"]["action"][2, -1] = 2
    with pytest.raises(ValueError, match=r"an interval that is not in 0..1"):
        other.load_state_dict(state)


@pytest.mark.parametrize("agent", ["random", "dqn", "ppo", "a2c"])
def test_agents_that_choose_intervals_decide_to_the_end(make: Make, agent: str) -> None:
    loop = drive_agent(agent, ChooseInterval(make(), intervals=(1, 3)), seed=1)
    assert loop.finished and loop.inner.train_step == 20
    assert 6 <= loop.decisions <= loop.decisions_in_all == 18


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("sandwich", "the agent 'sandwich' chooses no intervals, and here each action has one: give it --k"),
        ("hill-climbing", "the agent 'hill-climbing' chooses no intervals"),
        ("layer-sweep-dqn", "layer-sweep-dqn chooses no intervals"),
        ("sb3-dqn", "the agent 'sb3-dqn' takes one number, a change of one layer, and chooses no interval with it"),
        ("maskable-ppo", "the agent 'maskable-ppo' takes one number"),
    ],
)
def test_agents_that_choose_none_are_refused_by_name(make: Make, agent: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drive_agent(agent, ChooseInterval(make(), intervals=(1, 3)))


INTERVALS: dict[str, dict[str, Any]] = {
    "dqn": {"wrappers": ("choose-interval",), "intervals": (3, 1)},
    "random": {"wrappers": ("interval-doubling",), "longest_interval": 3},
}


@pytest.mark.parametrize("agent", INTERVALS)
def test_a_run_stopped_in_the_midst_of_decisions_ends_the_same(
    agent: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stopped, asked = finish(small(tiny, tmp_path / "whole", agent, **INTERVALS[agent])), tmp_path / "stopped", 0
    records, trace = RunDirectory.open(path).read_metrics(), read_trace(path)
    lengths = [record["interval"] for record in records]
    assert [record["train_step"] for record in records] == [2 + n for n in itertools.accumulate(lengths)]
    assert records[-1]["train_step"] == 20 and len(set(lengths)) > 1
    assert (trace.varied, trace.k, len(trace.tyings)) == (True, None, len(records))
    assert load_run(path).frozen_steps == 2

    def should_stop(self: StopSignals) -> bool:
        nonlocal asked
        asked += 1
        if asked % 9 == 0:
            interrupt()
        return self.asked is not None

    monkeypatch.setattr(StopSignals, "should_stop", should_stop)
    status, stops = run(small(tiny, stopped, agent, **INTERVALS[agent]), [Watcher()])[1], 0
    while status == "interrupted":
        stops += 1
        assert stops < 20, "no headway"
        status = resume(stopped, [Watcher()])[1]
    assert stops >= 2 and status == "finished"
    assert outcome(stopped) == outcome(path)


def test_a_run_whose_last_decision_was_not_cut_can_be_made_longer(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | CONSTANT | {"warmup_steps": 2}
    whole = small(tiny | {"total_steps": 32}, tmp_path / "whole", "random", **INTERVALS["random"])
    expected = without_trace(finish(whole))
    config = small(tiny, tmp_path / "run", "random", **INTERVALS["random"])  # 2 + 1 + 2 + 5 x 3
    path = finish(config)
    assert resume(path, [Watcher()], longer(config, 32))[1] == "finished"
    assert without_trace(path) == expected
    config = small(tiny, tmp_path / "cut", "random", wrappers=("interval-doubling",))  # 2 + 1 + 2 + 4 + 8 + 3
    with pytest.raises(OtherSettings, match="cut short by the end of the run, to 3 of 16 training steps"):
        resume(finish(config), [Watcher()], longer(config, 32))


def test_a_trace_of_varied_steps_is_no_trace_to_replay_but_for_its_last_tying(make: Make, tmp_path: Path) -> None:
    varied, usual = tmp_path / "varied.txt", tmp_path / "usual.txt"
    varied.write_text(header(4, None, varied=True) + "2 0 0 0 0\n3 0 1 1 1\nend 20\n")
    usual.write_text(header(4, None) + "2 0 0 0 0\n4 0 1 1 1\nend 6\n")
    with pytest.raises(ValueError, match=r"the decisions of the trace .*varied.txt have varied .*, with --final"):
        drive_agent("replay", make(), settings=ReplayConfig(trace=varied))
    with pytest.raises(ValueError, match="the decisions of this run have varied numbers"):
        drive_agent("replay", DoublingInterval(make()), settings=ReplayConfig(trace=usual))
    env = DoublingInterval(make())
    assert drive_agent("replay", env, settings=ReplayConfig(trace=varied, final=True)).finished
    assert base_of(env).tying.tolist() == [0, 1, 1, 1]


def test_steps_of_a_varied_trace_rise(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(header(3, None, varied=True) + "5 0 0 2\n6 0 1 1\n21 0 0 0\nend 30\n")
    assert len(read_trace(file).tyings) == 3 and read_trace(file).whole
    file.write_text(header(3, None, varied=True) + "5 0 0 2\n6 0 1 1\n6 0 0 0\nend 30\n")
    with pytest.raises(ValueError, match="line 5 is damaged: training step 6 follows 6; steps must rise"):
        read_trace(file)
    file.write_text(header(3, vector(0, 1, 1), varied=True) + "5 0 0 2\n6 0 1 1\nend 30\n")
    with pytest.raises(ValueError, match="line 3 is damaged: training step 5 where 0 is due"):
        read_trace(file)


def test_means_over_training_count_a_decision_by_its_steps() -> None:
    assert mean_over_training([10, 20], [{"interval": 9}, {"interval": 1}]) == 11
    assert mean_over_training([10, 20, 60], [{}, {}, {}]) == 30
    assert mean_over_training([10], [{"interval": 0}]) == 10  # training diverged in its first step


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ((1, 0), "intervals must be a whole number of at least 1, got 0"),
        ((1, 2.5), "intervals must be a whole number of at least 1, got 2.5"),
        ((1, True), "intervals must be a whole number of at least 1, got True"),
        ((5, 1, 5), "intervals must be different numbers of training steps, got 5 twice"),
        ((1, 21), "intervals must be at most the run's 20 training steps, got 21"),
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
