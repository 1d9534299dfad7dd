"""Relaxed recursion: a tied layer is its leader plus a low-rank delta of its own (Bae et al., 2025, arXiv 2410.20672).

Every matrix W of every block becomes W + B A, with B A of low rank. W is tied as the controller says; A and B are each
layer's own, whatever it is tied to, and train throughout, also at the frozen start. B begins at 0, so that the network
begins as it would without.
"""

from typing import Any

from torch import nn

from tying_env.slots import keep_own


def add_deltas(model: nn.Module, block_names: list[str], rank: int) -> None:
    """Give every matrix in the blocks a delta, drawn from torch's global generator.

    Raises:
        ImportError: the package peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("low-rank deltas need the package `peft` (pip install 'tying-env[finetune]')") from error
    from peft.tuners.lora import LoraLayer
    from transformers.pytorch_utils import Conv1D

    matrices = [
        f"{block_name}.{name}"
        for block_name in block_names
        for name, module in model.get_submodule(block_name).named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]
    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in matrices)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=matrices, fan_in_fan_out=transposed)
    inject_adapter_in_model(config, model)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            keep_own(layer.lora_A)
            keep_own(layer.lora_B)
    model.requires_grad_(True)  # peft would train the deltas alone


def has_deltas(model: nn.Module) -> bool:
    """Tell whether a network has deltas."""
    return any("lora_" in name for name, _ in model.named_parameters())


def merge_deltas(model: nn.Module) -> None:
    """Add the deltas to the matrices, each of which must have storage of its own, and take them away."""
    if not has_deltas(model):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            layer: Any = module
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer.get_base_layer())
