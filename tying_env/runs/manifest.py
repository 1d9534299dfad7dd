"""The manifest of a checkpoint: sizes and hashes of its files, of config.json, of the logs so far, and of itself."""

import hashlib
import json
import math
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tying_env.files import naming, sync, to_json
from tying_env.runs.run_directory import BEST

MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
FORMAT = "checkpoint 2"
_LARGEST = 1 << 20  # bytes


def read_manifest(folder: Path, logs: Collection[str]) -> dict[str, Any]:
    """Read a manifest and check that it is one: of exactly the files in its folder, and of these logs of the run.

    Raises:
        ValueError: it is damaged, or does not describe what a checkpoint has.
        OSError: it cannot be read.
    """
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise ValueError("it is not a plain folder")
    path = folder / MANIFEST
    check_plain(path)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{MANIFEST} has {path.stat().st_size} bytes, more than any manifest")
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        whole = isinstance(manifest, dict) and text == sealed({k: v for k, v in manifest.items() if k != "sha256"})
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error}") from error
    if not whole:
        raise ValueError(f"{MANIFEST} is damaged: it is not as it was written")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"its format is {manifest.get('format')!r}, expected {FORMAT!r}")
    try:
        names, described = set(manifest["files"]), [*manifest["files"].values(), *manifest["logs"].values()]
        fit = {STATE, TENSORS} <= names <= {STATE, TENSORS, BEST} and set(manifest["logs"]) == set(logs)
        sound = (
            all(type(d["bytes"]) is int and d["bytes"] >= 0 and isinstance(d["sha256"], str) for d in described)
            and all(type(manifest[key]) is int for key in ("number", "episode"))
            and type(manifest["validation_perplexity"]) in (float, type(None))
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} does not hold what it should: {error!r}") from error
    if not (sound and fit):
        raise ValueError(f"{MANIFEST} names files that no checkpoint has, or describes them wrongly")
    if odd := {entry.name for entry in folder.iterdir()} ^ {*names, MANIFEST}:
        raise ValueError(f"{min(odd)} is missing, or its manifest does not name it")
    return dict(manifest)


def sealed(manifest: dict[str, Any]) -> str:
    """Return a manifest's text: with a hash of itself, so that no bit of it can change unseen."""
    plain = json.loads(to_json(manifest))
    seal = hashlib.sha256(to_json(plain).encode()).hexdigest()
    return to_json(plain | {"sha256": seal}, indent=2) + "\n"


def describe_file(path: Path) -> dict[str, Any]:
    """Return size and hash of a file, after bringing it to the disk; a log that is not there yet is empty."""
    if not path.exists():
        return {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    sync(path)
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_file(path: Path, described: dict[str, Any], grown: bool = False) -> None:
    """Check size and hash; of a file that has grown since, only of what was there.

    Raises:
        ValueError: they are others.
        OSError: it is missing, or cannot be read.
    """
    n_bytes = described["bytes"]
    if n_bytes == 0 and grown and not path.exists():
        return
    check_plain(path)
    found = path.stat().st_size
    if found < n_bytes or (found > n_bytes and not grown):
        raise ValueError(f"{path.name} has {found} bytes, {n_bytes} were written")
    if sha256(path, n_bytes) != described["sha256"]:
        raise ValueError(f"{path.name} is not as it was written (its sha256 differs)")


def check_plain(path: Path) -> None:
    """Check that this is a file, and no link, pipe or folder.

    Raises:
        ValueError: it is something else.
        FileNotFoundError: there is nothing.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is not a plain file")


def sha256(path: Path, n_bytes: int | None = None) -> str:
    """Return the hash of a file's first `n_bytes`, or of all."""
    digest, left = hashlib.sha256(), math.inf if n_bytes is None else n_bytes
    with naming(path), open(path, "rb") as file:
        while left > 0 and (block := file.read(int(min(left, 1 << 20)))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
