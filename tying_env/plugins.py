"""Brings in code from outside this package: a network, a controller, named by an import string.

    my_file.py:make_network          a name in a file; the path is relative to the working directory
    package.module:Name              a name in a module that Python can import

Only a string that the user gives, on the command line or as an argument, is ever resolved. What is read from a file is
compared with it, and never resolved by itself: a file never makes code run.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

__all__ = [
    "ForeignCodeError",
    "describe_object",
    "foreign_code",
    "is_import_string",
    "is_ours",
    "load_object",
    "named_again",
    "same_object",
]

_FORM = "path/to/file.py:Name or package.module:Name"
_log = logging.getLogger("tying_env")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

# Files that were loaded, by resolved path; and the hashes of what was loaded, whatever is in the files by now.
_loaded: dict[Path, ModuleType] = {}
_hashes: dict[Path, str] = {}


class ForeignCodeError(RuntimeError):
    """Code outside of this package raised. `__cause__` is what it raised, with its traceback.

    Out of another process the error comes with that traceback as text, and no cause.
    """

    _told = ""

    def traceback(self) -> str:
        """Return the traceback of what was raised, from where this package's frames end; empty if nothing was."""
        if self._told or self.__cause__ is None:
            return self._told
        frames = self.__cause__.__traceback__
        while frames is not None and frames.tb_next is not None and _leads_in(frames.tb_frame):
            frames = frames.tb_next
        return "".join(traceback.format_exception(type(self.__cause__), self.__cause__, frames))

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (type(self), self.args, self.traceback())


def _arrived(kind: type[ForeignCodeError], args: tuple[Any, ...], told: str) -> ForeignCodeError:
    error = kind(*args)
    error._told = told
    return error


def _leads_in(frame: FrameType) -> bool:
    """Return whether a frame stands between whoever called this package and the code outside of it."""
    module = frame.f_globals.get("__name__", "")
    return is_ours(module) or module.split(".")[0] in ("importlib", "contextlib")


def is_ours(module: str) -> bool:
    """Return whether a module, by its name, is one of this package."""
    return module.split(".")[0] in ("tying_agents", "tying_env")


@contextlib.contextmanager
def foreign_code(spec: str, doing: str) -> Iterator[None]:
    """Run code of the user's, so that an error of it says whose it is.

    Args:
        spec: the import string that the code came by.
        doing: the words for what it did, "while it was called".

    Raises:
        ForeignCodeError: the code raised, or ended the program; what it raised is chained to it.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ForeignCodeError(f"{spec} raised {type(error).__name__} {doing}: {error}") from error


def is_import_string(text: str) -> bool:
    """Return whether this has the form of an import string; nothing is imported, and nothing need be there."""
    where, _, name = text.rpartition(":")
    return name.isidentifier() and (where.endswith(".py") or _MODULE.fullmatch(where) is not None)


def same_object(spec: str, other: str) -> bool:
    """Return whether two import strings name the same: of files, however the path is written. Nothing is imported."""
    (where, _, name), (there, _, other_name) = spec.rpartition(":"), other.rpartition(":")
    files = where.endswith(".py") and there.endswith(".py")
    return spec == other or (files and name == other_name and _resolved(where) == _resolved(there))


def load_object(spec: str, what: str, accept: Callable[[Any], bool] = callable) -> Any:
    """Return the object that an import string names.

    A file becomes a module of its own, once per process, under a name that no other module has; modules beside it are
    not on the path. (Code in several files is a package: name it as package.module:Name.)

    Args:
        spec: the import string.
        what: the words for what is expected, "a function that makes a network"; for messages.
        accept: whether an object is of that kind; by default whatever can be called, a class or a function.

    Raises:
        ValueError: `spec` is no import string.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: there is no such module.
        ImportError: the file or module has no such name.
        TypeError: the object is of another kind.
        ForeignCodeError: the file or module raised while it was imported.
    """
    where, name = _parts(spec, what)
    module = _load_file(spec, where, what) if where.endswith(".py") else _load_module(spec, where, what)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [known for known in vars(module) if not known.startswith("_")], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ImportError(f"{spec}: {where} has no {name!r}, expected {what}{hint}")
    found = getattr(module, name)
    if not accept(found):
        raise TypeError(f"{spec} must be {what}, got {type(found).__name__}: {found!r:.200}")
    return found


def describe_object(spec: str) -> dict[str, str]:
    """Return what identifies the object of an import string: for a run's config.json.

    Returns:
        The string under `import`, and under `sha256` the hash of the source file that it names; of a file or module
        that was loaded, the hash of what was loaded. A file is not run for it.

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError, ForeignCodeError: as `load_object`.
        ImportError: the module has no file.
    """
    where, _ = _parts(spec, "code")
    path = _file(spec, where, "code") if where.endswith(".py") else _module_file(spec, where, "code")
    return {"import": spec, "sha256": _hashes.get(path) or hashlib.sha256(path.read_bytes()).hexdigest()}


def named_again(stored: Mapping[str, str], given: str | None, where: str, name: str) -> str:
    """Return the import string to load for what a file was made by: the one that the user names, never the file's.

    Args:
        stored: what `describe_object` said when the file was written.
        given: what the user names now; None for nothing.
        where: the file, for messages.
        name: of the argument, and of the option, that names it: "model".

    Raises:
        ValueError: nothing is named, or other code than the file was made by. (The same file with changed code is
            accepted, with a warning: what is in the file is compared with it anyway.)
        FileNotFoundError, ImportError: what is named is not there.
    """
    spec, sha256 = stored.get("import"), stored.get("sha256")
    if given is None:
        raise ValueError(
            f"{where} was made by code of the user's own, {spec!r}, and a file never makes code run: "
            f"name it again, {name}={spec!r} or --{name} {spec}"
        )
    if describe_object(given)["sha256"] != sha256:
        if not same_object(given, str(spec)):
            raise ValueError(f"{where} was made by {spec!r}; {given!r} is other code (its sha256 differs)")
        _log.warning("%s has changed since %s was made by it", spec, where)
    return given


def _parts(spec: str, what: str) -> tuple[str, str]:
    if not is_import_string(spec):
        raise ValueError(f"{what} must be named by an import string, {_FORM}, got {spec!r}")
    where, _, name = spec.rpartition(":")
    return where, name


def _resolved(where: str) -> Path:
    # Not Path.expanduser() and Path.resolve(): an unknown user, or links in a circle, are no file, and no other error.
    return Path(os.path.realpath(os.path.expanduser(where)))


def _file(spec: str, where: str, what: str) -> Path:
    path = _resolved(where)
    if not path.is_file():
        raise FileNotFoundError(f"{spec}: there is no file {path}, expected one with {what}")
    return path


def _load_file(spec: str, where: str, what: str) -> ModuleType:
    path = _file(spec, where, what)
    if path in _loaded:
        return _loaded[path]
    # Python's own cache of compiled files goes by time and size: here what is hashed is what is run.
    source = path.read_bytes()
    name = f"_tying_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    module_spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert module_spec is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        with foreign_code(spec, "while it was imported"):
            exec(loader.source_to_code(source, str(path)), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    _loaded[path], _hashes[path] = module, hashlib.sha256(source).hexdigest()
    return module


def _load_module(spec: str, where: str, what: str) -> ModuleType:
    _find_module(spec, where, what)
    with foreign_code(spec, "while it was imported"):
        module = importlib.import_module(where)
    path = Path(module.__file__).resolve() if module.__file__ else None
    if path is not None and path not in _hashes:
        _hashes[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return module


def _module_file(spec: str, where: str, what: str) -> Path:
    module_spec = _find_module(spec, where, what)
    if module_spec.origin is None or not module_spec.has_location:
        raise ImportError(f"{spec}: the module {where} has no file")
    return Path(module_spec.origin).resolve()


def _find_module(spec: str, where: str, what: str) -> Any:
    """Return the spec of a module; the packages it is in are imported.

    Raises:
        ModuleNotFoundError: there is none.
        ForeignCodeError: a package that it is in raised.
    """
    found = None
    parents = where.split(".")
    absent = {".".join(parents[:count]) for count in range(1, len(parents) + 1)}
    with foreign_code(spec, "while it was imported"):
        try:
            found = importlib.util.find_spec(where)
        except ModuleNotFoundError as error:
            if error.name not in absent:  # one that the code itself asked for
                raise
    if found is None:
        raise ModuleNotFoundError(
            f"{spec}: there is no module {where!r}, expected one with {what}; it must be installed or on PYTHONPATH, "
            "and a file is named by its path: my_file.py:Name",
            name=where,
        )
    return found
