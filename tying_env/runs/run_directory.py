"""The folder of one run: its settings, a line per decision, networks, results.

config.json              every setting, versions, git commit, seed
metrics.jsonl            a line per decision; no clock reading, so that equal seeds give equal files
summary.json             how it ended: test and validation results, speed, memory
best.safetensors         the network with the best validation perplexity
final.safetensors        the network at the end
replication_map.png      the paper's Fig. 1, at the end
events.out.tfevents.*    TensorBoard
trace.txt                the tying of every decision
journal.jsonl            what a Stable-Baselines3 agent did and was told, where there is one
checkpoints/             what it takes to go on: tying_env.runs.checkpoints
resumes.jsonl            when the run was gone on with, from where and with which versions
lock                     held by the process that is at work here
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from tying_env.files import naming, sync, to_json, written_whole

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
JOURNAL, RESUMES, LOCK = "journal.jsonl", "resumes.jsonl", "lock"
BEST, FINAL, MAP = "best.safetensors", "final.safetensors", "replication_map.png"


class RunDirectory:
    """Writes and reads the folder of a run. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, about: dict[str, Any]) -> Self:
        """Make the folder of a new run, with its config.json: both or neither.

        Args:
            path: the folder; those above it are made, too.
            about: the settings and what else config.json is to hold.

        Raises:
            FileExistsError: something is there already; a run is never overwritten.
        """
        if path.exists():
            raise FileExistsError(
                f"the run directory {path} exists already and is left as it is; choose another --run-dir"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            unfinished.chmod(0o777 & ~_umask())
            cls(unfinished).write_json(CONFIG, about)
            os.rename(unfinished, path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync(path.parent)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of an existing run.

        Raises:
            FileNotFoundError: there is no run at this path.
        """
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no {CONFIG}")
        return cls(path)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        with written_whole(self.path / name) as unfinished:
            unfinished.write_text(to_json(value, indent=2) + "\n", encoding="utf-8")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file.

        Raises:
            FileNotFoundError: it is not there.
        """
        value: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return value

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of this folder. When this process ends, however it ends, the lock is gone.

        Raises:
            BlockingIOError: another process is at work here.
        """
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:  # an OSError itself
            raise BlockingIOError(f"another process is at work in {self.path}; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def append_json(self, name: str, record: dict[str, Any]) -> None:
        """Add a line of JSON to a file, as `append` does."""
        self.append(name, to_json(record) + "\n")

    def append(self, name: str, text: str) -> None:
        """Add text to the end of a file.

        Raises:
            OSError: it cannot be written (no space left, say); what stood in the file before stays whole.
        """
        data, path = text.encode(), self.path / name
        with naming(path), open(path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except BaseException:
                file.truncate(end)
                raise

    def shorten(self, name: str, n_bytes: int) -> None:
        """Drop what a file has after its first `n_bytes`; a file that is not there stays so."""
        path = self.path / name
        with naming(path):
            if path.exists() and path.stat().st_size > n_bytes:
                os.truncate(path, n_bytes)
                sync(path)

    def sweep(self) -> None:
        """Remove what a process that was killed has left half-written."""
        for unfinished in self.path.glob("*.tmp"):
            unfinished.unlink()

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl, a dictionary per decision."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _umask() -> int:
    """Return the permissions that new files do not get."""
    # Python can only ask by setting.
    mask = os.umask(0)
    os.umask(mask)
    return mask
