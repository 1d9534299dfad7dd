"""A run that was stopped and gone on with ends with the same bits as one that never stopped."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.controllers import PatternConfig
from agents.factorized_dqn import DQNConfig
from agents.recorder import Recorder
from agents.run_config import RunConfig
from agents.runner import resume, run
from agents.stop_signals import StopSignals
from tests.reliability.runs import Watcher, finish, go_on_until_it_ends, interrupt, outcome, small
from tying_env.runs import RunDirectory

AGENTS: dict[str, dict[str, Any]] = {
    "dqn": {},
    "dqn with every option": {
        "agent": "dqn",
        "dqn": DQNConfig(replay_size=4, target_every=2, double_q=True, dueling=True, reward_scale="running"),
        "rewards": ("improvement", "shuffled"),
    },
    "random": {},
    "annealing": {},
    "layer-sweep-dqn": {},
    "ppo": {},
    "sb3-dqn": {},
    "maskable-ppo": {},
}


def of(name: str, tiny: dict[str, Any], path: Path, **more: Any) -> RunConfig:
    settings = {"agent": name} | AGENTS.get(name, {}) | more
    return small(tiny, path, **settings)


@pytest.mark.parametrize("name", [*AGENTS, "replay"])
def test_a_run_stopped_after_every_decision_ends_the_same(name: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    more: dict[str, Any] = {}
    if name == "replay":
        finish(small(tiny, tmp_path / "recorded", "random"))
        more["pattern"] = PatternConfig(trace=tmp_path / "recorded")
    expected = outcome(finish(of(name, tiny, tmp_path / "whole", **more)))
    path, stops = tmp_path / "stopped", 0
    status = run(of(name, tiny, path, **more), Watcher(lambda _: interrupt()))[1]
    while status == "interrupted":
        stops += 1
        assert stops < 100, "the run does not end"
        status = resume(path, Watcher(lambda _: interrupt()))[1]
    assert stops >= 8
    assert status == "finished"
    assert outcome(path) == expected


# How often `should_stop` is asked until it says yes: a search asks in its counterfactuals, too, and makes them anew.
@pytest.mark.parametrize(("name", "questions"), [("dqn", 2), ("annealing", 17), ("ppo", 2), ("sb3-dqn", 2)])
def test_a_run_stopped_after_every_training_step_ends_the_same(
    name: str, questions: int, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny | {"total_steps": 10, "k": 3, "validate_every": 5}
    expected = outcome(finish(of(name, tiny, tmp_path / "whole")))
    path = tmp_path / "stopped"
    asked = 0

    def should_stop(self: StopSignals) -> bool:
        nonlocal asked
        asked += 1
        if asked % questions == 0:
            interrupt()
        return self.asked is not None

    monkeypatch.setattr(StopSignals, "should_stop", should_stop)
    status, stops = run(of(name, tiny, path), Watcher())[1], 0
    while status == "interrupted":
        stops += 1
        assert stops < 50, "no headway"
        status = resume(path, Watcher())[1]
    assert stops >= (2 if name == "annealing" else 9)  # nearly one for every one of the 10 training steps
    assert status == "finished"
    assert outcome(path) == expected


def test_several_episodes_are_gone_on_with(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | {"total_steps": 8}
    for agent in ("dqn", "a2c"):
        whole, path = tmp_path / f"{agent}-whole", tmp_path / f"{agent}-stopped"
        expected = outcome(finish(small(tiny, whole, agent, episodes=3)))
        assert run(small(tiny, path, agent, episodes=3), Watcher(lambda n: interrupt() if n == 3 else None))[1] == (
            "interrupted"
        )
        go_on_until_it_ends(path)
        assert outcome(path) == expected
        assert [r["episode"] for r in RunDirectory.open(path).read_metrics()] == [1] * 3 + [2] * 3 + [3] * 3


def test_other_settings_are_refused_and_listed(tiny: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(small(tiny, path), Watcher(lambda n: interrupt() if n == 3 else None))
    before = sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*") if p.name != "lock")
    other = small(tiny | {"learning_rate": 0.5}, path, seed=3)
    with pytest.raises(ValueError, match=r"seed is 0 there, 3 here; env.learning_rate is 0.001 there, 0.5 here"):
        resume(path, Watcher(), other)
    assert sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*") if p.name != "lock") == before


def test_a_finished_run_is_not_gone_on_with(tiny: dict[str, Any], tmp_path: Path) -> None:
    path = finish(small(tiny, tmp_path / "run"))
    with pytest.raises(ValueError, match="finished: there is nothing to go on with"):
        resume(path, Watcher())


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(tiny: dict[str, Any], tmp_path: Path) -> None:
    expected = outcome(finish(small(tiny, tmp_path / "whole", checkpoint_every=3)))

    def die(decision: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "run"
    with pytest.raises(OSError, match="no space left"):
        run(small(tiny, path, checkpoint_every=3), Watcher(die))
    watcher = go_on_until_it_ends(path)
    assert watcher.notes[0] == f"{path} was stopped before its first checkpoint: beginning anew."
    assert outcome(path) == expected


def test_a_run_tells_when_it_was_gone_on_with(tiny: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(small(tiny, path), Watcher(lambda n: interrupt() if n == 3 else None))
    go_on_until_it_ends(path)
    (line,) = (path / "resumes.jsonl").read_text().splitlines()
    resumed = json.loads(line)
    assert resumed["from"] == "000002"
    assert resumed["versions"]["torch"]


def test_a_signal_while_results_are_saved_is_not_lost(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, conclude = outcome(finish(small(tiny, tmp_path / "whole"))), Recorder.conclude

    def interrupted(self: Recorder, stopped: str | None) -> str:
        interrupt()
        return conclude(self, stopped)

    monkeypatch.setattr(Recorder, "conclude", interrupted)
    assert run(small(tiny, tmp_path / "run"), Watcher())[1] == "interrupted"
    monkeypatch.undo()
    go_on_until_it_ends(tmp_path / "run")  # the test split was not measured yet
    assert outcome(tmp_path / "run") == expected
