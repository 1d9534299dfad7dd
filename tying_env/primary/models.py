"""Builds primary networks from transformers' configurations and finds their blocks."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tying_env.config import EnvConfig
from tying_env.redrawing import InitialisationRecorder, Recipe
from tying_env.seeding import torch_randomness_from


@dataclass(frozen=True)
class PrimaryNetwork:
    """A network and the blocks in it that can be tied.

    Attributes:
        model: the whole network.
        blocks_path: where the list of blocks hangs in `model`, in dots.
        recipes: how to draw the initial values of the blocks' Parameters again, if they are not to be held.
    """

    model: nn.Module
    blocks_path: str
    recipes: Mapping[nn.Parameter, Recipe] = field(default_factory=dict)

    @property
    def blocks(self) -> list[nn.Module]:
        """The L blocks in the order in which they are computed."""
        blocks = self.model.get_submodule(self.blocks_path)
        assert isinstance(blocks, nn.ModuleList)
        return list(blocks)


def build_network(
    config: EnvConfig, vocab_size: int, device: torch.device, generator: torch.Generator
) -> PrimaryNetwork:
    """Return the GPT-2 that `config` describes, with random weights.

    Args:
        config: sizes, dropout, dtype, and whether the blocks are compiled.
        vocab_size: V, the rows of the embedding, which is the head as well.
        device: where the network goes.
        generator: draws the weights; on the CPU, so that every device starts from the same ones.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    architecture = GPT2Config(
        vocab_size=vocab_size,
        n_positions=config.seq_len,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation_function="gelu_pytorch_tanh",  # the function of GPT-2's "gelu_new", fused: 8 % faster
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    recorder = InitialisationRecorder() if config.frozen_weights == "redrawn" else None
    with torch_randomness_from(generator), recorder or contextlib.nullcontext():
        model = GPT2LMHeadModel(architecture)
    recipes = {} if recorder is None else _recipes(recorder, model.get_submodule("transformer.h"))
    model = model.to(device=device, dtype=getattr(torch, config.dtype))
    network = PrimaryNetwork(model, "transformer.h", recipes)
    if config.checkpoint_blocks:
        for block in network.blocks:
            checkpoint_activations(block)
    if config.compile_blocks:
        for block in network.blocks:
            block.compile()
    return network


def _recipes(recorder: InitialisationRecorder, blocks: nn.Module) -> dict[nn.Parameter, Recipe]:
    recipes = recorder.recipes(blocks.parameters())
    if missing := [name for name, parameter in blocks.named_parameters() if parameter not in recipes]:
        raise ValueError(
            "frozen_weights must be 'held' for this network, got 'redrawn': "
            f"the initial values of the blocks' {missing[0]!r} cannot be drawn again bit for bit"
        )
    return recipes


def checkpoint_activations(block: nn.Module) -> None:
    """Let a block keep only its inputs for the backward pass, and compute the rest once more there."""
    compute = block.forward

    @functools.wraps(compute)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return compute(*args, **kwargs)
        return checkpoint(compute, *args, use_reentrant=False, **kwargs)

    block.forward = forward


def find_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is the GPU where there is one, else the CPU.

    Raises:
        ValueError: no such device; the message says what there is.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"device {name!r} is not there: this machine has {count} CUDA devices; use 'cpu' or 'auto'")
    return device
