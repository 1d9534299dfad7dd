"""Settings in files: a run's config.json read back, a configuration in TOML, and in what two of them differ.

A file never makes code run. Where it names code of a user's own, an agent or a network by import string, it is read
only if whoever reads it has named the same. (The path of a file may be written in another way: what is resolved is what
the user has written.)
"""

import dataclasses
import difflib
import json
import shlex
import tomllib
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tying_agents.none_in_toml import NONE, for_toml, takes_the_word, without_none
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_env.config import PLACE_SETTINGS, EnvConfig, with_later_settings
from tying_env.config.checks import check_type
from tying_env.differences import flat, listed
from tying_env.files import to_json
from tying_env.plugins import is_import_string, same_object
from tying_env.runs.layouts import modern

# These change where a run is kept and computed, not what comes of it: a resumed run may have others. (Its folder is
# where it is found.)
FREE = ("run_dir", "checkpoint_every", "keep_checkpoints", "callbacks", *(f"env.{name}" for name in PLACE_SETTINGS))

# Options that may name code of a user's own.
CODE = ("agent", "rewards", "wrappers", "callbacks", "env.model")


class NamesCode(ValueError):
    """A file names code of a user's own that nobody has asked to run; the message says how to ask.

    Args:
        message: the message.
        words: the options that ask, with their values, as words of a command line.
    """

    def __init__(self, message: str, words: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.words = list(words)


def saved_config(about: dict[str, Any], named: Collection[str] = ()) -> RunConfig:
    """Return the settings that a run's config.json holds; those it lacks have their defaults.

    Args:
        about: config.json.
        named: import strings that the user has named: only these may be in it.

    Raises:
        NamesCode: it names others.
        ValueError: something is wrong; the message names it.
    """
    current = as_named(modern(about), named)
    if missing := [name for name in ("agent", "seed", "env") if name not in current]:
        raise ValueError(f"it is not of a run: it has no {missing[0]!r}")
    refuse_code(current, named)
    try:
        return from_plain(current)
    except TypeError as error:
        raise ValueError(f"the settings do not hold: {error}") from error


def as_named(plain: dict[str, Any], named: Collection[str]) -> dict[str, Any]:
    """Return a file's settings with code of a user's own as the user names it now: "./mine.py:A" for "mine.py:A".

    What config.json says of that code elsewhere, its hash, follows.

    Args:
        plain: the settings.
        named: import strings that the user has named.
    """
    env = plain.get("env")
    texts = [text for option in CODE for text in _texts(plain.get(option))]
    texts += _texts(env.get("model")) if isinstance(env, dict) else []
    now = {text: spec for text in texts if is_import_string(text) for spec in named if same_object(text, spec)}
    now = {text: spec for text, spec in now.items() if text not in named}
    return {now.get(name, name): _replaced(value, now) for name, value in plain.items()} if now else plain


def _replaced(value: Any, now: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {now.get(key, key): _replaced(each, now) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(each, now) for each in value]
    return now.get(value, value) if isinstance(value, str) else value


def refuse_code(plain: dict[str, Any], named: Collection[str]) -> None:
    """Refuse settings that name code of a user's own which the user has not named.

    Raises:
        NamesCode: they do.
    """
    env = plain.get("env")
    said, words = [], []
    for option in CODE:
        of_env = option.startswith("env.")
        group = (env if isinstance(env, dict) else {}) if of_env else plain
        texts = _texts(group.get(option.removeprefix("env.")))
        if unnamed := [text for text in texts if is_import_string(text) and text not in named]:
            said.append(f"{option} is {', '.join(map(repr, unnamed))}")
            words += [f"--{option.removeprefix('env.')}", *texts]
    if said:
        without = ", or --callbacks alone to do without" if "--callbacks" in words else ""
        add = f"add {shlex.join(words)}{without}"
        raise NamesCode(f"{' and '.join(said)}, code of your own, and a file never makes code run: {add}", words)


def _texts(value: Any) -> list[str]:
    """Return every text in a value, also where it should not be: in a table's keys, in lists of lists."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in _texts(each)]
    return [text for each in value for text in _texts(each)] if isinstance(value, (list, tuple)) else []


def from_plain(plain: dict[str, Any], strict: bool = False) -> RunConfig:
    """Return the settings of nested plain values; those that are missing have their defaults.

    Args:
        plain: as `dataclasses.asdict` gives them, and JSON or TOML read them.
        strict: refuse names that are no settings.

    Raises:
        ValueError: a value is wrong, or (strict) a name is no setting.
    """
    agent = plain.get("agent", RunConfig.agent)
    if not isinstance(agent, str):
        raise ValueError(f"agent must be a name or an import string, got {agent!r}")
    settings = find_agent(agent).settings
    values = {**plain, "controller": _from_plain(settings, plain.get("controller") or {}, "controller.", strict)}
    return _from_plain(RunConfig, values, "", strict)


def read_config_file(
    path: Path, named: Collection[str] = (), overruling: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings in a TOML file, or in an earlier run's config.json, as plain values.

    Of a config.json the settings alone are taken, without the run's folder and label.

    Args:
        path: the file.
        named: import strings that the user has named.
        overruling: settings of `CODE` that the user gives: others that the file has for them do not count.

    Raises:
        FileNotFoundError: it is not there.
        NamesCode: it names code that the user has not named.
        ValueError: it is damaged; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration file {path}")
    try:
        text = path.read_text(encoding="utf-8")
        plain = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(plain, dict):
            raise ValueError(f"it must hold an object, got a {type(plain).__name__}")
        if path.suffix == ".json":
            known = {each.name for each in dataclasses.fields(RunConfig)} - {"run_dir", "label"}
            plain = {name: value for name, value in modern(plain).items() if name in known}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    plain = as_named(plain, named)
    for option, value in (overruling or {}).items():
        *group, name = option.split(".")
        where = plain.get(group[0]) if group else plain
        if isinstance(where, dict) and where.get(name, value) != value:
            del where[name]
            if name == "agent":
                plain.pop("controller", None)  # settings of the other agent
    refuse_code(plain, named)
    return plain


def overlaid(config: RunConfig, plain: dict[str, Any], where: str) -> RunConfig:
    """Return the settings with those of a file in their place.

    Args:
        config: the settings where the file has none.
        plain: what `read_config_file` gave.
        where: the file's name, for messages.

    Raises:
        ValueError: a setting is unknown or wrong; the message names file and setting.
    """
    base: dict[str, Any] = dataclasses.asdict(config)
    if plain.get("agent", config.agent) != config.agent:
        del base["controller"]
    for name, value in plain.items():
        base[name] = {**(base.get(name) or {}), **value} if isinstance(value, dict) else value
    try:
        return from_plain(base, strict=True)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def to_toml(config: RunConfig) -> str:
    """Return settings as TOML, as `read_config_file` and `overlaid` read them.

    TOML has no null: None is written as "none". A text or path, which may itself read "none", is left out instead.

    Raises:
        ValueError: a text or path is None where its default is not: no file can say that.
    """
    import tomli_w

    return tomli_w.dumps(for_toml(config))


def differences(saved: RunConfig, asked: RunConfig) -> list[str]:
    """Return the settings that decide what comes of a run and are not the same, a line each."""
    return listed(dataclasses.asdict(saved), dataclasses.asdict(asked), FREE)


def differences_to_config(about: dict[str, Any], asked: RunConfig, but: Sequence[str] = ()) -> list[str]:
    """Return the settings in which a run's config.json differs from what is asked for now, a line each.

    A run of an earlier version does not know every setting; those it lacks must be at their defaults.

    Args:
        about: config.json.
        asked: the settings now.
        but: settings to pass over, besides those that do not decide what comes of a run.
    """
    usual = RunConfig(agent=asked.agent)
    mine, defaults = (flat(json.loads(to_json(dataclasses.asdict(each)))) for each in (asked, usual))
    there = as_named(modern(about), [spec for _, spec in asked.foreign()])
    theirs = {name: value for name, value in (defaults | flat(there)).items() if name in mine}
    return listed(theirs, mine, (*FREE, *but))


T = TypeVar("T")


def _from_plain(kind: type[T], values: Any, where: str, strict: bool) -> T:
    if not isinstance(values, dict):
        raise ValueError(f"{where.removesuffix('.') or 'the settings'} must be an object, got {values!r}")
    assert dataclasses.is_dataclass(kind)
    hints, settings = get_type_hints(kind), {}
    known = [each.name for each in dataclasses.fields(kind)]
    if strict and (unknown := [name for name in values if name not in known]):
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {where}{near[0]}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown setting {where}{unknown[0]}; {hint}")
    if kind is EnvConfig and not strict:
        values = with_later_settings(values)
    for name in known:
        if name in values:
            settings[name] = _value(hints[name], values[name], f"{where}{name}", strict)
    try:
        return kind(**settings)
    except TypeError as error:
        raise ValueError(f"the settings do not hold: {error}") from error


def _value(hint: Any, value: Any, where: str, strict: bool) -> Any:
    if strict and isinstance(value, str) and value == NONE and takes_the_word(hint):
        return None
    hint = without_none(hint) if value is not None else hint
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _from_plain(hint, value, f"{where}.", strict)
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list of {kind.__name__}, got {value!r}")
        return tuple(_value(kind, each, where, strict) for each in value)
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if Path in allowed and isinstance(value, str):
        return Path(value)
    if hint is not object and all(isinstance(each, type) or get_origin(each) is Literal for each in allowed):
        check_type(where, value, hint)
    return value
