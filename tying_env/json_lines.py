"""Files of JSON lines that grow by a line for each thing that is done, and survive a crash. No torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from tying_env.files import naming, to_json, written_whole

T = TypeVar("T")


def append_line(path: Path, value: Any) -> None:
    """Append a line as a whole; several processes may do so at once.

    Raises:
        OSError: it cannot be written.
    """
    text = to_json(value) + "\n"
    with _lock(path), naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def read_lines(path: Path, read: Callable[[Any], T]) -> list[T]:
    """Return what `read` makes of every line; a last line that was cut off by a crash is cut out of the file.

    Args:
        path: the file; none is no lines.
        read: may raise a ValueError, KeyError, TypeError, AttributeError for what it cannot read.

    Raises:
        ValueError: another line is damaged; the message names it.
        OSError: the file cannot be read.
    """
    if not path.exists():
        return []
    with _lock(path):
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            with written_whole(path) as unfinished:
                unfinished.write_text(whole, encoding="utf-8")
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(read(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} line {number} is damaged: {error!r}") from error
    return found


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(path.name + ".lock"))
