"""The places in a block where the Parameters hang that are tied, and which blocks are alike."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

# The weights of one block: name inside the block -> Parameter.
Weights = dict[str, nn.Parameter]

# What of a block is tied: all its Parameters that train; or its matrices, so that norms, biases and other vectors stay
# every layer's own.
TiedParameters = Literal["all", "matrices"]

_WHAT = {"all": "parameters", "matrices": "matrices"}

# How peft names the Parameters of a low-rank update.
_LOW_RANK = re.compile(r"(^|\.)lora_[AB]\.")

# A place in a block where a Parameter hangs: the submodule and its attribute.
Slot = tuple[nn.Module, str]


def slots(block: nn.Module, only: TiedParameters = "all") -> dict[str, Slot]:
    """Return the places of a block's Parameters that are tied, by name; those of LoRA beside them stay the block's own.

    (Where nothing but LoRA's trains, it is those that are tied: see the agents' adapters.)
    """
    trainable = {
        name: (block.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name, parameter in block.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and (only == "all" or parameter.ndim >= 2)
    }
    return {name: slot for name, slot in trainable.items() if not _LOW_RANK.search(name)} or trainable


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


def find_kinds(
    blocks: Sequence[nn.Module], lists: Sequence[int], only: TiedParameters = "all"
) -> npt.NDArray[np.int64]:
    """Return for each block the lowest one of the same list whose tied Parameters are alike, shape (L,)."""
    marks = [(place, tuple(sorted(_shapes(block, only).items()))) for block, place in zip(blocks, lists, strict=True)]
    return np.array([marks.index(mark) for mark in marks], dtype=np.int64)


def check_kinds(blocks: Sequence[nn.Module], kinds: npt.NDArray[Any], only: TiedParameters = "all") -> None:
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
        first, shapes = _shapes(blocks[kinds[i]], only), _shapes(block, only)
        if not shapes:
            raise ValueError(f"block {i} ({type(block).__name__}) has no {_WHAT[only]} to tie")
        for name in [*first, *shapes]:
            if first.get(name) != shapes.get(name):
                here, there = first.get(name, "missing"), shapes.get(name, "missing")
                raise ValueError(
                    "blocks must have parameters of the same names, shapes and dtypes: "
                    f"{name!r} is {here} in block {kinds[i]} and {there} in block {i}"
                )
        for name, slot in slots(block, only).items():
            if seen.get(id(get(slot)), i) != i:
                raise ValueError(
                    f"blocks must not share Parameters yet: blocks {seen[id(get(slot))]} and {i} share {name!r}"
                )
        seen |= {id(get(slot)): i for slot in slots(block, only).values()}


def _shapes(block: nn.Module, only: TiedParameters) -> dict[str, str]:
    return {name: f"{tuple(get(slot).shape)} {get(slot).dtype}" for name, slot in slots(block, only).items()}
