"""Runs of a comparison that were stopped, damaged or cannot be resumed now: none is lost."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tying_agents.many.comparison import make_comparison
from tying_agents.many.one_run import make_one_run
from tying_agents.many.plan import ArmSpec, RunPlan
from tying_agents.run_config import RunConfig
from tying_agents.running import runner
from tying_agents.running.runner import run
from tying_agents.running.saved import OtherSettings

from tests.reliability.runs import Watcher, contents, finish, interrupt, small


@pytest.fixture
def data(text_folder: Path, tmp_path: Path) -> Path:
    """A data folder that can be changed."""
    return Path(shutil.copytree(text_folder, tmp_path / "data"))


def stopped(tiny: dict[str, Any], path: Path, decision: int = 5, **settings: Any) -> tuple[RunConfig, Path]:
    """Return a run of a comparison, and its folder, in which it was stopped after a decision."""
    config, unfinished = small(tiny, path, **settings), path.with_name(f"{path.name}.unfinished")
    stop = Watcher(lambda n: interrupt() if n == decision else None)
    run(dataclasses.replace(config, run_dir=unfinished), [stop])
    (unfinished / "mark").write_text("")  # a run that starts over would be without it
    return config, unfinished


def test_a_run_whose_data_are_away_is_left_alone(tiny: dict[str, Any], data: Path, tmp_path: Path) -> None:
    config, unfinished = stopped(tiny | {"dataset": str(data)}, tmp_path / "run")
    before = contents(unfinished)
    data.rename(tmp_path / "away")
    with pytest.raises((FileNotFoundError, ValueError), match="data"):
        make_one_run(config, 1)
    assert contents(unfinished) == before
    (tmp_path / "away").rename(data)
    assert make_one_run(config, 1) == "finished"
    assert (tmp_path / "run" / "mark").exists()


def test_an_unfinished_run_with_other_settings_is_refused_before_anything_is_made(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    _, unfinished = stopped(tiny, tmp_path / "out" / "runs" / "a" / "seed1", label="a", seed=1)
    (tmp_path / "out" / "comparison.json").write_text('{"arms": ["a"]}')
    before = contents(unfinished)
    other = small(tiny | {"learning_rate": 0.5}, tmp_path / "x", checkpoint_every=2)
    message = r"seed1.unfinished is an unfinished run with other settings: env.learning_rate is 0.001 there, 0.5 here"
    with pytest.raises(ValueError, match=message):
        make_comparison(
            [ArmSpec("a", lambda runs, seed: other)], RunPlan(tmp_path / "out", (0, 1)), lambda done, total: None
        )
    assert contents(unfinished) == before
    assert not (tmp_path / "out" / "runs" / "a" / "seed0").exists()
    with pytest.raises(OtherSettings, match=r"learning_rate is 0\.001 there, 0\.5 here"):
        make_one_run(dataclasses.replace(other, seed=1, run_dir=tmp_path / "out" / "runs" / "a" / "seed1"), 1)
    assert contents(unfinished) == before


@pytest.mark.parametrize("name", ["trace.txt", "config.json", "checkpoints"])
def test_a_damaged_run_is_kept_under_another_name_and_said_so(
    name: str, tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = finish(small(tiny, tmp_path / "whole"))
    (tmp_path / "run.damaged-1.unfinished").mkdir()  # it has happened before
    config, unfinished = stopped(tiny, tmp_path / "run")
    if name == "checkpoints":
        shutil.rmtree(unfinished / name)
    else:
        damaged = bytearray((unfinished / name).read_bytes())
        damaged[3] ^= 0x80
        (unfinished / name).write_bytes(damaged)
    before = contents(unfinished)
    assert make_one_run(config, 1) == "finished"
    aside = tmp_path / "run.damaged-2.unfinished"
    assert contents(aside) == before
    error = capfd.readouterr().err
    assert f"It is kept as {aside}; the run starts over" in error
    assert name.removesuffix("s") in error
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()


def test_a_run_that_was_killed_before_it_got_its_name_is_kept(tiny: dict[str, Any], tmp_path: Path) -> None:
    config, unfinished = stopped(tiny, tmp_path / "run", decision=99)
    assert json.loads((unfinished / "summary.json").read_text())["status"] == "finished"
    assert make_one_run(config, 1) == "finished"
    assert (tmp_path / "run" / "mark").exists()
    assert not unfinished.exists()


def test_a_signal_at_the_very_end_of_a_run_without_a_test_leaves_it_finished(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclude = runner.conclude

    def interrupted(*given: Any) -> str:
        interrupt()
        return conclude(*given)

    monkeypatch.setattr(runner, "conclude", interrupted)
    directory, status = run(small(tiny, tmp_path / "run", measure_test=False), [Watcher()])
    assert status == "finished" == directory.read_json("summary.json")["status"]
