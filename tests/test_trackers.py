"""Trackers are told of settings, decisions, validation and summary, once each, however often a run is resumed.

The libraries themselves are too large for the tests: recording fakes stand in for them. docs/doors/callback.md has what
came of real runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tying_agents import drive, run
from tying_agents.running.runner import resume
from tying_agents.trackers.base import Tracker
from tying_agents.trackers.mlflow import MlflowTracker
from tying_agents.trackers.trackio import TrackioTracker
from tying_agents.trackers.wandb import WandbTracker

from tests.conftest import Make
from tests.controllers import make_controller
from tests.fake_trackers import FakeMlflow, FakeTrackio, FakeWandb
from tests.own_code import layer_tying
from tests.own_code import small as small_options
from tests.reliability.runs import Watcher, interrupt, small


class Kept(Tracker):
    """Keeps what it is told, and says that a record has every step it was given before."""

    kind = "kept"

    def __init__(self, before: "Kept | None" = None) -> None:
        super().__init__()
        self.rows: dict[int, dict[str, float]] = {} if before is None else dict(before.rows)
        self.given: list[int] = []
        self.saved: str | None = None
        self.ends: list[tuple[str, dict[str, Any], int]] = []

    def begin(self, loop: Any, name: str, settings: dict[str, Any], saved: str | None) -> tuple[str, int]:
        self.name, self.settings, self.saved = name, settings, saved
        return "the id", max(self.rows, default=-1)

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.given.append(step)
        self.rows[step] = numbers

    def finish(self, status: str, summary: dict[str, Any], step: int) -> None:
        self.ends.append((status, summary, step))


def test_a_tracker_is_told_settings_decisions_validation_and_summary(tmp_path: Path, tiny: Any) -> None:
    kept = Kept()
    directory, _ = run(small(tiny, tmp_path / "run"), [kept])
    assert kept.name == "run"
    assert kept.settings["env"]["k"] == 2
    assert kept.settings["controller"]["gamma"] == 0.99
    json.dumps(kept.settings)
    records = {record["train_step"]: record for record in directory.read_metrics()}
    assert list(kept.rows) == list(records) == kept.given
    for step, row in kept.rows.items():
        for name in ("perplexity", "reward", "learning_rate", "gradient_norm", "weights_bytes"):
            assert row[name] == records[step][name]
        assert row["tokens_per_second"] > 0
        assert ("validation_perplexity" in row) == (step % 4 == 0), "only where it was measured"
        assert not {"tying", "action"} & set(row)
    [(status, summary, step)] = kept.ends
    assert (status, step, summary["stop_reason"]) == ("finished", 20, "")
    saved = directory.read_json("summary.json")
    assert summary["test.best.perplexity"] == saved["test"]["best"]["perplexity"]
    assert summary["best_validation_perplexity"] == saved["best_validation_perplexity"]


def test_a_resumed_run_continues_its_record_and_logs_no_step_twice(tmp_path: Path, tiny: Any) -> None:
    first, path = Kept(), tmp_path / "run"

    def fail(decision: int) -> None:
        if decision == 5:
            raise OSError("on purpose")

    with pytest.raises(OSError, match="on purpose"):
        run(small(tiny, path), [first, Watcher(fail)])
    assert [end[:2] for end in first.ends] == [("failed", {"stop_reason": ""})], "closed also when the run fails"
    assert first.given == [4, 6, 8, 10, 12]
    second = Kept(first)
    resume(path, [second, Watcher(lambda decision: interrupt() if decision == 7 else None)])
    assert second.saved == "the id"
    assert second.given == [14, 16], "the checkpoint is at 10; 12 was logged before"
    assert second.ends[0][0] == "interrupted"
    third = Kept(second)
    assert resume(path, [third])[1] == "finished"
    assert third.given == [18, 20]
    whole = Kept()
    run(small(tiny, tmp_path / "whole"), [whole])
    for row in (*third.rows.values(), *whole.rows.values()):
        del row["tokens_per_second"]
    assert third.rows == whole.rows


def test_a_run_that_begins_anew_has_a_new_record(tmp_path: Path, tiny: Any) -> None:
    first, path = Kept(), tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        run(small(tiny, path), [first, Watcher(lambda decision: print(1 / 0))])
    second = Kept()
    resume(path, [second])
    assert second.saved is None
    assert second.given[0] == 4


def test_a_tracker_serves_a_loop_without_a_run_directory_too(make: Make) -> None:
    kept = Kept()
    drive(make_controller("random", 4, 0), make(), [kept], seed=0)
    assert kept.settings["k"] == 2
    assert len(kept.rows) == 9
    assert kept.ends[0][0] == "finished"


@pytest.mark.parametrize("name", ["wandb:WandbTracker", "mlflow:MlflowTracker", "trackio:TrackioTracker"])
def test_a_tracker_whose_library_is_absent_is_refused_with_nothing_written(
    text_folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    library = name.partition(":")[0]
    monkeypatch.setitem(sys.modules, library, None)
    options = ["--callbacks", f"tying_agents.trackers.{name}", *small_options(text_folder)]
    code, out = layer_tying(capsys, "run", "--agent", "random", *options, "--run-dir", tmp_path / "run")
    assert code == 1
    assert out.endswith(f"error: this tracker needs {library}: pip install 'tying-env[{library}]'")
    assert not (tmp_path / "run").exists()


def test_wandb_is_offline_in_the_run_directory_unless_its_environment_variables_say_otherwise(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = FakeWandb(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    run(small(tiny, path), [WandbTracker(tags=["small"]), Watcher(lambda n: interrupt() if n == 5 else None)])
    settings = fake.calls[0][1]
    assert {name: settings[name] for name in ("mode", "dir", "project", "name", "tags")} == {
        "mode": "offline",
        "dir": str(path),
        "project": "layer-tying",
        "name": "run",
        "tags": ["small"],
    }
    assert settings["config"]["env"]["k"] == 2
    assert [step for verb, step in fake.calls if verb == "log"] == [4, 6, 8, 10, 12]
    assert fake.calls[-2][1]["status"] == "interrupted"
    assert fake.calls[-1] == ("finish", 0)
    fake.calls.clear()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    fake.resumed, fake.step = True, 13
    resume(path, [WandbTracker()])
    settings = fake.calls[0][1]
    assert (settings["id"], settings["resume"]) == ("w1", "allow")
    assert not {"mode", "project"} & set(settings), "the library reads them itself"
    assert [step for verb, step in fake.calls if verb == "log"] == [14, 16, 18, 20]


def test_mlflow_has_parameters_metrics_at_steps_tags_and_a_status(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = FakeMlflow(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setattr("tying_agents.trackers.mlflow._BATCH", 7)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named outside")
    run(small(tiny, path), [MlflowTracker(), Watcher(lambda n: interrupt() if n == 5 else None)])
    assert (fake.experiment, fake.uri) == ("named outside", None)
    assert (fake.params["env.k"], fake.params["controller.gamma"], fake.params["agent"]) == ("2", "0.99", "dqn")
    assert max(fake.batches) == 7
    assert fake.tags["status"] == "interrupted"
    resume(path, [MlflowTracker("mine", "sqlite:///x.db")])
    assert fake.uri == "sqlite:///x.db"
    assert fake.statuses == ["KILLED", "RUNNING", "FINISHED"]
    assert [step for name, _, _, step in fake.metrics if name == "decision"] == list(range(4, 21, 2))
    assert [step for name, _, _, step in fake.metrics if name == "summary.decisions"] == [12, 20]
    assert (fake.tags["status"], fake.tags["stop_reason"]) == ("finished", "")
    (sign,) = json.loads(fake.tags["notes"])  # of a controller that failed, in so few decisions
    assert sign.startswith("explores at random to the end")


def test_trackio_has_a_row_for_each_decision_and_the_status_in_a_last_one(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = FakeTrackio(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "trackio", fake)
    run(small(tiny, path), [TrackioTracker(group="g"), Watcher(lambda n: interrupt() if n == 5 else None)])
    resume(path, [TrackioTracker()])
    first, second = fake.inits
    assert (first["project"], first["group"], first["resume"]) == ("layer-tying", "g", "never")
    assert first["name"].startswith("run-")
    assert (second["name"], second["resume"]) == (first["name"], "allow")
    assert [step for step, row in fake.rows if "decision" in row] == list(range(4, 21, 2))
    ends = [(step, row) for step, row in fake.rows if "status" in row]
    assert [(step, row["status"]) for step, row in ends] == [(12, "interrupted"), (20, "finished")]
    assert ends[-1][1]["summary/decisions"] == 9
    assert fake.finished == 2
