"""Damaged, missing and swapped files: noticed every time, never a silently different run."""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.running.recorder import LOGS
from tying_agents.running.runner import resume, run

from tests.reliability.conftest import Counts
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory, load_run

NEWEST, BEFORE = "checkpoints/000003", "checkpoints/000002"


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
