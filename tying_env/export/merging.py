"""Keeps adapters from being merged into weights that several layers share.

PEFT's `merge` adds an adapter's update to the weight below it, in place. Where layers share that weight, each of them
would get the updates of all, and nothing would say so. PEFT puts its layers into a model by assigning them to their
places: there torch tells of every module that is registered.
"""

import functools
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils.weak import WeakIdKeyDictionary

# Parameters that layers share -> the paths of the blocks that do.
_shared: Any = WeakIdKeyDictionary()


def refuse_merging(blocks: dict[str, nn.Module]) -> None:
    """Have adapters that are put on weights shared by several of these blocks refuse to be merged.

    Args:
        blocks: all blocks of a model, by path.
    """
    users: Any = WeakIdKeyDictionary()
    for path, block in blocks.items():
        for parameter in block.parameters():
            users.setdefault(parameter, []).append(path)
    _shared.update({parameter: paths for parameter, paths in users.items() if len(paths) > 1})
    _watch()


@functools.cache
def _watch() -> None:
    register_module_module_registration_hook(_refuse_if_shared)


def _refuse_if_shared(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    base: Any = getattr(submodule, "base_layer", None)
    if not isinstance(base, nn.Module) or not callable(getattr(submodule, "merge", None)):
        return
    if found := [_shared[parameter] for parameter in base.parameters() if parameter in _shared]:
        submodule.merge = functools.partial(_refuse, name, found[0])  # type: ignore[union-attr]


def _refuse(name: str, paths: list[str], *_: Any, **__: Any) -> None:
    raise ValueError(
        f"{name}: its weights are shared by {', '.join(paths)}, and merging would add the updates of all of them to "
        "each: load the adapter into load_tied(folder, tied=False), where every layer has weights of its own, and "
        "merge it there"
    )
