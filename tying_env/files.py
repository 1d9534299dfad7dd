"""Writes files of which others see all or nothing, also after a crash."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; when the block ends well, it becomes `path`, and is on the disk.

    Whatever goes wrong, an earlier `path` is left as it was and nothing half-written stays.

    Raises:
        OSError: the file cannot be written (no space left, say); the error names it.
    """
    unfinished = path.with_name(path.name + ".tmp")
    with naming(path):
        try:
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk: what was written to it survives a crash of the machine from now on."""
    if path.is_dir() and os.name != "posix":  # folders cannot be opened there
        return
    with naming(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError that comes out of this block name the file: one from a write or a sync does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def to_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON: NumPy values as lists and numbers, what is not a finite number as null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
