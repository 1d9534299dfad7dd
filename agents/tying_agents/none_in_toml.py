"""Settings for TOML, which has no null: "none" stands for None where no text can be meant."""

import dataclasses
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

NONE = "none"


def for_toml(settings: Any, where: str = "") -> dict[str, Any]:
    """Return the settings in a dataclass as TOML can write them.

    Args:
        settings: a dataclass.
        where: what its fields are called in messages, "controller.".

    Raises:
        ValueError: a setting is None that cannot be written as "none", and its default is not None.
    """
    hints, plain = get_type_hints(type(settings)), {}
    for field in dataclasses.fields(settings):
        value, hint, name = getattr(settings, field.name), hints[field.name], f"{where}{field.name}"
        if value is None and field.default is None and not takes_the_word(hint):
            continue  # left out: that is its default
        plain[field.name] = _written(value, hint, name)
    return plain


def takes_the_word(hint: Any) -> bool:
    """Tell whether a field of this type may be None, and no value of it can be the text "none"."""
    kinds = _members(hint)
    return type(None) in kinds and not any(_may_be_text(kind) for kind in kinds)


def without_none(hint: Any) -> Any:
    """Return what an optional list or group of settings is when it is not None; any other type as it is."""
    kinds = [kind for kind in _members(hint) if kind is not type(None)]
    grouped = len(kinds) == 1 and (get_origin(kinds[0]) is tuple or dataclasses.is_dataclass(kinds[0]))
    return kinds[0] if grouped else hint


def _written(value: Any, hint: Any, name: str) -> Any:
    if value is None:
        if not takes_the_word(hint):
            raise ValueError(
                f"{name} is None, and a configuration file cannot say so: its default is another, and {NONE!r} might "
                "be meant as text"
            )
        return NONE
    if dataclasses.is_dataclass(value):
        return for_toml(value, f"{name}.")
    if isinstance(value, (list, tuple)):
        kinds = get_args(without_none(hint))
        return [_written(each, kinds[0] if kinds else Any, name) for each in value]
    if hasattr(value, "tolist"):  # NumPy's
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _may_be_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return NONE in get_args(kind)
    if get_origin(kind) is not None:  # a list, say
        return False
    return not isinstance(kind, type) or kind is object or issubclass(kind, (str, Path))
