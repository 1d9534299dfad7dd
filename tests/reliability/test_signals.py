"""Signals to a comparison: its runs are saved and stopped, no process stays behind, and it resumes to the same ends."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import called
from tests.started import Started, script
from tying_env.runs import RunDirectory
from tying_env.runs.checkpoints import FOLDER

SMALL = [
    *("--tokenizer", "bytes", "--n-layer", "4", "--n-embd", "16", "--n-head", "2", "--seq-len", "16"),
    *("--batch-size", "4", "--k", "4", "--validate-every", "16", "--test-windows", "4", "--checkpoint-every", "1000"),
    *("--validation-windows", "8"),
]


def words(out: Path, text_folder: Path, jobs: int, steps: int, *more: str) -> list[str]:
    many = ["--agents", "random", "--seeds", "3", "--jobs", str(jobs), "--out", str(out)]
    return [*many, *SMALL, *more, "--dataset", str(text_folder), "--total-steps", str(steps)]


def begin(out: Path, text_folder: Path, jobs: int, steps: int, *more: str, forks: bool = True) -> Started:
    return script("compare.py", *words(out, text_folder, jobs, steps, *more), new_session=True, forks=forks)


# Runs that are all under way when the signal comes: each waits for it in its midst. Workers that are interpreters leave
# pictures out, too, and do not go through all that they have imported when they end.
IN_STEP = """
import gc, time
from tests.maps import leave_out_maps
from tying_agents import Callback

leave_out_maps(setattr)
gc.freeze()

class InStep(Callback):
    def decision_made(self, loop, record):
        while record["decision"] == 5 and not list(loop.directory.parents[2].glob("stop-*")):
            time.sleep(0.02)
"""
# A training step of a minute, as a large network has it.
LONG_STEP = """
import time
from tying_agents import Callback

class LongStep(Callback):
    def training_step(self, loop):
        time.sleep(60)
"""


def callback(folder: Path, source: str) -> tuple[str, str]:
    file = folder / "pace.py"
    file.write_text(source)
    (name,) = [line.split()[1].split("(")[0] for line in source.splitlines() if line.startswith("class ")]
    return "--callbacks", f"{file}:{name}"


def lines(out: Path) -> dict[str, int]:
    return {p.parent.name: p.read_bytes().count(b"\n") for p in out.glob("runs/*/*.unfinished/metrics.jsonl")}


def wait_for(out: Path, runs: int, process: Started) -> None:
    for _ in range(1200):
        found = lines(out)
        if len(found) >= runs and min(found.values()) >= 5:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("no decisions within a minute")


def alive(session: int) -> list[int]:
    """Return the processes of a session that are there, but those that have ended and are not yet waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def results(out: Path) -> dict[str, Any]:
    runs = sorted(out.glob("runs/*/*"))
    return {
        run.name: [(run / n).read_bytes() for n in ("metrics.jsonl", "trace.txt", "best.safetensors")] for run in runs
    }


@pytest.fixture(scope="module")
def whole(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison as it is when nothing stops it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    make(out, text_folder)
    return out


def make(out: Path, text_folder: Path) -> None:
    """Make the comparison, or what is left of it, in this process: how many make it at a time changes nothing."""
    done = called("compare", *words(out, text_folder, 1, STEPS))
    assert done.returncode == 0, done.stdout + done.stderr


STEPS = 32
SHORT = [(signal.SIGTERM, 2, False), (signal.SIGINT, 2, True)]


# A scheduler signals the first process, a terminal all of them.
@pytest.mark.parametrize(
    ("number", "jobs", "to_all"),
    [
        (signal.SIGTERM, 2, False),
        (signal.SIGTERM, 2, True),
        (signal.SIGINT, 2, False),
        (signal.SIGINT, 2, True),
        (signal.SIGTERM, 1, False),
        (signal.SIGINT, 1, True),
    ],
)
def test_a_signal_saves_and_stops_every_run(
    number: signal.Signals, jobs: int, to_all: bool, whole: Path, text_folder: Path, tmp_path: Path, full: bool
) -> None:
    if not full and (number, jobs, to_all) not in SHORT:
        pytest.skip("in the full form")
    out = tmp_path / "out"
    paced = callback(tmp_path, IN_STEP)
    process = begin(out, text_folder, jobs, STEPS, *paced, forks=not full and to_all)  # one with workers as users have
    wait_for(out, jobs, process)
    (os.killpg if to_all else os.kill)(process.pid, number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], text
    assert "resumes from what is in the folder" in text
    assert "Traceback" not in text
    for _ in range(40):  # joblib's resource tracker ends a moment later
        if not alive(process.pid):
            break
        time.sleep(0.05)
    assert alive(process.pid) == []
    stopped = sorted(out.glob("runs/*/*.unfinished"))
    assert len(stopped) == jobs  # the third one was not begun
    for run in stopped:
        directory = RunDirectory.open(run)
        status = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}[number]
        assert directory.read_json("summary.json")["status"] == status
        (newest,) = (run / FOLDER).iterdir()  # --checkpoint-every has not come yet: it is of this moment
        decision = json.loads((newest / "state.json").read_text())["recorder"]["decision"]
        assert decision == directory.read_metrics()[-1]["decision"]
    assert not list(out.glob("stop-*"))
    make(out, text_folder)
    assert results(out) == results(whole)
    assert sum((run / "resumes.jsonl").exists() for run in out.glob("runs/*/*")) == jobs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_do_not_outlive_their_parent(
    number: signal.Signals, text_folder: Path, tmp_path: Path, full: bool
) -> None:
    out = tmp_path / "out"
    process = begin(out, text_folder, 2, 10**6, forks=not full)
    wait_for(out, 2, process)
    process.send_signal(number)
    process.send_signal(number)  # a second one ends at once
    process.communicate(timeout=60)
    assert process.returncode in (-number, 143)
    for _ in range(200):
        if not alive(process.pid):
            break
        time.sleep(0.1)
    assert alive(process.pid) == []
    for run in sorted(out.glob("runs/*/*.unfinished")):
        assert [folder for folder in (run / FOLDER).iterdir() if folder.name.isdigit()], "it saved itself"


def test_a_second_ctrl_c_ends_at_once(text_folder: Path, tmp_path: Path, full: bool) -> None:
    out = tmp_path / "out"
    process = begin(out, text_folder, 2, 10**6, *callback(tmp_path, LONG_STEP), forks=not full)
    for _ in range(600):
        if len(list(out.glob("runs/*/*.unfinished/trace.txt"))) == 2:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    while "finishing this training step" not in (line := process.stdout.readline()):
        assert line, "it has ended"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    for _ in range(100):
        if not alive(process.pid):
            break
        time.sleep(0.1)
    assert alive(process.pid) == []
