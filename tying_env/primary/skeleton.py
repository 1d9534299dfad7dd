"""Networks without their weights: what a file or a state must hold is known before any memory is taken for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tying_env.config import EnvConfig
from tying_env.primary.blocks import find_blocks
from tying_env.primary.models import PrimaryNetwork, Sizes, build_model
from tying_env.primary.owned import persistent_buffers
from tying_env.primary.products import use_onednn
from tying_env.slots import slots

Shape = tuple[int, ...]

# What weights are made of; integers, which the model keeps as constants, are made for real.
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class _WithoutMemory(TorchFunctionMode):
    """Puts all floating-point tensors that are made on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in _MAKERS and (named.get("dtype") is None or named["dtype"].is_floating_point):
            named = named | {"device": "meta"}
        return func(*args, **named)


def build_skeleton(config: EnvConfig, sizes: Sizes) -> PrimaryNetwork:
    """Return the network that `config` describes, whose Parameters have shapes but no values.

    Raises:
        ValueError: `sizes` are not whole numbers above 0, or there is no such network.
        KeyError, RuntimeError, TypeError: one is missing, or the shapes are beyond any memory.
    """
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"its {name} must be a whole number above 0, got {value!r}")
    with _WithoutMemory():
        model = build_model(config, sizes)
    model.to(dtype=getattr(torch, config.dtype))
    use_onednn(model)
    return PrimaryNetwork(model, find_blocks(model))


def check_owned(network: PrimaryNetwork, sources: Sequence[int], found: Mapping[str, Shape]) -> None:
    """Check that these are the names and shapes of exactly the weights and buffers that a tied network holds.

    Args:
        network: the network, or its skeleton.
        sources: for each layer the lowest one on whose storage it computes, (L,).
        found: shapes by name.

    Raises:
        ValueError: one is missing, unexpected or of another shape; the message names it.
    """
    owners = set(sources)
    borrowed = {
        f"{layer_name}.{name}"
        for i, (layer_name, block) in enumerate(zip(network.block_names, network.blocks, strict=True))
        if i not in owners
        for name in slots(block)
    }
    kept = {**dict(network.model.named_parameters()), **persistent_buffers(network.model)}
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items() if name not in borrowed}
    for name in [*shapes, *found]:
        if name not in found:
            raise ValueError(f"its settings ask for {name!r} of shape {shapes[name]}, it lacks the tensor")
        if name not in shapes:
            raise ValueError(f"it has an unexpected tensor {name!r}")
        if found[name] != shapes[name]:
            raise ValueError(f"its settings ask for {name!r} of shape {shapes[name]}, the tensor has {found[name]}")


def fill(network: PrimaryNetwork, values: Mapping[str, Tensor], device: torch.device) -> None:
    """Give a tied skeleton its weights and buffers; Parameters that share a storage go on sharing one."""
    given = {
        parameter.untyped_storage()._cdata: values[name].to(device)
        for name, parameter in network.model.named_parameters()
        if name in values
    }
    made: dict[int, nn.Parameter] = {}
    for module in network.model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) not in made:
                value = given[parameter.untyped_storage()._cdata]
                made[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
    for name in persistent_buffers(network.model):
        place, _, attribute = name.rpartition(".")
        setattr(network.model.get_submodule(place), attribute, values[name])
    network.model.to(device)  # buffers and constants
