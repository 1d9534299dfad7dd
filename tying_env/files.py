"""Writes files of which others see all or nothing, also after a crash."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_UNFINISHED = ".tmp"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; when the block ends well, it becomes `path`, and is on the disk.

    Whatever goes wrong, an earlier `path` is left as it was and nothing half-written stays.

    Raises:
        OSError: the file cannot be written (no space left, say); the error names it.
    """
    unfinished = path.with_name(path.name + _UNFINISHED)
    with naming(path):
        try:
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        sync(path.parent)


def is_new_folder(folder: Path, file: str, lock: str | None = None) -> bool:
    """Tell whether nothing is there yet, or an empty folder, or what a process leaves that was about to write `file`.

    Such a process may still be at work, or have been killed: beside the unfinished file there may be a lock's.
    """
    return not folder.exists() or (
        folder.is_dir() and not {each.name for each in folder.iterdir()} - {file + _UNFINISHED, lock}
    )


def check_new(path: Path, hint: str = "choose another folder") -> None:
    """Check that nothing is there yet.

    Raises:
        FileExistsError: something is; the message ends with the hint.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already and is left as it is; {hint}")


def set_aside(folder: Path, name: str) -> Path:
    """Give a folder that cannot be used another name beside it, which `name` makes of a number, and return that."""
    number = 1
    while os.path.lexists(aside := folder.with_name(name.format(number))):
        number += 1
    os.rename(folder, aside)
    return aside


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


def write_tensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, with the permissions that new files get; safetensors itself lets only the user read.

    Raises:
        OSError: it cannot be written (no space left, say); the error names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with naming(path):
        path.touch()
        mode = path.stat().st_mode & 0o777
        try:
            save_file(tensors, path, metadata=metadata)
        except SafetensorError as error:  # its own class, for a full disk too
            found = re.search(r"os error (\d+)", str(error))
            number = int(found[1]) if found else errno.EIO
            raise OSError(number, os.strerror(number) if found else str(error), str(path)) from error
        path.chmod(mode)


def umask() -> int:
    """Return the permissions that new files do not get."""
    # Python can only ask by setting.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON: NumPy values as lists and numbers, what is not a finite number as null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def to_csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV; of a float six digits, and nothing where a cell is None."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(headings)
    for row in rows:
        table.writerow("" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
    return text.getvalue()


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
