"""Checkpoints of a run: everything it needs to go on with the same bits.

    <run>/checkpoints/000012/
      tensors.safetensors     weights, optimizer state, generators of torch
      state.json              the rest of the state, with references to the tensors
      best.safetensors        the run's best network so far (a hard link: it costs no space)
      manifest.json           written last: sizes and hashes of these files, of config.json, and of the logs so far

A checkpoint is written under another name, synced and renamed, so one that is there is whole. It is read only when all
its hashes hold, and nothing in it is ever run: tensors are safetensors, the rest is JSON.
"""

import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tying_env.files import naming, sync, to_json, written_whole
from tying_env.runs.run_directory import BEST, CONFIG, RunDirectory
from tying_env.runs.state_tree import join, part

FOLDER = "checkpoints"
_STATE, _TENSORS, _MANIFEST, _FORMAT = "state.json", "tensors.safetensors", "manifest.json", "checkpoint 1"
_LARGEST_MANIFEST = 1 << 20  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        folder: where it lies.
        state: what `Checkpoints.write` was given.
        logs: bytes of each log file that belong to it; what was appended later is to be dropped.
    """

    folder: Path
    state: dict[str, Any]
    logs: dict[str, int]

    def restore_best(self, run: RunDirectory) -> None:
        """Make the run's best network what it was when the checkpoint was taken."""
        if (self.folder / BEST).exists():
            with written_whole(run.path / BEST) as unfinished:
                link(self.folder / BEST, unfinished)
        else:
            (run.path / BEST).unlink(missing_ok=True)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the folder of the run.
        logs: files of the run that only grow; a checkpoint remembers how far they were.
        keep: how many of the newest to keep; the one with the best validation perplexity is kept beside them.
    """

    def __init__(self, run: RunDirectory, logs: tuple[str, ...], keep: int = 2) -> None:
        self._run = run
        self._folder = run.path / FOLDER
        self._logs = logs
        self._keep = keep

    def write(self, state: dict[str, Any], validation_perplexity: float) -> Path:
        """Write a checkpoint, then remove those that are no longer to be kept.

        Raises:
            OSError: it cannot be written (no space left, say); the earlier ones are whole.
        """
        self._folder.mkdir(exist_ok=True)
        self._sweep()
        number = max([0, *(int(folder.name) for folder in self._all())]) + 1
        final, unfinished = self._folder / f"{number:06d}", self._folder / f"unfinished-{number:06d}"
        try:
            with naming(unfinished):
                unfinished.mkdir()
                self._fill(unfinished, number, state, validation_perplexity)
                os.rename(unfinished, final)
                sync(self._folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._forget()
        return final

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; None if the run has none at all.

        Args:
            note: is told of each that is passed over, and why.

        Raises:
            ValueError: there are some, and none can be used; the message says why.
        """
        faults = []
        for folder in reversed(self._all()):
            try:
                return self._read(folder)
            except (ValueError, OSError) as error:
                faults.append(f"{folder}: {error}")
                note(f"The checkpoint {folder} cannot be used: {error}")
        if faults:
            raise ValueError(f"no checkpoint of {self._run.path} can be used: {'; '.join(faults)}")
        return None

    def remove(self) -> None:
        """Remove all checkpoints: of a run that is over and was only one of many, say."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(f for f in self._folder.iterdir() if f.name.isascii() and f.name.isdigit() and f.is_dir())

    def _fill(self, folder: Path, number: int, state: dict[str, Any], validation_perplexity: float) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        plain, tensors = part(state)
        try:
            save_file({name: t.contiguous() for name, t in tensors.items()}, folder / _TENSORS)
        except SafetensorError as error:  # its own class, for a full disk too
            raise OSError(f"cannot write {folder / _TENSORS}: {error}") from error
        (folder / _STATE).write_text(to_json(plain), encoding="utf-8")
        if (best := self._run.path / BEST).exists():
            link(best, folder / BEST)
        manifest = {
            "format": _FORMAT,
            "number": number,
            "validation_perplexity": validation_perplexity,
            "config": _sha256(self._run.path / CONFIG),
            "files": {path.name: _describe(path) for path in sorted(folder.iterdir())},
            "logs": {name: _describe(self._run.path / name) for name in self._logs},
        }
        (folder / _MANIFEST).write_text(_sealed(manifest), encoding="utf-8")
        sync(folder / _MANIFEST)
        sync(folder)

    def _read(self, folder: Path) -> Checkpoint:
        """Check and read a checkpoint.

        Raises:
            ValueError: it is damaged, or of another run.
            OSError: a file is missing or cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        manifest = _manifest(folder)
        if manifest["number"] != int(folder.name):
            raise ValueError(f"its manifest is of checkpoint {manifest['number']!r}")
        if manifest["config"] != _sha256(self._run.path / CONFIG):
            raise ValueError(f"it belongs to another {CONFIG} than the one in {self._run.path}")
        for name, described in manifest["files"].items():
            _check_file(folder / name, described)
        for name, described in manifest["logs"].items():
            _check_file(self._run.path / name, described, grown=True)
        try:
            plain = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            state = join(plain, load_file(folder / _TENSORS))
        except (SafetensorError, RecursionError) as error:
            raise ValueError(f"it cannot be read: {error}") from error
        if not isinstance(state, dict):
            raise ValueError(f"its {_STATE} holds a {type(state).__name__}, expected an object")
        return Checkpoint(folder, state, {name: d["bytes"] for name, d in manifest["logs"].items()})

    def _forget(self) -> None:
        """Remove all but the newest ones and the best one."""
        folders = self._all()
        best = min(folders, key=_validation)
        for folder in folders[: -self._keep]:
            if folder != best:
                removed = folder.with_name(f"removed-{folder.name}")
                os.rename(folder, removed)  # at once: half a checkpoint under its name would look damaged
                shutil.rmtree(removed, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes that were killed have left."""
        for folder in self._folder.iterdir():
            if folder.name.startswith(("unfinished-", "removed-")):
                shutil.rmtree(folder, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check that it is one.

    Raises:
        ValueError: it is damaged, or names what no checkpoint has.
        OSError: it cannot be read.
    """
    path = folder / _MANIFEST
    _check_regular(path)
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise ValueError(f"{_MANIFEST} has {path.stat().st_size} bytes, more than any manifest")
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        whole = isinstance(manifest, dict) and text == _sealed({k: v for k, v in manifest.items() if k != "sha256"})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_MANIFEST} is damaged: {error}") from error
    if not whole:
        raise ValueError(f"{_MANIFEST} is damaged: it is not as it was written")
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"its format is {manifest.get('format')!r}, expected {_FORMAT!r}")
    try:
        names, logs = set(manifest["files"]), set(manifest["logs"])
        described = [*manifest["files"].values(), *manifest["logs"].values()]
        sound = type(manifest["number"]) is int and all(
            type(d["bytes"]) is int and isinstance(d["sha256"], str) for d in described
        )
        fit = {_STATE, _TENSORS} <= names <= {_STATE, _TENSORS, BEST} and all(Path(n).name == n for n in logs)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{_MANIFEST} does not hold what it should: {error!r}") from error
    if not (sound and fit):
        raise ValueError(f"{_MANIFEST} names files that no checkpoint has, or describes them wrongly")
    return dict(manifest)


def _sealed(manifest: dict[str, Any]) -> str:
    """Return a manifest's text: with a hash of itself, so that no bit of it can change unseen."""
    plain = json.loads(to_json(manifest))
    seal = hashlib.sha256(to_json(plain).encode()).hexdigest()
    return to_json(plain | {"sha256": seal}, indent=2) + "\n"


def _validation(folder: Path) -> float:
    try:
        found = _manifest(folder)["validation_perplexity"]
    except (ValueError, OSError):
        return math.inf
    return float(found) if isinstance(found, (int, float)) else math.inf


def _describe(path: Path) -> dict[str, Any]:
    """Return size and hash of a file, after bringing it to the disk; a log that is not there yet is empty."""
    if not path.exists():
        return {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    sync(path)
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _check_file(path: Path, described: dict[str, Any], grown: bool = False) -> None:
    """Check size and hash; of a file that has grown since, only of what was there."""
    n_bytes = described["bytes"]
    if n_bytes == 0 and grown and not path.exists():
        return
    _check_regular(path)
    found = path.stat().st_size
    if found < n_bytes or (found > n_bytes and not grown):
        raise ValueError(f"{path.name} has {found} bytes, {n_bytes} were written")
    if _sha256(path, n_bytes) != described["sha256"]:
        raise ValueError(f"{path.name} is not as it was written (its sha256 differs)")


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is not a plain file")


def _sha256(path: Path, n_bytes: int | None = None) -> str:
    """Return the hash of a file's first `n_bytes`, or of all."""
    digest, left = hashlib.sha256(), math.inf if n_bytes is None else n_bytes
    with naming(path), open(path, "rb") as file:
        while left > 0 and (block := file.read(int(min(left, 1 << 20)))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def link(source: Path, target: Path) -> None:
    """Let `target` be the same file; networks are never changed in place, only replaced."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
