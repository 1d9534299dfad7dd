"""Full disks, missing folders, clocks, numbers that are not finite: a named error or a run that ends as diverged."""

import errno
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tying_agents.running.recorder import LOGS
from tying_agents.running.runner import resume, run
from tying_agents.running.saved import RunIsOver

from tests.reliability.conftest import Counts
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small, stop_at_five
from tests.started import code
from tying_env.env import LayerTyingEnv
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory


def newest(path: Path) -> Checkpoint:
    notes: list[str] = []
    found = Checkpoints(RunDirectory.open(path), LOGS).newest(notes.append)
    assert found is not None
    assert notes == []
    return found


@pytest.fixture
def stopped(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """A run that was stopped at its fifth decision."""
    return stop_at_five(small(tiny, tmp_path / "stopped"))


# A real write that fails: the system refuses to let a file of this process grow further.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from tying_agents.running.runner import resume
from tests.reliability.runs import Watcher
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    resume(Path(sys.argv[1]), [Watcher()])
except OSError as error:
    print("OSError:", error)
"""


def limited(path: Path, n_bytes: int) -> str:
    return code(LIMITED, path, n_bytes).communicate()[0]


def test_a_full_disk_is_a_named_error_and_the_last_checkpoint_is_intact(
    stopped: Path, run_whole: dict[str, Any]
) -> None:
    before = newest(stopped).folder.name
    done = limited(stopped, (newest(stopped).folder / "tensors.safetensors").stat().st_size // 2)
    assert f"OSError: [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: " in done, done
    assert "safetensors" in done
    assert newest(stopped).folder.name == before
    assert not [p for p in (stopped / "checkpoints").iterdir() if not p.name.isdigit()]
    resume_until_it_ends(stopped)
    assert outcome(stopped) == run_whole


def test_a_disk_that_fills_up_with_metrics_is_a_named_error(tiny: dict[str, Any], tmp_path: Path) -> None:
    # The largest file is metrics.jsonl: a network of a few kilobytes, and many decisions.
    few = {"n_layer": 2, "n_embd": 2, "n_head": 1, "seq_len": 8}
    settings = tiny | few | {"total_steps": 76, "validate_every": 38}
    expected = outcome(finish(small(settings, tmp_path / "whole", "random", checkpoint_every=20)))
    path = tmp_path / "run"
    run(small(settings, path, "random", checkpoint_every=20), [Watcher(lambda n: interrupt() if n == 70 else None)])
    sizes = {p.name: p.stat().st_size for p in path.rglob("*") if p.is_file() and "tfevents" not in p.name}
    assert max(sizes.values()) == sizes["metrics.jsonl"]
    done = limited(path, sizes["metrics.jsonl"] + 100)
    assert f"OSError: [Errno {errno.EFBIG}]" in done, done
    assert "metrics.jsonl" in done
    assert (path / "metrics.jsonl").stat().st_size == sizes["metrics.jsonl"]  # no half line
    assert newest(path).state["recorder"]["decision"] == 70
    resume_until_it_ends(path)
    assert outcome(path) == expected


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "summary.json.tmp"])
def test_a_full_disk_is_named_whatever_is_written(
    name: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_whole: dict[str, Any]
) -> None:
    path, write_text, written = tmp_path / "run", Path.write_text, 0

    def full(self: Path, text: str, *rest: Any, **named: Any) -> int:
        nonlocal written
        written += self.name == name
        if self.name == name and (written == 3 or "summary" in name):
            write_text(self, text[:10], *rest, **named)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a name, as a write has it
        return write_text(self, text, *rest, **named)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=rf"No space left on device: '{path}/") as caught:
        patch.setattr(Path, "write_text", full)
        run(small(tiny, path), [Watcher()])
    assert caught.value.errno == errno.ENOSPC
    before = newest(path)
    if "summary" not in name:
        assert before.folder.name == "000002"
    assert not list(path.rglob("*.tmp"))
    assert not [p for p in (path / "checkpoints").iterdir() if not p.name.isdigit()]
    resume_until_it_ends(path)
    assert outcome(path) == run_whole


def test_a_folder_removed_while_the_run_continues_is_a_named_error(tiny: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(OSError, match=str(path)):
        run(small(tiny, path), [Watcher(lambda n: shutil.rmtree(path) if n == 3 else None)])


def test_a_folder_that_may_not_be_written_is_a_named_error(
    stopped: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:  # the superuser may write everywhere: let the system say no as it would to others
        real = os.mkdir

        def refuse(path: Any, *rest: Any, **named: Any) -> None:
            if "unfinished" in str(path) or "locked" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            real(path, *rest, **named)

        monkeypatch.setattr(os, "mkdir", refuse)
    locked = tmp_path / "locked"
    locked.parent.chmod(0o755)
    if os.geteuid():
        (stopped / "checkpoints").chmod(0o555)
        locked.mkdir(mode=0o555)
    before = newest(stopped).folder.name
    with pytest.raises(PermissionError, match="Permission denied"):
        resume(stopped, [Watcher()])
    with pytest.raises(PermissionError, match="locked"):
        run(small(tiny, locked / "run"), [Watcher()])
    assert newest(stopped).folder.name == before


def test_a_clock_set_back_changes_nothing(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_whole: dict[str, Any]
) -> None:
    path, day = tmp_path / "run", 86_400
    run(small(tiny, path), [Watcher(lambda n: interrupt() if n == 5 else None)])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 400 * day)
    for file in path.rglob("*"):
        os.utime(file, (0, 0))
    resume_until_it_ends(path)
    assert outcome(path) == run_whole


def poison(env: LayerTyingEnv, where: str, value: float) -> None:
    """Put one bad number into training, where a defect of the machine or of the arithmetic could."""
    trainer = env.trainer
    weight = trainer.network.blocks[0].get_parameter("mlp.c_fc.weight")
    match where:
        case "loss":
            plain = trainer.task.loss
            trainer.task.loss = lambda *args: plain(*args) * value  # type: ignore[method-assign]
        case "gradient":
            weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([1]), value))
        case "weight":
            with torch.no_grad():
                weight[0, 0] = value
        case moment:
            trainer.optimizer.state[weight][moment][0, 0] = value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient", "weight", "exp_avg", "exp_avg_sq"])
def test_one_bad_number_ends_the_run_as_diverged(
    where: str, value: float, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    path, step = tmp_path / "run", LayerTyingEnv.step

    def poisoned(self: LayerTyingEnv, action: Any) -> Any:
        if self.decisions == 4:
            poison(self, where, value)
        return step(self, action)

    monkeypatch.setattr(LayerTyingEnv, "step", poisoned)
    _, status = run(small(tiny | {"total_steps": 7}, path, checkpoint_every=1), [Watcher()])
    assert status == "diverged"
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["decision"] == 5
    assert last["diverged"] is True
    assert last["reward"] == -math.exp(20)
    good = newest(path)
    assert good.state["recorder"]["decision"] == 4
    for tensors in (good.state["env"]["trainer"]["weights"], *good.state["env"]["trainer"]["optimizer"].values()):
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(RunIsOver, match=r"run: the run diverged at training step 5; there is nothing to resume"):
        resume(path, [Watcher()])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    # From that checkpoint, without the bad number, the run is resumed: whoever takes the summary away asks for that.
    monkeypatch.undo()
    (path / "summary.json").unlink()
    assert resume(path, [Watcher()])[1] == "finished"
    counts.add(f"{value} in {where}", 1)
