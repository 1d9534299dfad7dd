"""Makes primary networks: with random weights, or without memory for weights that come from elsewhere."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from tying_env.config import EnvConfig
from tying_env.config.network import DECODER
from tying_env.own_forward import OwnForward
from tying_env.primary.blocks import find_blocks
from tying_env.primary.decoders import architecture_settings, check_architecture
from tying_env.primary.kernels.dropout import use_fast_dropout
from tying_env.primary.kernels.feed_forward import use_fast_feed_forward
from tying_env.primary.kernels.products import use_onednn
from tying_env.primary.models import PrimaryNetwork, Sizes, build_model
from tying_env.redrawing import InitialisationRecorder
from tying_env.seeding import torch_randomness_from

# What `sizes` may hold beside whole numbers.
_NO_NUMBERS = ("architecture", "tokenizer", "class_names", "input_mean", "input_deviation")
# What weights are made of; integers, which the model keeps as constants, are made for real.
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_DRAWERS = (
    "normal_",
    "uniform_",
)  # by name: while it builds, transformers puts its own in the place of torch.nn.init's


def build_network(config: EnvConfig, sizes: Sizes, device: torch.device, generator: torch.Generator) -> PrimaryNetwork:
    """Return the network that `config` describes, with random weights.

    Where frozen weights are not to be held, block 0 and what lies outside the blocks has values, and the other blocks
    have `recipes` for theirs: there is never more than one tensor in memory beside what is held in the end.

    Args:
        config: architecture, sizes, dropout, dtype, and how the blocks are computed.
        sizes: what the network has to know of its data.
        device: where the network goes.
        generator: draws the weights; on the CPU, so that every device starts from the same ones.

    Raises:
        ValueError: `config` describes none of the networks that can be built.
    """
    with torch_randomness_from(generator):
        if config.frozen_weights == "redrawn":
            network = _released_network(config, sizes, device)
        else:
            model = build_model(config, sizes)
            network = PrimaryNetwork(model, find_blocks(model), divided=config.units)
            cast(model, getattr(torch, config.dtype)).to(device=device)
    use_fast_dropout(network.model)  # of our own networks alone: what a user's module does with its dropout is unknown
    return prepared(network, config)


def prepared(network: PrimaryNetwork, config: EnvConfig) -> PrimaryNetwork:
    """Have a network's blocks computed as the settings ask for."""
    use_onednn(network.model)
    use_fast_feed_forward(network.model)
    if config.checkpoint_blocks:
        for block in network.blocks:
            block.forward = Checkpointed(block)
    if config.compile_blocks:
        for block in network.blocks:
            block.compile()
    return network


class Checkpointed(OwnForward):
    """The forward pass of a block that keeps its inputs for the backward pass, and computes all else again there."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the block computes."""
        if not torch.is_grad_enabled():
            return self.compute(*args, **kwargs)
        return checkpoint(self.compute, *args, use_reentrant=False, **kwargs)


class _WithoutMemory(TorchFunctionMode):
    """Puts all floating-point tensors that are made on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in _MAKERS and (named.get("dtype") is None or named["dtype"].is_floating_point):
            named = named | {"device": "meta"}
        return func(*args, **named)


class _WithoutValues(_WithoutMemory):
    """Draws nothing either for what is on the meta device, two thirds of the time that a skeleton takes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _DRAWERS:
            drawn = args[0] if args else (kwargs or {})["tensor"]
            if drawn.is_meta:
                return drawn
        return super().__torch_function__(func, types, args, kwargs)


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Bring the weights and buffers of a transformers model into a type, as `from_pretrained` does, and return it.

    Constants stay as they are: the frequencies of rotary embeddings would lose positions in 16 bits.
    """
    state = set(model.state_dict())
    constants = [
        (module, name, buffer)
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if (f"{path}.{name}" if path else name) not in state
    ]
    model.to(dtype=dtype)
    for module, name, buffer in constants:
        setattr(module, name, buffer)
    return model


def build_skeleton(config: EnvConfig, sizes: Sizes) -> PrimaryNetwork:
    """Return the network that `config` describes, whose Parameters have shapes but no values.

    So what a file or a state must hold is known before any memory is taken for it.

    Raises:
        ValueError: `sizes` are not whole numbers above 0, or there is no such network.
        KeyError, RuntimeError, TypeError: one is missing, or the shapes are beyond any memory.
    """
    for name, value in sizes.items():
        if name not in _NO_NUMBERS and (type(value) is not int or value < 1):
            raise ValueError(f"its {name} must be a whole number above 0, got {value!r}")
    if config.model == DECODER:
        check_architecture(sizes["architecture"], "its architecture")
        for name, value in architecture_settings(sizes["architecture"], "its architecture").items():
            if getattr(config, name) != value:
                raise ValueError(f"its architecture has {name}={value}, its settings {getattr(config, name)}")
    with _WithoutValues():
        model = build_model(config, sizes)
    if any(buffer.is_meta for name, buffer in model.named_buffers() if name not in model.state_dict()):
        model = build_model(config, sizes)  # constants that are lost: no file has them
    cast(model, getattr(torch, config.dtype))
    use_onednn(model)
    use_fast_feed_forward(model)
    use_fast_dropout(model)
    return PrimaryNetwork(model, find_blocks(model), divided=config.units)


def fill(network: PrimaryNetwork, values: Mapping[str, Tensor], device: torch.device) -> None:
    """Give a skeleton weights and buffers, by name; Parameters that share a storage share one afterwards.

    Parameters that no value is for stay as they are.
    """
    given = {
        parameter.untyped_storage()._cdata: values[name].to(device)
        for name, parameter in network.model.named_parameters()
        if name in values
    }
    made: dict[int, nn.Parameter] = {}
    for path, module in network.model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            value = given.get(parameter.untyped_storage()._cdata)
            if id(parameter) not in made:
                made[id(parameter)] = (
                    parameter if value is None else nn.Parameter(value, requires_grad=parameter.requires_grad)
                )
            setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, values.get(f"{path}.{name}" if path else name, buffer).to(device))


def _released_network(config: EnvConfig, sizes: Sizes, device: torch.device) -> PrimaryNetwork:
    """Return the network with values where it trains from the start, and recipes for the other blocks."""
    with _WithoutMemory(), InitialisationRecorder() as recorder:
        model = build_model(config, sizes)
    recipes = recorder.recipes(dict(model.named_parameters()))
    dtype = getattr(torch, config.dtype)
    cast(model, dtype)
    of = {p: recipes[name] for name, p in model.named_parameters()}
    network = PrimaryNetwork(model, find_blocks(model), of, divided=config.units)
    frozen = tuple(f"{name}." for name in network.block_names[1:])
    fill(network, {n: recipe.draw().to(dtype) for n, recipe in recipes.items() if not n.startswith(frozen)}, device)
    return dataclasses.replace(network, recipes={p: r for p, r in network.recipes.items() if p.is_meta})
