"""In what two sets of settings differ, in words."""

from collections.abc import Collection, Mapping
from typing import Any


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, whose keys are paths: "env.k"."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{where}{name}.") if isinstance(value, Mapping) else {f"{where}{name}": value}
    return found


def listed(there: Mapping[str, Any], here: Mapping[str, Any], but: Collection[str] = ()) -> list[str]:
    """Return in what two nested dictionaries differ, a line each; what one of them lacks is None.

    Args:
        there: what was saved.
        here: what is asked for now.
        but: paths to pass over.
    """
    theirs, mine = flat(there), flat(here)
    return [
        f"{name} is {theirs.get(name)!r} there, {mine.get(name)!r} here"
        for name in mine | theirs
        if name not in but and mine.get(name) != theirs.get(name)
    ]
