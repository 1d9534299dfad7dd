"""Damaged, missing, swapped and hostile files: noticed every time, never a silently different run."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tying_agents.running.recorder import LOGS
from tying_agents.running.runner import resume, run

from tests.reliability.conftest import Counts
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.files import to_json
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory, load_run
from tying_env.runs.manifest import sealed

NEWEST, BEFORE = "checkpoints/000003", "checkpoints/000002"


@pytest.fixture
def stopped(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """A run that was stopped at its fifth decision: checkpoints 1 and 2 by the way, 3 by the stop."""
    path = tmp_path / "stopped"
    run(small(tiny, path, "random", keep_checkpoints=5), [Watcher(lambda n: interrupt() if n == 5 else None)])
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["000001", "000002", "000003"]
    return path


def read(path: Path) -> tuple[Checkpoint | None, list[str]]:
    notes: list[str] = []
    return Checkpoints(RunDirectory.open(path), LOGS).newest(notes.append), notes


def test_every_flipped_bit_is_noticed(stopped: Path, full: bool, counts: Counts) -> None:
    rng, flips, fell_back, refused = np.random.default_rng(0), 1000 if full else 120, 0, 0
    # Everything that resuming reads. (The events, the picture and the summary are for people.)
    files = sorted(p for p in stopped.rglob("*") if p.is_file() and p.parent.name.isdigit())
    files += [stopped / name for name in ("config.json", "metrics.jsonl", "trace.txt")]
    files = [path for path in files if path.stat().st_size]
    for _ in range(flips):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        flipped = bytearray(whole)
        place = int(rng.integers(len(flipped)))
        flipped[place] ^= 1 << int(rng.integers(8))
        with open(path, "r+b") as file:  # in place: whatever else may share the file shares the damage
            file.write(flipped)
        try:
            found, notes = read(stopped)
            assert found is not None
            used = stopped / NEWEST
            if path.is_relative_to(used):
                assert found.folder == stopped / BEFORE, (path, place)
                assert str(used) in notes[0]
                fell_back += 1
            elif path.parent == stopped and notes:  # a log: checkpoints that do not reach so far are still good
                fell_back += 1
            else:
                assert path.parent != stopped, (path, place, "not noticed")
                assert found.folder == used, "an older checkpoint is damaged: nobody has to know"
        except ValueError as error:
            assert "no checkpoint of" in str(error)
            refused += 1
        finally:
            path.write_bytes(whole)
    assert fell_back
    assert refused
    counts.add("bits flipped", flips, f"{fell_back} times an earlier checkpoint was used, {refused} times an error")


def test_every_flipped_bit_of_a_network_file_is_noticed(
    tiny: dict[str, Any], tmp_path: Path, full: bool, counts: Counts
) -> None:
    path = finish(small(tiny, tmp_path / "run", "random")) / "best.safetensors"
    rng, flips, whole = np.random.default_rng(1), 300 if full else 40, path.read_bytes()
    for i in range(flips):
        flipped = bytearray(whole)
        # Every other one in the header, which is a small part of the file.
        place = int(rng.integers(len(flipped) if i % 2 else struct.unpack("<Q", whole[:8])[0] + 8))
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"best\.safetensors"):
            load_run(path.parent)
    counts.add("bits flipped in a network file", flips)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def swap(path: Path) -> None:
    other = path.parents[1] / "000002" / path.name
    path.write_bytes(other.read_bytes())


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "of another checkpoint": swap,
    "a folder": lambda path: (path.unlink(), path.mkdir())[0],
    "a link": lambda path: (path.unlink(), path.symlink_to("/dev/zero"))[0],
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path))[0],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json", "best.safetensors"])
def test_a_damaged_checkpoint_is_passed_over_and_the_one_before_is_used(
    stopped: Path, name: str, damage: str, counts: Counts
) -> None:
    damaged = stopped / NEWEST / name
    content = damaged.read_bytes()
    DAMAGES[damage](damaged)
    found, notes = read(stopped)
    assert found is not None
    if damage == "of another checkpoint" and name == "best.safetensors" and damaged.read_bytes() == content:
        assert found.folder == stopped / NEWEST, "the same network was the best one then"
        return
    assert found.folder == stopped / BEFORE
    assert len(notes) == 1
    assert f"{stopped / NEWEST} cannot be used" in notes[0]
    counts.add(f"{name} {damage}", 1)


def test_a_run_continues_from_the_checkpoint_before_and_ends_the_same(
    stopped: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    expected = outcome(finish(small(tiny, tmp_path / "whole", "random", keep_checkpoints=5)))
    truncate(stopped / NEWEST / "tensors.safetensors")
    watcher = resume_until_it_ends(stopped)
    assert "cannot be used: tensors.safetensors has" in watcher.notes[0]
    assert outcome(stopped) == expected


def test_swapped_checkpoints_and_those_of_other_runs_are_noticed(
    stopped: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    folder = stopped / "checkpoints"
    (folder / "000003").rename(folder / "x")
    (folder / "000002").rename(folder / "000003")
    (folder / "x").rename(folder / "000002")
    found, notes = read(stopped)
    assert found is not None
    assert found.folder.name == "000001"
    assert len(notes) == 2
    other = tmp_path / "other"
    run(small(tiny, other, "random", seed=1), [Watcher(lambda n: interrupt() if n == 5 else None)])
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(folder, other / "checkpoints")
    with pytest.raises(ValueError, match=r"another config\.json"):
        read(other)


def test_missing_files_are_noticed(stopped: Path) -> None:
    metrics = (stopped / "metrics.jsonl").read_bytes()
    (stopped / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint of .* can be used: .*metrics\.jsonl"):
        resume(stopped, [Watcher()])
    (stopped / "metrics.jsonl").write_bytes(metrics)
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(FileNotFoundError, match="has no checkpoint to resume from, though it was past its first one"):
        resume(stopped, [Watcher()])
    (stopped / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        resume(stopped, [Watcher()])


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows how it is sealed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    change(manifest)
    (folder / "manifest.json").write_text(sealed(manifest))


def redescribe(folder: Path, name: str) -> None:
    """Let a manifest say of a file what it is now."""
    import hashlib

    data = (folder / name).read_bytes()
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(folder, lambda manifest: manifest["files"].update({name: described}))


class Alarm:
    """What a pickle can do: it runs when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path(os.environ["ALARM"]), "ran"))


def pickled(folder: Path) -> None:
    (folder / "tensors.safetensors").write_bytes(pickle.dumps(Alarm()))
    redescribe(folder, "tensors.safetensors")


def torch_saved(folder: Path) -> None:
    torch.save({"x": Alarm()}, folder / "tensors.safetensors")
    redescribe(folder, "tensors.safetensors")


def zip_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tensors.safetensors", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("data", b"\0" * (1 << 28))
    redescribe(folder, "tensors.safetensors")


def climbing_path(folder: Path) -> None:
    reseal(folder, lambda m: m["files"].update({"../../../../etc/passwd": m["files"]["state.json"]}))


def climbing_log(folder: Path) -> None:
    shutil.copy(folder.parents[1] / "metrics.jsonl", folder.parents[2])  # what it leads to is as it says
    reseal(folder, lambda m: m["logs"].update({"../metrics.jsonl": m["logs"]["metrics.jsonl"]}))


def absurd_tensor(folder: Path) -> None:
    header = {"env/trainer/dropout": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}}
    text = json.dumps(header).encode()
    (folder / "tensors.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    redescribe(folder, "tensors.safetensors")


def absurd_header(folder: Path) -> None:
    (folder / "tensors.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    redescribe(folder, "tensors.safetensors")


def deep_json(folder: Path) -> None:
    (folder / "state.json").write_text("[" * 200_000 + "]" * 200_000)
    redescribe(folder, "state.json")


def retensored(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "tensors.safetensors")
        change(tensors)
        save_file(tensors, folder / "tensors.safetensors")
        redescribe(folder, "tensors.safetensors")

    return damage


def restated(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        change(state)
        (folder / "state.json").write_text(to_json(state))
        redescribe(folder, "state.json")

    return damage


WEIGHT = "env/trainer/weights/transformer.wte.weight"
MOMENT = "env/trainer/optimizer/transformer.wte.weight/exp_avg"

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
