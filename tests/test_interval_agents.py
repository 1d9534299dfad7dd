"""Agents that choose intervals, or are refused; the DQN's further head; runs, traces and means over training."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.base import Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.controllers.traces import header, read_trace
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import resume, run
from tying_agents.running.saved import OtherSettings
from tying_agents.settings import DQNConfig, ReplayConfig
from tying_agents.stopping import StopSignals

from tests.conftest import Make
from tests.controllers import vector
from tests.reliability.runs import Watcher, finish, interrupt, outcome, small
from tests.reliability.test_longer import CONSTANT, longer, without_trace
from tests.test_intervals import base_of
from tying_env.kinds import Kinds
from tying_env.reports.loading import load_run
from tying_env.reports.over_training import mean_over_training
from tying_env.runs import RunDirectory
from tying_env.seeding import numpy_stream, torch_stream
from tying_env.wrappers import ChooseInterval, DoublingInterval

THREE, FOUR = Kinds.alike(3), Kinds.alike(4)

OWN = [0, 1, 2, 3]


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
    varied.write_text(header(FOUR, None, varied=True) + "2 0 0 0 0\n3 0 1 1 1\nend 20\n")
    usual.write_text(header(FOUR, None) + "2 0 0 0 0\n4 0 1 1 1\nend 6\n")
    with pytest.raises(ValueError, match=r"the decisions of the trace .*varied.txt have varied .*, with --final"):
        drive_agent("replay", make(), settings=ReplayConfig(trace=varied))
    with pytest.raises(ValueError, match="the decisions of this run have varied numbers"):
        drive_agent("replay", DoublingInterval(make()), settings=ReplayConfig(trace=usual))
    env = DoublingInterval(make())
    assert drive_agent("replay", env, settings=ReplayConfig(trace=varied, final=True)).finished
    assert base_of(env).tying.tolist() == [0, 1, 1, 1]


def test_steps_of_a_varied_trace_rise(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(header(THREE, None, varied=True) + "5 0 0 2\n6 0 1 1\n21 0 0 0\nend 30\n")
    assert len(read_trace(file).tyings) == 3 and read_trace(file).whole
    file.write_text(header(THREE, None, varied=True) + "5 0 0 2\n6 0 1 1\n6 0 0 0\nend 30\n")
    with pytest.raises(ValueError, match="line 5 is damaged: training step 6 follows 6; steps must rise"):
        read_trace(file)
    file.write_text(header(THREE, vector(0, 1, 1), varied=True) + "5 0 0 2\n6 0 1 1\nend 30\n")
    with pytest.raises(ValueError, match="line 3 is damaged: training step 5 where 0 is due"):
        read_trace(file)


def test_means_over_training_count_a_decision_by_its_steps() -> None:
    assert mean_over_training([10, 20], [{"interval": 9}, {"interval": 1}]) == 11
    assert mean_over_training([10, 20, 60], [{}, {}, {}]) == 30
    assert mean_over_training([10], [{"interval": 0}]) == 10  # training diverged in its first step
