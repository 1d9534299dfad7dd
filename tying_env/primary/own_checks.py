"""What a network of the user's own must be, so that its blocks can be tied and trained."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from tying_env.data.batches import Batch, parts_of
from tying_env.primary.models import PrimaryNetwork
from tying_env.references import original_in

# Marks Parameters of a network that was made.
_TAKEN = "_of_a_network_that_was_made"


def check_trainable(model: nn.Module) -> None:
    """Refuse by name what cannot be trained here.

    Raises:
        ValueError: a module is TorchScript's, a parameter has no shape yet, a tensor is complex, or an embedding has
            sparse gradients.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{path or type(model).__name__!r} is a TorchScript module (torch.jit.script or trace), whose weights "
                "are fixed in its compiled code and cannot be tied: give the module that it was made of"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_complex():
            raise ValueError(
                f"{name!r} is complex ({tensor.dtype}), and would lose its imaginary part, for a network is brought "
                "into the real type of the setting dtype. Hold it as torch.view_as_real(...), and view it in forward"
            )
    for path, module in model.named_modules():
        if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False)):
            raise ValueError(
                f"{path!r} is a {type(module).__name__}, whose parameters have no shape before it has seen a batch: "
                "run one through the network first, or use a module with sizes"
            )
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            raise ValueError(
                f"{path!r} is an {type(module).__name__} with sparse=True, and sparse gradients have no norm to be "
                "clipped: make it with sparse=False"
            )


def check_own(network: PrimaryNetwork) -> None:
    """Check that every unit trains, and that no weight is that of a network that was made before; mark its weights.

    Raises:
        ValueError: a unit is frozen, or a weight is not new.
    """
    held = [(name, list(unit.parameters())) for name, unit in zip(network.unit_names, network.units, strict=True)]
    if frozen := [name for name, found in held if found and not any(p.requires_grad for p in found)]:
        raise ValueError(
            f"the block {frozen[0]!r} is frozen, none of its parameters takes a gradient, and what is tied has to "
            "train: call requires_grad_(True) on it, or leave it out of the list of blocks"
        )
    trained = {name: p for name, p in network.model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if getattr(parameter, _TAKEN, False):
            raise ValueError(
                f"a function that makes a network must make a new one each time, and {name!r} of "
                f"{type(network.model).__name__} is that of a network it made before: every episode would begin with "
                "what the last one trained"
            )
    for parameter in trained.values():
        setattr(parameter, _TAKEN, True)  # copies do not have it


def check_copy(network: PrimaryNetwork) -> None:
    """Check that a copy of a network stands on its own.

    Raises:
        ValueError: something in it leads to the original.
    """
    if network.original is not None and (place := original_in(network.model, network.original)) is not None:
        raise ValueError(
            f"every episode trains a copy of model, and {place.path!r} of the copy is still the original's: functions "
            "are not copied with what they refer to. Give a function that makes the network, model=make_network"
        )


def check_arrays(name: str, batch: Batch) -> None:
    """Check that a network can be given what a batch of the user's own is made of.

    Args:
        name: of the batch, for messages.
        batch: arrays and tensors in any of the forms of a batch.

    Raises:
        TypeError: a part is neither a NumPy array of numbers nor a dense tensor; the message names it.
    """
    if (parts := parts_of(batch)) is not None:
        for key, part in parts.items():
            check_arrays(f"{name}[{key!r}]", part)
    elif batch is not None and (why := _why_not(batch)):
        raise TypeError(f"{name} must be an array of numbers, or a dense tensor, got {why}")


def _why_not(array: Any) -> str:
    """Return what is wrong with a part of a batch; empty if nothing is."""
    if isinstance(array, np.ma.MaskedArray):
        return "a masked array, whose mask training would not see: fill it, and give the mask as an array of its own"
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biufc" or array.dtype in (np.longdouble, np.clongdouble):
            return f"numbers of the type {array.dtype}"
        return (
            "" if array.dtype.isnative else f"{array.dtype.str}, bytes in another order: array.astype(float) turns them"
        )
    if not isinstance(array, torch.Tensor):
        return type(array).__name__
    if array.layout != torch.strided:
        return f"a tensor of the layout {array.layout}"
    return "a tensor that wants a gradient: give it detached" if array.requires_grad else ""
