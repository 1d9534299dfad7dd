"""Data files that other PyPI packages carry, found without importing those packages (one of them imports pandas)."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def packaged_folder(package: str, folder: str) -> Path:
    """Return where the installed `package` keeps its data `folder` (relative to the package).

    Raises:
        FileNotFoundError: The package is not installed, or has no such folder.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the Python package {package!r}, whose {folder!r} folder is needed, is not installed")
    path = Path(spec.submodule_search_locations[0]) / folder
    if not path.is_dir():
        raise FileNotFoundError(f"the installed Python package {package!r} has no folder {path}")
    return path
