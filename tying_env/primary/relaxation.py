"""Relaxed recursion: a tied layer is its leader plus a low-rank delta of its own (Bae et al., 2025, arXiv 2410.20672).

Every matrix W of every block becomes W + B A, with B A of low rank. W is tied as the controller says; A and B are each
layer's own, whatever it is tied to, and train throughout, also at the frozen start. B begins at 0, so that the network
begins as it would without.

A tying takes from a layer what its own weights had beyond the shared ones. The best delta of rank r for that is the
truncated singular value decomposition of the difference (Bae et al., Sec. 2.3), which `change_fitted` finds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from tying_env import partition
from tying_env.slots import Weights, keep_own
from tying_env.tied_blocks import TiedBlocks

# How peft names the weight that a delta is added to, behind the path of the matrix.
_BASE = ".base_layer.weight"


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


@dataclass(frozen=True)
class _Fitted:
    """New values (r, inputs) and (outputs, r) for the Parameters A and B of a delta."""

    targets: tuple[nn.Parameter, nn.Parameter]
    values: tuple[Tensor, Tensor]


@torch.no_grad()
def change_fitted(
    tied: TiedBlocks, tying: npt.ArrayLike, optimizer: torch.optim.Optimizer | None = None
) -> partition.TyingEvents:
    """Put a tying in force as `TiedBlocks.change` does, and have deltas take up what layers lose by it.

    The delta of a matrix becomes the truncated singular value decomposition of W + B A - W', W before and W' after the
    change: B = U S and A = V^T, of its r largest singular values. A matrix whose values stay keeps its delta; so does
    one with numbers that are not finite, whose training is over.

    Args:
        tied: blocks with deltas.
        tying: shape (L,).
        optimizer: holds the deltas, too; its state of those that change begins anew.

    Raises:
        TypeError, ValueError: as `TiedBlocks.change`; nothing is changed.
    """
    fitted: list[_Fitted] = []
    events = tied.change(tying, optimizer, lambda before, after: fitted.extend(_fit(tied.blocks, before, after)))
    for delta in fitted:
        for parameter, values in zip(delta.targets, delta.values, strict=True):
            parameter.copy_(values)
            if optimizer is not None:
                optimizer.state.pop(parameter, None)
    return events


def _fit(units: Sequence[nn.Module], before: Sequence[Weights], after: Sequence[Weights]) -> Iterator[_Fitted]:
    """Yield the deltas that change when units that computed with `before` compute with `after`, L each."""
    for unit, old, new in zip(units, before, after, strict=True):
        for name in old:
            if not name.endswith(_BASE) or torch.equal(old[name], new[name]):
                continue
            layer: Any = unit.get_submodule(name.removesuffix(_BASE))
            (adapter,) = layer.lora_A
            a, b = targets = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            precise = torch.promote_types(a.dtype, torch.float32)  # nothing is decomposed in 16 bits
            difference = old[name].to(precise) - new[name].to(precise)
            if layer.fan_in_fan_out:  # GPT-2 stores its matrices as (inputs, outputs)
                difference = difference.T
            lost = difference + b.to(precise) @ a.to(precise)  # (outputs, inputs)
            if lost.isfinite().all():
                yield _Fitted(targets, _truncated(lost, a.to(precise)))


def _truncated(matrix: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return A and B of the best approximation of a matrix (outputs, inputs) by B A of the rank of A (r, inputs)."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    r = min(len(a), len(s))
    b = matrix.new_zeros(len(matrix), len(a))
    b[:, :r] = u[:, :r] * s[:r]
    # Beyond the rank that a matrix can have A stays: where it was 0 as well, neither would ever train.
    return torch.cat([vt[:r], a[r:]]), b
