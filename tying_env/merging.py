"""Keeps adapters from changing weights that several layers share.

PEFT's `merge` adds an adapter's update to the weight below it, in place, and some ways of beginning (PiSSA, OLoRA,
CorDA, LoRA-GA, LoftQ, KaSA) take from that weight what they give to the adapter. Where layers share the weight, each of
them would get the changes of all, and nothing would say so.

What blocks share is marked on the modules that hold it, so that copies and pickles of a network carry it along; the
marks follow the tying. PEFT's layers hold the module below them as `base_layer`: torch tells when one is registered,
and from then on the adapter's methods that may change it look at the marks first.
"""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from tying_env.references import storage_of

_MARK = "_shared_with_other_blocks"
_BASE = "base_layer"  # where adapters of PEFT hold the module below them

_OWN = "load_tied(folder, tied=False) gives every layer weights of its own"


class Shared:
    """What other blocks share of a module's Parameters: a mark on it.

    Args:
        names: attribute -> what it is called in messages.
        by_memory: of these, the attributes whose Parameters are others on the same memory, and not the same ones.
    """

    def __init__(self, names: dict[str, str], by_memory: frozenset[str]) -> None:
        self.names, self.by_memory = names, by_memory
        _watch()

    def __reduce__(self) -> tuple[type["Shared"], tuple[dict[str, str], frozenset[str]]]:
        # By the constructor: a process that reads a pickle has to watch, too.
        return Shared, (self.names, self.by_memory)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        # torch gives every Parameter of a copy memory of its own.
        return Shared({key: name for key, name in self.names.items() if key not in self.by_memory}, frozenset())

    def same(self, other: "Shared | None") -> bool:
        """Tell whether another mark says the same."""
        return other is not None and (self.names, self.by_memory) == (other.names, other.by_memory)


def mark_shared(places: Sequence[Mapping[str, tuple[nn.Module, str]]]) -> None:
    """Mark what blocks share now, and nothing else.

    Args:
        places: for each block the places of its Parameters that can be shared, by name: module and attribute.
    """
    users: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for i, slots in enumerate(places):
        for name, (module, attribute) in slots.items():
            users[name, storage_of(getattr(module, attribute))].append(i)
    names: dict[int, dict[str, str]] = defaultdict(dict)
    by_memory: dict[int, set[str]] = defaultdict(set)
    for (name, _), blocks in users.items():
        if len(blocks) == 1:
            continue
        listed = f"{', '.join(map(str, blocks[:-1]))} and {blocks[-1]}"
        found = [places[i][name] for i in blocks]
        several = len({id(getattr(module, attribute)) for module, attribute in found}) > 1
        for module, attribute in found:
            names[id(module)][attribute] = f"{name!r} is shared by blocks {listed}"
            if several:
                by_memory[id(module)].add(attribute)
    for module in {id(module): module for slots in places for module, _ in slots.values()}.values():
        if id(module) not in names:
            vars(module).pop(_MARK, None)
            continue
        mark = Shared(names[id(module)], frozenset(by_memory[id(module)]))
        if not mark.same(vars(module).get(_MARK)):
            vars(module)[_MARK] = mark


def guard_adapters(blocks: Sequence[nn.Module], places: Sequence[Mapping[str, tuple[nn.Module, str]]]) -> None:
    """Guard the adapters that blocks have already, where what lies below them can be shared."""
    tied = {id(module) for slots in places for module, _ in slots.values()}
    for block in blocks:
        for module in block.modules():
            base = module._modules.get(_BASE)
            if base is not None and any(id(part) in tied for part in base.modules()):
                _guard(module)


@functools.cache
def _watch() -> None:
    register_module_module_registration_hook(_guard_if_marked)


def _guard_if_marked(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    if name == _BASE and submodule is not None and any(_MARK in vars(part) for part in submodule.modules()):
        _guard(module)


def _guard(adapter: nn.Module) -> None:
    for guarded in (_Merging, _Beginning):
        if callable(getattr(type(adapter), guarded.name, None)):
            vars(adapter)[guarded.name] = guarded(adapter)


class _Guarded:
    """A method of an adapter that looks at the marks first."""

    name: str

    def __init__(self, adapter: nn.Module) -> None:
        self._adapter = adapter

    @property
    def _method(self) -> Any:
        return getattr(type(self._adapter), self.name)


class _Merging(_Guarded):
    """An adapter's `merge`, refused while what lies below it is shared."""

    name = "merge"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for _, name, _ in _shared_below(self._adapter):
            raise ValueError(
                f"{name}, and merging would add the updates of all of them to each. {_OWN}: load the adapter "
                "into that, and merge it there"
            )
        return self._method(self._adapter, *args, **kwargs)


class _Beginning(_Guarded):
    """An adapter's `update_layer`, which begins an adapter; refused and undone where it changes what is shared."""

    name = "update_layer"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        shared = [(*found, found[2].data, found[2].detach().clone()) for found in _shared_below(self._adapter)]
        config = kwargs.get("config")
        for _, name, _, _, _ in shared:
            if getattr(config, "kasa_config", None) is not None:  # it may change it in the first forward pass only
                raise ValueError(_changes(name, config))
        begun = self._method(self._adapter, *args, **kwargs)
        changed = None
        for (module, attribute), name, parameter, data, values in shared:
            now = getattr(module, attribute)
            if now is not parameter or now.data_ptr() != data.data_ptr() or not torch.equal(now, values):
                changed = name
                setattr(module, attribute, parameter)
                parameter.data = data
                data.copy_(values)
        if changed is not None:
            raise ValueError(_changes(changed, config))
        return begun


def _changes(name: str, config: Any) -> str:
    begun = getattr(config, "init_lora_weights", None)
    kind = f"init_lora_weights={begun!r}" if isinstance(begun, str) else f"an adapter of {type(config).__name__}"
    kind = "KaSA" if getattr(config, "kasa_config", None) is not None else kind
    return (
        f"{name}, and {kind} begins by changing the weight below each adapter, which would change it for all of them "
        f"once for each. Choose a beginning that leaves it as it is, such as plain LoRA's; or {_OWN}"
    )


def _shared_below(adapter: nn.Module) -> Iterator[tuple[tuple[nn.Module, str], str, nn.Parameter]]:
    """Yield the place, the name for messages and the Parameter of all that is shared below an adapter."""
    base = adapter._modules.get(_BASE)
    for module in () if base is None else base.modules():
        mark = vars(module).get(_MARK)
        for attribute, name in () if mark is None else mark.names.items():
            parameter = getattr(module, attribute, None)
            if isinstance(parameter, nn.Parameter):
                yield (module, attribute), name, parameter
