"""Checks that all groups of settings share: types, choices and ranges, each error with name, value and what is due."""

import functools
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

_type_hints = functools.cache(get_type_hints)  # to find them out takes longer than all checks


def declared_types(settings: type) -> dict[str, Any]:
    """Return the type of every field of a class of settings."""
    return _type_hints(settings)


def check_type(name: str, value: object, kind: Any) -> None:
    """Check that a value is of the type that its field declares.

    Raises:
        ValueError: it is not.
    """
    choices = [each for each in (kind, *get_args(kind)) if get_origin(each) is Literal]
    if choices:
        known = (*get_args(choices[0]), *([None] if type(None) in get_args(kind) else []))  # Literal[...] | None
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        return
    allowed = tuple(tuple if get_origin(each) is tuple else each for each in get_args(kind) or (kind,))
    if float in allowed:
        allowed = (*allowed, int)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("none" if t is type(None) else t.__name__ for t in get_args(kind) or (kind,))
        raise ValueError(f"{name} must be {names}, got {value!r} ({type(value).__name__})")


def check_at_least(least: float, **values: float) -> None:
    """Check that numbers are finite and not below `least`.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")


def check_above_zero(**values: float) -> None:
    """Check that numbers are finite and above 0.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
