"""The folder of one run: its settings, a line per decision, networks, results.

config.json              every setting, versions, git commit, seed
metrics.jsonl            a line per decision; no clock reading, so that equal seeds give equal files
summary.json             how it ended: test and validation results, speed, memory
best.safetensors         the network with the best validation perplexity
final.safetensors        the network at the end
replication_map.png      the paper's Fig. 1, at the end
events.out.tfevents.*    TensorBoard
trace.txt                the tying of every decision
tokenizer.json           of a decoder that was trained with its checkpoint's
journal.jsonl            what a Stable-Baselines3 agent did and was told, where there is one
checkpoints/             what it takes to resume: tying_env.runs.checkpoints
resumes.jsonl            when the run was resumed, from where and with which versions
lock                     held by the process that is at work here
"""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from tying_env.files import naming, sync, to_json, umask, written_whole
from tying_env.runs.exported import is_export

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
JOURNAL, RESUMES, LOCK = "journal.jsonl", "resumes.jsonl", "lock"
# Which network of a run: the one with the best validation perplexity, or the one at the end.
Which = Literal["best", "final"]
BEST, FINAL, MAP = "best.safetensors", "final.safetensors", "replication_map.png"


class RunDirectory:
    """Writes and reads the folder of a run. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, about: dict[str, Any], files: Mapping[str, bytes] | None = None) -> Self:
        """Make the folder of a new run, with its config.json: all or nothing.

        Args:
            path: the folder; those above it are made, too.
            about: the settings and what else config.json is to hold.
            files: further ones that do not change, by name: see `Workload.files`.

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
            unfinished.chmod(0o777 & ~umask())
            for name, content in (files or {}).items():
                (unfinished / name).write_bytes(content)
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
        if is_export(path):
            raise FileNotFoundError(f"{path} is not a run directory, but an exported network: give that of its run")
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no {CONFIG}")
        return cls(path)

    def network_file(self, which: Which) -> Path:
        """Return the file of a network; a run that never validated has no best one, and its final one is taken.

        Raises:
            FileNotFoundError: the run has no network yet.
        """
        path = self.path / (BEST if which == "best" and (self.path / BEST).exists() else FINAL)
        if not path.exists():
            raise FileNotFoundError(f"{self.path} has no network yet: neither {BEST} nor {FINAL}")
        return path

    def check_plain(self, logs: Collection[str], folder: str) -> None:
        """Check that what will be read and written here are files of this folder, and no links that lead elsewhere.

        Args:
            logs: files that only grow.
            folder: where the checkpoints are.

        Raises:
            ValueError: one is a link, a pipe or something else.
        """
        known = {*logs, CONFIG, SUMMARY, RESUMES, LOCK, BEST, FINAL, MAP}
        for name in sorted(known):
            if os.path.lexists(path := self.path / name) and not stat.S_ISREG(path.lstat().st_mode):
                raise ValueError(f"{path} is not a plain file")
        if os.path.lexists(path := self.path / folder) and not stat.S_ISDIR(path.lstat().st_mode):
            raise ValueError(f"{path} is not a plain folder")

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        with written_whole(self.path / name) as unfinished:
            unfinished.write_text(json_text(value), encoding="utf-8")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is no JSON, or no object.
        """
        value = json.loads((self.path / name).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"{self.path / name} must hold an object, got {value!r:.80}")
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
        with naming(path), open(path, "ab", buffering=0, opener=_no_link) as file:
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
            if not os.path.lexists(path):
                return
            with open(path, "r+b", buffering=0, opener=_no_link) as file:
                if os.fstat(file.fileno()).st_size > n_bytes:
                    os.ftruncate(file.fileno(), n_bytes)
                    os.fsync(file.fileno())

    def sweep(self) -> None:
        """Remove what a process that was killed has left half-written."""
        for unfinished in self.path.glob("*.tmp"):
            unfinished.unlink()  # a link, not what it leads to

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl, a dictionary per decision; a last line that a crash cut off does not count."""
        path = self.path / METRICS
        if not path.exists():
            return []
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]


def json_text(value: dict[str, Any]) -> str:
    """Return what a JSON file of a run holds."""
    return to_json(value, indent=2) + "\n"


def _no_link(path: str, flags: int) -> int:
    """Open a file, but nothing that a link at its place leads to."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
