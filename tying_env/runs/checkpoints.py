"""Checkpoints of a run: everything it needs to resume with the same bits.

    <run>/checkpoints/000012/
      tensors.safetensors     weights, optimizer state, generators of torch
      state.json              the rest of the state, with references to the tensors
      best.safetensors        the run's best network so far (a copy: no damage to one is damage to another)
      manifest.json           written last: sizes and hashes of these files, of config.json, and of the logs so far

A checkpoint is written under another name, synced and renamed, so one that is there is whole. It is read only when all
its hashes hold, and nothing in it is ever run: tensors are safetensors, the rest is JSON.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tying_env.files import naming, set_aside, sync, to_json, write_tensors, written_whole
from tying_env.runs.manifest import (
    FORMAT,
    MANIFEST,
    STATE,
    TENSORS,
    check_file,
    describe_file,
    read_manifest,
    sealed,
    sha256,
)
from tying_env.runs.run_directory import BEST, CONFIG, RunDirectory, json_text
from tying_env.runs.state_tree import join, part

FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        folder: where it lies.
        state: what `Checkpoints.write` was given.
        logs: bytes of each log file that belong to it; what was appended later is to be dropped.
        has_best: whether the run had a best network by then.
        passed_over: newer checkpoints that cannot be used.
    """

    folder: Path
    state: dict[str, Any]
    logs: dict[str, int]
    has_best: bool
    passed_over: tuple[Path, ...] = ()

    def restore_best(self, run: RunDirectory) -> None:
        """Make the run's best network what it was when the checkpoint was taken."""
        if self.has_best:
            with written_whole(run.path / BEST) as unfinished:
                shutil.copyfile(self.folder / BEST, unfinished)
        else:
            (run.path / BEST).unlink(missing_ok=True)

    def set_aside_damaged(self) -> None:
        """Rename those that were passed over: they count no longer, and nobody takes them for newer ones."""
        for folder in self.passed_over:
            set_aside(folder, f"damaged-{folder.name}-{{}}")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the folder of the run.
        logs: files of the run that only grow; a checkpoint remembers how far they were.
        keep: how many of the newest to keep; the one with the best validation perplexity of the episode is kept beside
            them.
    """

    def __init__(self, run: RunDirectory, logs: Collection[str], keep: int = 2) -> None:
        self._run = run
        self._folder = run.path / FOLDER
        self._logs = logs
        self._keep = keep

    def write(
        self,
        state: dict[str, Any],
        validation_perplexity: float | None,
        episode: int = 1,
        config: dict[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint, then remove those that are no longer to be kept.

        Args:
            state: nested dictionaries, ready for JSON but for the tensors in them.
            validation_perplexity: of the network in it, as last measured; None if it was not.
            episode: within which validation perplexities are compared.
            config: what config.json is going to hold, where it is about to be replaced. Until then the earlier
                checkpoints count, so none is removed; from then on this one alone does.

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
                about = {"number": number, "episode": episode, "validation_perplexity": validation_perplexity}
                belongs_to = (
                    sha256(self._run.path / CONFIG)
                    if config is None
                    else hashlib.sha256(json_text(config).encode()).hexdigest()
                )
                self._fill(unfinished, {**about, "config": belongs_to}, state)
                os.rename(unfinished, final)
                sync(self._folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        if config is None:
            self._forget()
        return final

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; None if the run has none at all.

        Args:
            note: is told of each that is passed over, and why.

        Raises:
            ValueError: there are some, and none can be used; the message says why.
        """
        faults: dict[Path, str] = {}
        for folder in reversed(self._all()):
            try:
                return self._read(folder, tuple(faults))
            except (ValueError, OSError) as error:
                faults[folder] = f"{folder}: {error}"
                note(f"The checkpoint {folder} cannot be used: {error}")
        if faults:
            raise ValueError(f"no checkpoint of {self._run.path} can be used: {'; '.join(faults.values())}")
        return None

    def remove(self) -> None:
        """Remove all checkpoints: of a run that is over and was only one of many, say."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        """Return the checkpoints, oldest first, whole or not."""
        if not self._folder.is_dir():
            return []
        named = [f for f in self._folder.iterdir() if f.name.isascii() and f.name.isdigit()]
        return sorted((f for f in named if f.name == f"{int(f.name):06d}"), key=lambda f: int(f.name))

    def _fill(self, folder: Path, about: dict[str, Any], state: dict[str, Any]) -> None:
        plain, tensors = part(state)
        write_tensors(folder / TENSORS, {name: t.contiguous() for name, t in tensors.items()})
        (folder / STATE).write_text(to_json(plain), encoding="utf-8")
        if (best := self._run.path / BEST).exists():
            shutil.copyfile(best, folder / BEST)
        manifest = {
            "format": FORMAT,
            **about,
            "files": {path.name: describe_file(path) for path in sorted(folder.iterdir())},
            "logs": {name: describe_file(self._run.path / name) for name in self._logs},
        }
        (folder / MANIFEST).write_text(sealed(manifest), encoding="utf-8")
        sync(folder / MANIFEST)
        sync(folder)

    def _read(self, folder: Path, passed_over: tuple[Path, ...]) -> Checkpoint:
        """Check and read a checkpoint.

        Raises:
            ValueError: it is damaged, or of another run.
            OSError: a file is missing or cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        manifest = read_manifest(folder, self._logs)
        if manifest["number"] != int(folder.name):
            raise ValueError(f"its manifest is of checkpoint {manifest['number']!r}")
        if manifest["config"] != sha256(self._run.path / CONFIG):
            raise ValueError(f"it belongs to another {CONFIG} than the one in {self._run.path}")
        for name, described in manifest["files"].items():
            check_file(folder / name, described)
        for name, described in manifest["logs"].items():
            check_file(self._run.path / name, described, grown=True)
        try:
            plain = json.loads((folder / STATE).read_text(encoding="utf-8"))
            state = join(plain, load_file(folder / TENSORS))
        except (SafetensorError, RecursionError) as error:
            raise ValueError(f"it cannot be read: {error}") from error
        if not isinstance(state, dict):
            raise ValueError(f"its {STATE} holds a {type(state).__name__}, expected an object")
        logs = {name: d["bytes"] for name, d in manifest["logs"].items()}
        return Checkpoint(folder, state, logs, BEST in manifest["files"], passed_over)

    def _forget(self) -> None:
        """Remove all but the newest ones and the best one of their episode."""
        folders = self._all()
        about = {folder: self._about(folder) for folder in folders}
        episode = about[folders[-1]][0]
        ranked = [(about[f][1], f) for f in folders if about[f][0] == episode and about[f][1] < math.inf]
        best = min(ranked)[1] if ranked else None
        for folder in folders[: -self._keep]:
            if folder != best:
                removed = folder.with_name(f"removed-{folder.name}")
                os.rename(folder, removed)  # at once: half a checkpoint under its name would look damaged
                shutil.rmtree(removed, ignore_errors=True)

    def _about(self, folder: Path) -> tuple[int, float]:
        """Return episode and validation perplexity of a checkpoint; 0 and infinity of a damaged one."""
        try:
            manifest = read_manifest(folder, self._logs)
        except (ValueError, OSError):
            return 0, math.inf
        found = manifest["validation_perplexity"]
        return manifest["episode"], math.inf if found is None else found

    def _sweep(self) -> None:
        """Remove what processes that were killed have left."""
        for folder in self._folder.iterdir():
            if folder.name.startswith(("unfinished-", "removed-")):
                shutil.rmtree(folder, ignore_errors=True)
