"""What an exported folder says of its training: enough to measure its network again, and to let it continue a text.

Beside weights and model card it holds `training.json`: settings, the tying, and what the network knows of its data. No
torch here: commands ask before they import it.
"""

import json
import os
from pathlib import Path
from typing import Any

TRAINING, TYING = "training.json", "tying.json"
FORMAT = "training 1"
# What the file of a packed network begins with, see `tying_env.compression`.
MAGIC = b"tyingpck"


def is_export(folder: Path) -> bool:
    """Return whether this is the folder of an exported network, and no run directory."""
    return (folder / TRAINING).is_file() or (folder / TYING).is_file()


def is_packed(path: Path) -> bool:
    """Return whether this is the file of a packed network.

    Raises:
        OSError: there is a file and it cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_training(folder: Path) -> dict[str, Any]:
    """Return what training.json says: `env`, `sizes`, `tying`, `blocks`, `network`, `dense`.

    Raises:
        FileNotFoundError: there is none: the folder was exported by a version that did not write one.
        ValueError: it is damaged.
    """
    path = folder / TRAINING
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} does not say how its network was trained ({TRAINING}): it was exported by an earlier version; "
            "export the run once more, or give the run directory"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise ValueError(f"{path} is of the format {found!r:.80}, expected {FORMAT!r}")
    kinds = {"env": dict, "sizes": dict, "tying": list, "blocks": list, "dense": bool}
    if wrong := [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]:
        raise ValueError(f"{path} is damaged: {wrong[0]!r} cannot be {about.get(wrong[0])!r:.80}")
    return about


def without_folders(value: Any) -> Any:
    """Return a value, ready for JSON, in which each absolute path is its last name.

    What is given away does not say where its maker's files are.
    """
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(entry) for entry in value]
    return Path(value).name if is_absolute(value) else value


def is_absolute(value: Any) -> bool:
    """Return whether this is an absolute path, or one into a user's folder; also as part of an import string."""
    return isinstance(value, (str, Path)) and (os.path.isabs(value) or str(value).startswith("~"))
