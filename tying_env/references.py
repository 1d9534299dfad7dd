"""Finds the tensors that a network can compute with, wherever they hang: in its modules, in lists, in closures.

NumPy arrays on the memory of a tensor count as well.

A tying puts other Parameters into the modules of a block, and a copy of a network has Parameters of its own. A plain
list, a closure or a partial that holds a Parameter knows nothing of either: the network would compute with the old one.
"""

import functools
import sys
import types
from collections import OrderedDict, UserList, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

# Nothing hangs on these. (What a function finds in its module, or a class, is looked up by name when it is needed.)
_ENDS = (str, bytes, int, float, complex, type(None), type, types.ModuleType, types.CodeType, types.BuiltinFunctionType)
# The same by their exact type, and containers without anything in them: most of what hangs on a module.
_PLAIN = frozenset({str, bytes, bool, int, float, complex, type(None)})
_HOOKS = frozenset({dict, OrderedDict, set})
# Of the standard library's own objects only containers are looked into: a logger leads everywhere.
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_HOLDERS = (types.SimpleNamespace, UserList, functools.partial)  # and these, by their attributes


class Place(NamedTuple):
    """Where a tensor, an array of numbers or a module hangs."""

    path: str  # as Python would write it, seen from the network
    owner: int  # the id of what it hangs on
    name: object  # its attribute, key or position there
    part: Tensor | np.ndarray | nn.Module


def storage_of(tensor: Tensor) -> int | None:
    """Return what is equal for tensors that share memory, as a Parameter and its `.data` do; None if there is none."""
    try:  # not by address: on the meta device all would have the same
        storage: int = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a sparse one
        return None
    return storage


class Memory:
    """The memory of some tensors.

    Args:
        tensors: names and tensors, which have to stay for as long as this is asked.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._storages: dict[int, str] = {}
        self._ranges: list[tuple[int, int, str]] = []
        for name, tensor in tensors:
            if (storage := storage_of(tensor)) is None:
                continue
            self._storages[storage] = name
            if type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu":
                start = tensor.untyped_storage().data_ptr()
                self._ranges.append((start, start + tensor.untyped_storage().nbytes(), name))

    def name_of(self, part: Tensor | np.ndarray) -> str | None:
        """Return the name of a tensor on whose memory this is; None if there is none."""
        if isinstance(part, Tensor):
            storage = storage_of(part)
            return None if storage is None else self._storages.get(storage)
        if part.size == 0:
            return None
        address = part.__array_interface__["data"][0]  # a tensor and an array on its memory are two objects
        return next((name for start, end, name in self._ranges if start <= address < end), None)


def places(root: object) -> Iterator[Place]:
    """Yield where tensors and modules hang: in modules, containers, functions, methods, partials, attributes."""
    waiting: list[tuple[str, Any]] = [("", root)]
    seen: dict[int, object] = {}  # holds what it saw, so that no two have the same id
    while waiting:
        path, owner = waiting.pop()
        if id(owner) in seen:
            continue
        seen[id(owner)] = owner
        for label, name, part in _parts(owner):
            if isinstance(part, (Tensor, nn.Module)) or (isinstance(part, np.ndarray) and part.dtype != object):
                yield Place(f"{path}{label}".removeprefix("."), id(owner), name, part)
            # Of tensors only plain ones: a FakeTensor's attributes lead into torch itself.
            if not isinstance(part, _ENDS) and (not isinstance(part, Tensor) or type(part) in (Tensor, nn.Parameter)):
                waiting.append((f"{path}{label}", part))


def find(root: object, wanted: Memory, known: Collection[tuple[int, object]] = ()) -> Iterator[tuple[str, str]]:
    """Yield where some tensors, or others on their memory, hang: the path and the tensor's name.

    Args:
        root: where to look.
        wanted: the tensors.
        known: owners (by id) and names of places that do not count.
    """
    for place in places(root):
        if (place.owner, place.name) in known or isinstance(place.part, nn.Module):
            continue
        if (name := wanted.name_of(place.part)) is not None:
            yield place.path, name


def original_in(copied: nn.Module, original: nn.Module) -> Place | None:
    """Return where something of a network hangs in a copy of it, a module or a tensor; None if nothing does."""
    modules = set(map(id, original.modules()))
    memory = Memory((*original.named_parameters(), *original.named_buffers()))
    for place in places(copied):
        part = place.part
        if id(part) in modules or (not isinstance(part, nn.Module) and memory.name_of(part) is not None):
            return place
    return None


def _parts(owner: Any) -> Iterator[tuple[str, object, Any]]:
    """Yield what hangs on an object: how Python would write it, its name there, and itself."""
    if isinstance(owner, nn.Module):
        for name, value in vars(owner).items():
            if name in ("_parameters", "_buffers", "_modules"):
                yield from ((f".{key}", key, part) for key, part in value.items())
            elif type(value) not in _PLAIN and (type(value) not in _HOOKS or value):
                yield f".{name}", name, value
        yield from _in_slots(owner)
        return
    if isinstance(owner, Mapping):
        for key, value in list(owner.items()):
            yield f"[{_short(key)}]", key, value
            if not isinstance(key, _ENDS):
                yield f"[{_short(key)}] (the key)", key, key
        if isinstance(owner, defaultdict):
            yield ".default_factory", "default_factory", owner.default_factory
    elif isinstance(owner, _CONTAINERS):
        yield from ((f"[{i}]", i, part) for i, part in enumerate(owner))
    elif isinstance(owner, functools.partial):
        yield ".func", "func", owner.func
        yield ".args", "args", owner.args
        yield ".keywords", "keywords", owner.keywords
    elif isinstance(owner, types.MethodType):
        yield ".__self__", "self", owner.__self__
        yield ".__func__", "func", owner.__func__
    elif isinstance(owner, types.FunctionType):
        for name, cell in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=True):
            try:
                yield f"'s variable {name!r}", name, cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        yield ".__defaults__", "defaults", owner.__defaults__
        yield ".__kwdefaults__", "kwdefaults", owner.__kwdefaults__
        yield ".__dict__", "dict", vars(owner)
        return
    elif isinstance(owner, np.ndarray) and owner.dtype == object:
        yield from ((f".flat[{i}]", i, part) for i, part in enumerate(owner.flat))
    # Also of a list or an array whose class has more than its items.
    if isinstance(owner, _HOLDERS) or type(owner).__module__.partition(".")[0] not in sys.stdlib_module_names:
        yield from ((f".{name}", name, value) for name, value in getattr(owner, "__dict__", {}).items())
        yield from _in_slots(owner)


def _in_slots(owner: object) -> Iterator[tuple[str, object, Any]]:
    for kind in type(owner).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if isinstance(vars(kind).get(name), types.MemberDescriptorType) and hasattr(owner, name):
                yield f".{name}", name, getattr(owner, name)


def _short(key: object) -> str:
    return repr(key) if isinstance(key, (str, int)) else type(key).__name__
