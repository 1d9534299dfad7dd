"""Hostile files: refused, without running code, and nothing is changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tying_agents.running.runner import resume

from tests.reliability.attacks import (
    MOMENT,
    WEIGHT,
    absurd_header,
    absurd_tensor,
    climbing_log,
    climbing_path,
    deep_json,
    pickled,
    redescribe,
    restated,
    retensored,
    torch_saved,
    zip_bomb,
)
from tests.reliability.conftest import Counts
from tests.reliability.runs import Watcher

NEWEST = "checkpoints/000003"

HOSTILE: dict[str, Callable[[Path], None]] = {
    "a pickle": pickled,
    "a file of torch.save": torch_saved,
    "a zip bomb": zip_bomb,
    "a path that climbs out": climbing_path,
    "a log that climbs out": climbing_log,
    "a tensor of absurd size": absurd_tensor,
    "a header of absurd size": absurd_header,
    "JSON of absurd depth": deep_json,
    "a weight of another type": retensored(lambda t: t.update({WEIGHT: t[WEIGHT].double()})),
    "a weight of another shape": retensored(lambda t: t.update({WEIGHT: t[WEIGHT][:5].clone()})),
    "a moment of another type": retensored(lambda t: t.update({MOMENT: t[MOMENT].half()})),
    "a weight that is missing": retensored(lambda t: t.pop(WEIGHT)),
    "one tensor too many": retensored(lambda t: t.update({"more": torch.zeros(3)})),
    "a tying that is not canonical": restated(lambda s: s["env"]["trainer"].update({"tying": [0, 0, 1, 0]})),
    "a tying of another length": restated(lambda s: s["env"]["trainer"].update({"tying": [0] * 7})),
    "sources that are not canonical": restated(lambda s: s["env"]["trainer"].update({"sources": [0, 0, 1, 0]})),
    "sources that are text": restated(lambda s: s["env"]["trainer"].update({"sources": "0000"})),
    "a generator that is none": restated(lambda s: s["env"].update({"np_random": {"bit_generator": "MT19937"}})),
    "a step below zero": restated(lambda s: s["env"].update({"train_step": -5})),
    "a step that is text": restated(lambda s: s["env"].update({"train_step": "os.system('true')"})),
    "a decision under way with wrong losses": restated(
        lambda s: s["env"]["under_way"].update({"losses": ["x"]}) if s["env"]["under_way"] else s.pop("env")
    ),
    "a controller that is missing": restated(lambda s: s.pop("controller")),
    "an environment that is a list": restated(lambda s: s.update({"env": [1, 2]})),
    "a recorder that is empty": restated(lambda s: s.update({"recorder": {}})),
    "other wrappers": restated(lambda s: s.update({"wrappers": [{"wrapper": "os"}]})),
    "a state that is a list": lambda folder: (
        (folder / "state.json").write_text("[1]"),
        redescribe(folder, "state.json"),
    )[0],
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_files_are_refused_without_running_code(
    stopped: Path, attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    monkeypatch.setenv("ALARM", str(tmp_path / "alarm"))
    for number in ("000001", "000002"):
        shutil.rmtree(stopped / "checkpoints" / number)
    HOSTILE[attack](stopped / NEWEST)
    before = {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file() and p.name != "lock"}
    with pytest.raises(ValueError, match=r"checkpoint|state|tying"):
        resume(stopped, [Watcher()])
    assert not (tmp_path / "alarm").exists()
    assert {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file() and p.name != "lock"} == before
    counts.add(f"hostile {attack}", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update({"seed": -1}), "seed must be a whole number of at least 0, got -1"),
        (lambda c: c["env"].update({"n_layer": 10**9}), "n_layer must be at most"),
        (lambda c: c["env"].update({"n_layer": "4"}), "n_layer"),
        (lambda c: c.update({"env": []}), "env"),
        (lambda c: c.update({"agent": "dqn", "controller": {"gamma": "x"}}), "controller.gamma must be float, got 'x'"),
        (lambda c: c.update({"agent": "../../bin/sh"}), "agent must be one of"),
    ],
)
def test_a_hostile_config_is_refused(stopped: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    config = json.loads((stopped / "config.json").read_text())
    change(config)
    (stopped / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        resume(stopped, [Watcher()])
