"""A run that was stopped and resumed ends with the same bits as one that never stopped."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tying_agents.run_config import RunConfig
from tying_agents.running import description, runner
from tying_agents.running.runner import resume, run
from tying_agents.running.saved import OtherSettings
from tying_agents.settings import DQNConfig, PatternConfig, ReplayConfig
from tying_agents.stopping import StopSignals

from tests.reliability.runs import Watcher, contents, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env import EnvConfig
from tying_env.data import ImageSet
from tying_env.primary import image_workload
from tying_env.runs import RunDirectory

AGENTS: dict[str, dict[str, Any]] = {
    "dqn": {},
    "dqn with every option": {
        "agent": "dqn",
        "controller": DQNConfig(replay_size=4, target_every=2, double_q=True, dueling=True, reward_scale="running"),
        "rewards": ("improvement", "shuffled"),
    },
    "random": {},
    "annealing": {},
    "layer-sweep-dqn": {},
    "ppo": {},
    "sb3-dqn": {},
    "maskable-ppo": {},
}


@pytest.fixture
def brief(tiny: dict[str, Any]) -> dict[str, Any]:
    """Five decisions, where it is not the decisions that are tried."""
    return tiny | {"total_steps": 6}


def of(name: str, tiny: dict[str, Any], path: Path, **more: Any) -> RunConfig:
    settings = {"agent": name} | AGENTS.get(name, {}) | more
    return small(tiny, path, **settings)


# The first decision, one with a checkpoint of before and one after it, and the last; all of them in the full form.
SHORT = (1, 2, 5, 9)


@pytest.mark.parametrize("name", [*AGENTS, "replay"])
def test_a_run_stopped_after_every_decision_ends_the_same(
    name: str, tiny: dict[str, Any], tmp_path: Path, full: bool, run_whole: dict[str, Any]
) -> None:
    def stop(decision: int) -> None:
        if full or decision in SHORT:
            interrupt()

    more: dict[str, Any] = {}
    if name == "annealing":  # two of three training steps are trials'
        tiny = tiny | {"total_steps": 28}
    if name == "replay":
        finish(small(tiny, tmp_path / "recorded", "random"))
        more["controller"] = ReplayConfig(trace=tmp_path / "recorded")
    expected = run_whole if name == "dqn" else outcome(finish(of(name, tiny, tmp_path / "whole", **more)))
    path, stops = tmp_path / "stopped", 0
    status = run(of(name, tiny, path, **more), [Watcher(stop)])[1]
    while status == "interrupted":
        stops += 1
        assert stops < 100, "the run does not end"
        status = resume(path, [Watcher(stop)])[1]
    assert stops >= (8 if full else 3)
    assert status == "finished"
    assert outcome(path) == expected


# How often `should_stop` is asked until it says yes: a search asks in its counterfactuals, too, and repeats them.
@pytest.mark.parametrize(("name", "questions"), [("dqn", 2), ("annealing", 17), ("ppo", 2), ("sb3-dqn", 2)])
def test_a_run_stopped_after_every_training_step_ends_the_same(
    name: str, questions: int, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny | {"total_steps": 40 if name == "annealing" else 7, "k": 3, "validate_every": 3}
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
    status, stops = run(of(name, tiny, path), [Watcher()])[1], 0
    while status == "interrupted":
        stops += 1
        assert stops < 50, "no headway"
        status = resume(path, [Watcher()])[1]
    assert stops >= (2 if name == "annealing" else 6)  # nearly one for every one of the 7 training steps
    assert status == "finished"
    assert outcome(path) == expected


def test_several_episodes_are_resumed(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | {"total_steps": 4}
    for agent in ("dqn", "a2c"):
        whole, path = tmp_path / f"{agent}-whole", tmp_path / f"{agent}-stopped"
        expected = outcome(finish(small(tiny, whole, agent, episodes=3)))
        assert run(small(tiny, path, agent, episodes=3), [Watcher(lambda n: interrupt() if n == 3 else None)])[1] == (
            "interrupted"
        )
        resume_until_it_ends(path)
        assert outcome(path) == expected
        assert [r["episode"] for r in RunDirectory.open(path).read_metrics()] == [1] * 3 + [2] * 3 + [3] * 3


def test_other_settings_are_refused_and_listed(brief: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(small(brief, path), [Watcher(lambda n: interrupt() if n == 3 else None)])
    before = sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*") if p.name != "lock")
    other = small(brief | {"learning_rate": 0.5}, path, seed=3)
    with pytest.raises(ValueError, match=r"seed is 0 there, 3 here; env.learning_rate is 0.001 there, 0.5 here"):
        resume(path, [Watcher()], other)
    assert sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*") if p.name != "lock") == before


def test_a_finished_run_is_not_resumed(brief: dict[str, Any], tmp_path: Path) -> None:
    path = finish(small(brief, tmp_path / "run"))
    with pytest.raises(ValueError, match="finished: there is nothing to resume"):
        resume(path, [Watcher()])


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(brief: dict[str, Any], tmp_path: Path) -> None:
    expected = outcome(finish(small(brief, tmp_path / "whole", checkpoint_every=3)))

    def die(decision: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "run"
    with pytest.raises(OSError, match="no space left"):
        run(small(brief, path, checkpoint_every=3), [Watcher(die)])
    watcher = resume_until_it_ends(path)
    assert watcher.notes[0] == f"{path} was stopped before its first checkpoint: starting over."
    assert outcome(path) == expected


def test_a_run_tells_when_it_was_resumed(brief: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(small(brief, path), [Watcher(lambda n: interrupt() if n == 3 else None)])
    resume_until_it_ends(path)
    (line,) = (path / "resumes.jsonl").read_text().splitlines()
    resumed = json.loads(line)
    assert resumed["from"] == "000002"
    assert resumed["versions"]["torch"]


# An agent with a tying of its own has no frozen start, and makes one decision more than others.
@pytest.mark.parametrize("agent", ["dqn", "albert", "conventional"])
def test_a_signal_while_results_are_saved_is_not_lost(
    agent: str,
    tiny: dict[str, Any],
    brief: dict[str, Any],
    tmp_path: Path,
    run_whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = tiny if agent == "dqn" else brief
    expected = run_whole if agent == "dqn" else outcome(finish(small(tiny, tmp_path / "whole", agent)))
    conclude = runner.conclude

    def interrupted(*given: Any) -> str:
        interrupt()
        return conclude(*given)

    monkeypatch.setattr(runner, "conclude", interrupted)
    assert run(small(tiny, tmp_path / "run", agent), [Watcher()])[1] == "interrupted"
    monkeypatch.undo()
    resume_until_it_ends(tmp_path / "run")  # the test split was not measured yet
    assert outcome(tmp_path / "run") == expected


def test_other_data_are_refused_and_listed(
    brief: dict[str, Any], text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(text_folder, tmp_path / "data"))
    path, config = tmp_path / "run", small(brief | {"dataset": str(data)}, tmp_path / "run")
    run(config, [Watcher(lambda n: interrupt() if n == 3 else None)])
    before = contents(path)
    text = (data / "valid.txt").read_text(encoding="utf-8")
    (data / "valid.txt").write_text(text.swapcase(), encoding="utf-8")  # as long as before
    with pytest.raises(OtherSettings, match=r"begun with other data: data\.content_key is '\w+' there, '\w+' here"):
        resume(path, [Watcher()])
    assert contents(path) == before
    (data / "valid.txt").write_text(text, encoding="utf-8")
    assert resume(path, [Watcher()])[1] == "finished"


def test_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    sizes: dict[str, Any] = {"n_layer": 3, "n_embd": 8, "n_head": 1, "batch_size": 4, "k": 2, "total_steps": 12}
    config = EnvConfig(**sizes, model="vit", dataset="digits", patch_size=4, device="cpu", validation_windows=8)
    path = tmp_path / "run"
    run(RunConfig("random", run_dir=path, env=config), [Watcher(lambda n: interrupt() if n == 2 else None)])
    load = image_workload.load_images

    def changed(name: str) -> ImageSet:
        images = load(name)
        return dataclasses.replace(images, images=images.images | {"train": 16 - images.images["train"]})

    monkeypatch.setattr(image_workload, "load_images", changed)
    with pytest.raises(OtherSettings, match=r"data\.content_key is '\w+' there, '\w+' here"):
        resume(path, [Watcher()])


def test_another_trace_or_pattern_is_refused(brief: dict[str, Any], tmp_path: Path) -> None:
    finish(small(brief, tmp_path / "a", "random"))
    finish(small(brief, tmp_path / "b", "random", seed=5))
    (tmp_path / "pattern.txt").write_text("0 0 2 2")
    named: dict[str, Any] = {
        "replay": ReplayConfig(trace=tmp_path / "a"),
        "pattern": PatternConfig(tmp_path / "pattern.txt"),
    }
    for agent, settings in named.items():
        config = small(brief, tmp_path / agent, agent, controller=settings)
        run(config, [Watcher(lambda n: interrupt() if n == 3 else None)])
    shutil.copy(tmp_path / "b" / "trace.txt", tmp_path / "a" / "trace.txt")
    (tmp_path / "pattern.txt").write_text("0 1 2 2")
    for agent in ("replay", "pattern"):
        with pytest.raises(OtherSettings, match=r"begun with other data: file_sha256 is '\w+' there, '\w+' here$"):
            resume(tmp_path / agent, [Watcher()])


@pytest.mark.parametrize(("at_first", "later"), [(0, 0), (25, 2), (2, 0), (2, 25)])
def test_a_run_that_never_wrote_a_checkpoint_begins_anew(
    at_first: int, later: int, tiny: dict[str, Any], tmp_path: Path, run_whole: dict[str, Any]
) -> None:
    path = tmp_path / "run"

    def die(decision: int) -> None:
        if decision == (1 if at_first == 2 else 5):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run(small(tiny, path, checkpoint_every=at_first), [Watcher(die)])
    if at_first == 2:  # and once more, past the first checkpoint there would have been
        with pytest.raises(OSError, match="no space left"):
            resume(path, [Watcher(lambda n: die(n - 4))], small(tiny, path, checkpoint_every=later))
    watcher = Watcher()
    assert resume(path, [watcher], small(tiny, path, checkpoint_every=later))[1] == "finished"
    assert watcher.notes[0] == f"{path} was stopped before its first checkpoint: starting over."
    assert outcome(path) == run_whole


def test_another_machine_is_said(brief: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    run(small(brief, path), [Watcher(lambda n: interrupt() if n == 3 else None)])
    about = RunDirectory.open(path).read_json("config.json")
    assert about["threads"] == torch.get_num_threads()
    assert about["processor"]
    watcher = Watcher(lambda n: interrupt() if n == 4 else None)
    resume(path, [watcher])
    assert not [note for note in watcher.notes if "bits" in note]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(description, "_version", lambda package: "0.1" if package == "torch" else None)
    monkeypatch.setattr(description, "PACKAGES", ("torch",))
    resume(path, [watcher := Watcher()])
    (note,) = [note for note in watcher.notes if "bits" in note]
    assert f"threads is {about['threads']} there, 7 here" in note
    assert f"versions.torch is '{about['versions']['torch']}' there, '0.1' here" in note
    *_, last = (path / "resumes.jsonl").read_text().splitlines()
    assert json.loads(last)["threads"] == 7


def test_that_compiled_blocks_draw_other_masks_is_said(
    brief: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: None)  # the note is the same, and comes sooner
    path = tmp_path / "run"
    run(small(brief, path), [Watcher(lambda n: interrupt() if n == 3 else None)])
    resume(path, [watcher := Watcher(lambda n: interrupt() if n == 4 else None)])
    assert not [note for note in watcher.notes if "masks" in note]
    resume(path, [watcher := Watcher()], small(brief | {"compile_blocks": True}, path))
    (note,) = [note for note in watcher.notes if "masks" in note]
    assert "numbers differ from here on: compile_blocks is False there, True here" in note


def test_another_label_is_refused(brief: dict[str, Any], tmp_path: Path) -> None:
    run(small(brief, tmp_path / "run", label="a"), [Watcher(lambda n: interrupt() if n == 3 else None)])
    with pytest.raises(OtherSettings, match="label is 'a' there, 'b' here"):
        resume(tmp_path / "run", [Watcher()], small(brief, tmp_path / "run", label="b"))
