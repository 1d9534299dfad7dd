"""The places in a block where its trainable Parameters hang, and which blocks are alike."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

# The weights of one block: name inside the block -> Parameter.
Weights = dict[str, nn.Parameter]

# How peft names the Parameters of a low-rank update.
_LOW_RANK = re.compile(r"(^|\.)lora_[AB]\.")

# A place in a block where a Parameter hangs: the submodule and its attribute.
Slot = tuple[nn.Module, str]


def slots(block: nn.Module) -> dict[str, Slot]:
    """Return the places of a block's trainable Parameters, by name; those of LoRA beside them stay the block's own.

    (Where nothing but LoRA's trains, it is those that are tied: see the agents' adapters.)
    """
    found = _trainable(block)
    return {name: slot for name, slot in found.items() if not _LOW_RANK.search(name)} or found


def _trainable(block: nn.Module) -> dict[str, Slot]:
    return {
        name: (block.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name, parameter in block.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }


def get(slot: Slot) -> nn.Parameter:
    """Return the Parameter that hangs there now."""
    module, attribute = slot
    parameter = getattr(module, attribute)
    assert isinstance(parameter, nn.Parameter)
    return parameter


def put(places: dict[str, Slot], weights: Weights) -> None:
    """Set references, nothing else: no memory is taken here, no number computed."""
    for name, (module, attribute) in places.items():
        if getattr(module, attribute) is not weights[name]:
            setattr(module, attribute, weights[name])


def aliases(weights: Weights, requires_grad: bool) -> Weights:
    """Return new Parameters on the same storage."""
    created = {id(p): nn.Parameter(p.detach(), requires_grad=requires_grad) for p in weights.values()}
    return {name: created[id(p)] for name, p in weights.items()}


def find_kinds(blocks: Sequence[nn.Module], lists: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return for each block the lowest one of the same list whose trainable Parameters are alike, shape (L,)."""
    marks = [(place, tuple(sorted(_shapes(block).items()))) for block, place in zip(blocks, lists, strict=True)]
    return np.array([marks.index(mark) for mark in marks], dtype=np.int64)


def check_kinds(blocks: Sequence[nn.Module], kinds: npt.NDArray[Any]) -> None:
    """Check that blocks of one kind are alike, and that no two blocks share anything yet.

    Raises:
        ValueError: they are not, or do, or there are none.
    """
    if not blocks:
        raise ValueError("blocks must hold at least one module, got none")
    if kinds.shape != (len(blocks),) or (kinds > np.arange(len(blocks))).any() or (kinds[kinds] != kinds).any():
        raise ValueError(f"kinds must name the lowest block of each block's kind, got {kinds.tolist()}")
    seen: dict[int, int] = {}
    for i, block in enumerate(blocks):
        first, shapes = _shapes(blocks[kinds[i]]), _shapes(block)
        if not shapes:
            raise ValueError(f"block {i} ({type(block).__name__}) has no parameters to tie")
        for name in [*first, *shapes]:
            if first.get(name) != shapes.get(name):
                here, there = first.get(name, "missing"), shapes.get(name, "missing")
                raise ValueError(
                    "blocks must have parameters of the same names, shapes and dtypes: "
                    f"{name!r} is {here} in block {kinds[i]} and {there} in block {i}"
                )
        for name, slot in slots(block).items():
            if seen.get(id(get(slot)), i) != i:
                raise ValueError(
                    f"blocks must not share Parameters yet: blocks {seen[id(get(slot))]} and {i} share {name!r}"
                )
        seen |= {id(get(slot)): i for slot in slots(block).values()}


def _shapes(block: nn.Module) -> dict[str, str]:
    return {name: f"{tuple(get(slot).shape)} {get(slot).dtype}" for name, slot in slots(block).items()}
