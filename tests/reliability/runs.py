"""Small real runs that are stopped, and what has to be equal in the end."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run

from tying_env.config import EnvConfig
from tying_env.runs.checkpoints import FOLDER


class Watcher(Callback):
    """A callback that keeps what it is told, and calls `after` with the number of every decision."""

    def __init__(self, after: Callable[[int], None] = lambda decision: None) -> None:
        self.notes: list[str] = []
        self.decisions = 0
        self._after = after

    def decision_made(self, loop: Loop, record: Record) -> None:
        self.decisions += 1
        self._after(record["decision"])

    def note(self, text: str) -> None:
        self.notes.append(text)


def small(tiny: dict[str, Any], path: Path, agent: Any = "dqn", **settings: Any) -> RunConfig:
    """Return a run of 9 decisions in about a fifth of a second."""
    return RunConfig(
        agent, run_dir=path, env=EnvConfig(**tiny), **{"test_windows": 4, "checkpoint_every": 2} | settings
    )


def interrupt() -> None:
    """Send this process what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)


def stop_at_five(config: RunConfig) -> Path:
    """Make a run that is stopped at its fifth decision; return its folder."""
    directory, status = run(config, [Watcher(lambda n: interrupt() if n == 5 else None)])
    assert status == "interrupted"
    return directory.path


def outcome(path: Path) -> dict[str, Any]:
    """Return hashes of all that a run has come to: logs, networks, results, and the whole state at the end."""
    newest = max((p for p in (path / FOLDER).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    state = json.loads((newest / "state.json").read_text())
    del state["recorder"]["seconds"]
    summary = json.loads((path / "summary.json").read_text())
    for clock in ("seconds", "tokens_per_second", "seconds_per_epoch", "peak_process_bytes"):
        del summary[clock]
    files = ["metrics.jsonl", "trace.txt", "best.safetensors", "final.safetensors", "replication_map.png"]
    if (path / "journal.jsonl").exists():
        files.append("journal.jsonl")
    return {
        "summary": summary,
        "state": state,
        "tensors": _hash(newest / "tensors.safetensors"),
        **{name: _hash(path / name) for name in files},
    }


def contents(path: Path) -> dict[Path, bytes]:
    """Return every file below a folder, but the lock."""
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != "lock"}


def resume_until_it_ends(path: Path, at_most: int = 100) -> Watcher:
    """Resume a run, as often as it takes."""
    for _ in range(at_most):
        watcher = Watcher()
        if resume(path, [watcher])[1] == "finished":
            return watcher
    raise AssertionError(f"{path} does not end")


def finish(config: RunConfig) -> Path:
    """Make a run in one go."""
    directory, status = run(config, [Watcher()])
    assert status == "finished"
    return directory.path


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
