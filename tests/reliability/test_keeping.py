"""Which checkpoints are kept, and what is done with those that are damaged."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from tying_agents.running.runner import resume, run

from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.runs import Checkpoints, RunDirectory


def numbers(path: Path) -> list[str]:
    return sorted(p.name for p in (path / "checkpoints").iterdir())


def flip(path: Path) -> None:
    with open(path, "r+b") as file:  # in place
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(RunDirectory.create(tmp_path / "run", {}), (), keep=2)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ([(None, 1)] * 5, [4, 5]),  # without validation none is the best
        ([(9.0, 1), (5.0, 1), (7.0, 1), (8.0, 1), (8.5, 1)], [2, 4, 5]),
        ([(9.0, 1), (None, 1), (None, 1), (None, 1)], [1, 3, 4]),
        ([(1.0, 1), (9.0, 2), (8.0, 2), (8.5, 2), (8.6, 2)], [3, 4, 5]),  # an episode before has another network
        ([(1.0, 1), (1.0, 1), (None, 2), (None, 2)], [3, 4]),
    ],
)
def test_kept_are_the_newest_and_the_best_of_the_episode(
    checkpoints: Checkpoints, tmp_path: Path, written: list[tuple[float | None, int]], kept: list[int]
) -> None:
    for validation, episode in written:
        checkpoints.write({}, validation, episode)
    assert numbers(tmp_path / "run") == [f"{number:06d}" for number in kept]


def test_a_checkpoint_has_the_validation_of_its_own_network(tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = tiny | {"total_steps": 60, "validate_every": 2, "learning_rate": 0.3}  # it gets worse again
    path = finish(small(settings, tmp_path / "run", checkpoint_every=4, keep_checkpoints=3))
    records = {record["decision"]: record for record in RunDirectory.open(path).read_metrics()}
    for folder in (path / "checkpoints").iterdir():
        decision = json.loads((folder / "state.json").read_text())["recorder"]["decision"]
        said = json.loads((folder / "manifest.json").read_text())["validation_perplexity"]
        assert said == records[decision]["validation_perplexity"]


def test_a_damaged_checkpoint_is_none_of_those_kept(tiny: dict[str, Any], tmp_path: Path) -> None:
    expected = outcome(finish(small(tiny, tmp_path / "whole", checkpoint_every=1)))
    path = tmp_path / "run"
    run(small(tiny, path, checkpoint_every=1), [Watcher(lambda n: interrupt() if n == 5 else None)])
    *_, before, newest = numbers(path)
    flip(path / "checkpoints" / newest / "tensors.safetensors")
    watcher = Watcher(lambda n: interrupt())
    assert resume(path, [watcher])[1] == "interrupted"
    assert f"{newest} cannot be used" in watcher.notes[0]
    found = numbers(path)
    assert f"damaged-{newest}-1" in found
    whole = [name for name in found if name.isdigit()]
    assert before in whole  # it and the new one are the newest two that are whole
    notes: list[str] = []
    flip(path / "checkpoints" / whole[-1] / "state.json")
    from tying_agents.running.recorder import LOGS

    assert Checkpoints(RunDirectory.open(path), LOGS).newest(notes.append) is not None
    resume_until_it_ends(path)
    assert outcome(path) == expected


@pytest.mark.parametrize("where", ["best.safetensors", "checkpoints/newest/best.safetensors"])
def test_one_flipped_bit_in_the_best_network_loses_nothing(
    where: str, tiny: dict[str, Any], tmp_path: Path, run_whole: dict[str, Any]
) -> None:
    path = tmp_path / "run"
    run(small(tiny, path), [Watcher(lambda n: interrupt() if n == 7 else None)])
    assert len(numbers(path)) >= 2
    flip(path / where.replace("newest", numbers(path)[-1]))
    resume_until_it_ends(path)
    assert outcome(path) == run_whole


def test_checkpoints_are_counted_not_sorted_as_text(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    for number in (999_998, 999_999):
        checkpoints.write({"number": number}, None)
        written = max(folder.iterdir())
        manifest = json.loads((written / "manifest.json").read_text())
        from tying_env.runs.manifest import sealed

        del manifest["sha256"]
        (written / "manifest.json").write_text(sealed(manifest | {"number": number}))
        written.rename(folder / str(number))
    assert checkpoints.write({"number": 1_000_000}, None).name == "1000000"
    found = checkpoints.newest(print)
    assert found is not None
    assert found.state == {"number": 1_000_000}
    assert checkpoints.write({}, None).name == "1000001"
    assert numbers(tmp_path / "run") == ["1000000", "1000001"]


def test_files_have_the_permissions_that_new_files_get(tiny: dict[str, Any], tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = finish(small(tiny, tmp_path / "run"))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
    assert {name: mode for name, mode in modes.items() if mode != 0o640 and name != "lock"} == {}
