"""A process that is killed, at whatever moment, leaves a whole checkpoint; the next one ends with the same bits."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reliability import child
from tests.reliability.conftest import BRIEF, Counts
from tests.reliability.runs import finish, outcome, small

SIX = BRIEF | {"total_steps": 7, "warmup_steps": 2, "schedule": "cosine"}  # decisions
# Muon leaves what is no matrix of a block to AdamW.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon"},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.2},
}


@pytest.fixture
def tiny(text_folder: Path) -> dict[str, Any]:
    return SIX | {"dataset": str(text_folder)}


def expected(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return outcome(finish(small(tiny, tmp_path / "whole")))


def go_on(config: Any) -> None:
    process = child.start(config)
    process.join(120)
    assert process.exitcode == 0


def test_a_run_killed_at_any_change_of_the_disk_ends_the_same(
    tiny: dict[str, Any], tmp_path: Path, full: bool, counts: Counts
) -> None:
    tiny |= OPTIMIZERS["muon"]
    whole = expected(tiny, tmp_path)
    config = small(tiny, tmp_path / "counted")  # the token cache is there already
    moments = child.number()
    process = child.start(config, count_into=moments)
    process.join(120)
    assert process.exitcode == 0
    assert outcome(tmp_path / "counted") == whole
    assert moments.value > 100
    every = 1 if full else moments.value // 8
    tried = range(1, moments.value + 1, every)
    for moment in tried:
        config = small(tiny, tmp_path / f"at{moment}")
        process = child.start(config, die_at=moment)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, moment
        go_on(config)
        assert outcome(tmp_path / f"at{moment}") == whole, moment
    counts.add("killed at a change of the disk", len(tried), f"of {moments.value} such moments in a run")


def test_a_run_killed_again_and_again_at_random_times_ends_the_same(
    tiny: dict[str, Any], tmp_path: Path, full: bool, counts: Counts
) -> None:
    tiny |= OPTIMIZERS["sgd"]
    whole = expected(tiny, tmp_path)
    wanted, kills, runs = (100, 0, 0) if full else (5, 0, 0)
    rng = np.random.default_rng(0)
    while kills < wanted:
        runs += 1
        config = small(tiny, tmp_path / f"run{runs}")
        while True:
            process = child.start(config)
            process.join(float(rng.uniform(0.02, 0.4)))
            if process.exitcode is None and kills < wanted:
                process.kill()
                process.join()
                kills += 1
                continue
            process.join(120)
            assert process.exitcode == 0
            break
        assert outcome(tmp_path / f"run{runs}") == whole
    counts.add("killed at a random time", kills, f"in {runs} runs")


def test_two_processes_on_one_run_directory(tiny: dict[str, Any], tmp_path: Path) -> None:
    from tying_agents.running.runner import resume

    from tests.reliability.runs import Watcher, interrupt

    config = small(tiny | {"total_steps": 100_000}, tmp_path / "run")
    process = child.start(config)
    try:
        for _ in range(600):
            if (tmp_path / "run" / "checkpoints").exists():
                break
            time.sleep(0.05)
        with pytest.raises(BlockingIOError, match=r"another process is at work in .*run; wait for it, or stop it"):
            resume(tmp_path / "run", [Watcher(lambda _: interrupt())])  # if it may, it does not train for hours
    finally:
        process.kill()
        process.join()
    # The lock went with the process: resuming is possible at once.
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["decision"] == 1
    process = child.start(config)
    try:
        for _ in range(600):
            if (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") > len(lines):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("it does not work on")
        assert process.exitcode is None
    finally:
        process.kill()
        process.join()
