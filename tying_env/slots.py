"""The places in a block where the Parameters hang that are tied, and which blocks are alike."""

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from tying_env.references import Memory, find, storage_of

# The weights of one block: name inside the block -> Parameter.
Weights = dict[str, nn.Parameter]

# What of a block is tied: all its Parameters that train; or its matrices, so that norms, biases and other vectors stay
# every layer's own.
TiedParameters = Literal["all", "matrices"]

_WHAT = {"all": "parameters", "matrices": "matrices"}

# The attribute that marks modules whose Parameters are never tied.
_KEPT = "_every_layers_own"

# Modules that the first block of a stack has for all of it: T5's table of relative positions. The rest of that block is
# like the others.
_OF_THE_STACK = ("relative_attention_bias",)

# A place in a block where a Parameter hangs: the submodule and its attribute.
Slot = tuple[nn.Module, str]


def keep_own(module: nn.Module) -> None:
    """Have the Parameters of a module in a block stay every layer's own, whatever the layer is tied to."""
    for part in module.modules():
        setattr(part, _KEPT, True)


def slots(block: nn.Module, only: TiedParameters = "all") -> dict[str, Slot]:
    """Return the places of a block's Parameters that are tied, by name: of those that train, all but `keep_own`'s.

    T5's table of relative positions, which the first block has for its stack, stays that block's own.

    What their names are does not matter: of a network that only trains adapters of whatever kind, all of these are.
    """
    places = {
        name: (block.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name, parameter in block.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and (only == "all" or parameter.ndim >= 2)
    }
    own = {name for name in places if any(part in _OF_THE_STACK for part in name.split("."))}
    return {name: slot for name, slot in places.items() if _KEPT not in slot[0].__dict__ and name not in own}


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


@contextlib.contextmanager
def apart(tied: Sequence[dict[str, Slot]]) -> Iterator[list[Weights]]:
    """Put new Parameters on the same storage into each of these sets of places, so that each has its own gradient.

    Yields them. Train nothing in here.
    """
    before = [{name: get(slot) for name, slot in places.items()} for places in tied]
    own = [aliases(weights, requires_grad=True) for weights in before]
    try:
        for places, weights in zip(tied, own, strict=True):
            put(places, weights)
        yield own
    finally:
        for places, weights in zip(tied, before, strict=True):
            put(places, weights)


def find_kinds(
    blocks: Sequence[nn.Module], places: Sequence[Hashable], only: TiedParameters = "all"
) -> npt.NDArray[np.int64]:
    """Return for each block the lowest one of the same place whose tied Parameters are alike, shape (L,)."""
    marks = [(place, tuple(sorted(_shapes(block, only).items()))) for block, place in zip(blocks, places, strict=True)]
    return np.array([marks.index(mark) for mark in marks], dtype=np.int64)


def check_kinds(
    blocks: Sequence[nn.Module],
    kinds: npt.NDArray[Any],
    only: TiedParameters = "all",
    *,
    within: nn.Module | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Check that blocks of one kind are alike, that no two share anything yet, and that a tying would reach all of it.

    Args:
        blocks: L modules.
        kinds: for each block the lowest one of its kind, shape (L,).
        only: what of a block is tied.
        within: the network that the blocks are in, which may hold their Parameters as well; None: not known.
        names: of the blocks, for messages; by default their numbers.

    Raises:
        ValueError: it is not so, or there are no blocks; the message names the Parameter.
    """
    if not blocks:
        raise ValueError("blocks must hold at least one module, got none")
    if kinds.shape != (len(blocks),) or (kinds > np.arange(len(blocks))).any() or (kinds[kinds] != kinds).any():
        raise ValueError(f"kinds must name the lowest block of each block's kind, got {kinds.tolist()}")
    found: list[dict[str, str]] = []
    called = names or [f"block {i}" for i in range(len(blocks))]
    for i, block in enumerate(blocks):
        if any(isinstance(module, torch.jit.ScriptModule) for module in block.modules()):
            raise ValueError(f"{called[i]} is, or has, a TorchScript module, whose weights cannot be tied")
        found.append(shapes := _shapes(block, only))
        first = found[kinds[i]]
        if not shapes:
            raise ValueError(f"{called[i]} ({type(block).__name__}) has no {_WHAT[only]} to tie")
        for name in [*first, *shapes]:
            if first.get(name) != shapes.get(name):
                here, there = first.get(name, "missing"), shapes.get(name, "missing")
                raise ValueError(
                    f"{'units of a kind' if names else 'blocks'} must have parameters of the same names, shapes and "
                    f"dtypes: {name!r} is {here} in {called[kinds[i]]} and {there} in {called[i]}"
                )
    tied = [slots(block, only) for block in blocks]
    _check_plain(tied)
    _check_apart(tied)
    check_reached(tied, blocks if within is None else within)


def _check_apart(tied: list[dict[str, Slot]]) -> None:
    """Check that no two blocks share memory, and within a block none but by sharing a Parameter."""
    seen: dict[int | None, tuple[int, str, nn.Parameter]] = {}
    for i, places in enumerate(tied):
        for name, slot in places.items():
            parameter = get(slot)
            j, other_name, other = seen.setdefault(storage_of(parameter), (i, name, parameter))
            if i != j:
                raise ValueError(f"blocks must not share Parameters yet: blocks {j} and {i} share {name!r}")
            if other is not parameter and other.data_ptr() == parameter.data_ptr() and not parameter.is_meta:
                raise ValueError(
                    f"{other_name!r} and {name!r} of block {i} are two Parameters on the same memory, which would part "
                    "at a tying: let both be one Parameter"
                )


def _check_plain(tied: list[dict[str, Slot]]) -> None:
    """Check that a new Parameter can take the place of each."""
    for i, places in enumerate(tied):
        for name, slot in places.items():
            parameter: Any = get(slot)
            # A FakeTensor has shapes alone: torch's way of counting memory without having it.
            if type(parameter) not in (nn.Parameter, FakeTensor) or parameter.layout is not torch.strided:
                what = f"a {type(parameter).__name__}, {parameter.layout}"
                raise ValueError(f"{name!r} of block {i} must be an ordinary dense nn.Parameter to be tied, got {what}")
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                raise ValueError(
                    f"{name!r} of block {i} has a hook of its own, which a new Parameter in its place would not have: "
                    "put it on the module"
                )


def check_reached(tied: list[dict[str, Slot]], within: object) -> None:
    """Check that nothing would compute with a Parameter that a tying has replaced.

    Raises:
        ValueError: something in `within` holds one beside the places `tied`; the message says where.
    """
    known = {(id(module), attribute) for places in tied for module, attribute in places.values()}
    names = {(i, name): get(slot) for i, places in enumerate(tied) for name, slot in places.items()}
    wanted = Memory((f"{name!r} of block {i}", p) for (i, name), p in names.items())
    if not any(find(within, wanted, known)):
        return
    # Some modules, such as torch's LSTM, keep a list of their own that follows. So try.
    try:
        for places in tied:
            put(places, {name: nn.Parameter(torch.empty_like(get(slot))) for name, slot in places.items()})
        left = next(find(within, wanted, known), None)
    finally:
        for i, places in enumerate(tied):
            put(places, {name: names[i, name] for name in places})
    if left is not None:
        path, name = left
        raise ValueError(
            f"{name} is held at {path!r} as well, which would compute with the old one after a tying: look it up in "
            "its block each time instead"
        )


def _shapes(block: nn.Module, only: TiedParameters) -> dict[str, str]:
    return {name: f"{tuple(get(slot).shape)} {get(slot).dtype}" for name, slot in slots(block, only).items()}
