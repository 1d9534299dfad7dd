"""The feed-forward part of GPT-2's blocks on CPUs: two products with a GELU between them, as one function.

torch's GELU by tanh takes four times as long as its tanh, in the forward pass and again in the backward pass. Here the
slope is computed with the value, both in passes over pieces that stay in the cache, to which the bias is added as well;
the backward pass only multiplies by it. As much is kept for it as torch keeps.

What it gains is in docs/performance.md.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUTanh
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from tying_env.primary.kernels.dropout import can_be_ours
from tying_env.primary.kernels.first_order import needed_once
from tying_env.primary.kernels.for_transformers import OneDNNConv1D
from tying_env.primary.kernels.products import faster, product

# GELU(x) = x s, where s = (1 + tanh(u)) / 2 and u = a x + b x^3 (Hendrycks and Gimpel, 2016, arXiv 1606.08415).
_A = math.sqrt(2 / math.pi)
_B = 0.044715 * _A
# Numbers between the two products below which torch's own are taken. So networks as small as the tying table's, which
# would gain least, are trained to the same bits as when the table was made.
_SMALLEST = 2**17
_PIECE = 2**16  # numbers that stay in the cache


def use_fast_feed_forward(model: nn.Module) -> None:
    """Let the feed-forward parts of GPT-2's blocks compute as one function; their Parameters stay where they are."""
    for module in model.modules():
        if type(module) is GPT2MLP and _is_gelu_by_tanh(module.act):
            module.__class__ = _FastFeedForward


class _FastFeedForward(GPT2MLP):  # type: ignore[misc]
    def forward(self, hidden_states: Tensor) -> Tensor:
        """Compute (..., D) to (..., D)."""
        rows = hidden_states.shape[:-1]
        into, back = self.c_fc, self.c_proj
        # First whether it is compiled: the compiler does not see through the other questions.
        if not (
            can_be_ours(hidden_states)
            and _is_plain(self)
            and rows.numel() * into.nf >= _SMALLEST
            and _is_exact(hidden_states, into, back)
        ):
            result: Tensor = super().forward(hidden_states)
            return result
        flat: Tensor = _FeedForward.apply(  # type: ignore[no-untyped-call]
            hidden_states.reshape(-1, hidden_states.shape[-1]), into.weight, into.bias, back.weight, back.bias
        )
        dropped: Tensor = self.dropout(flat.view(*rows, back.nf))
        return dropped


def _is_gelu_by_tanh(activation: Any) -> bool:
    function = getattr(activation, "act", None)
    return (
        type(activation) is GELUTanh
        and isinstance(function, functools.partial)
        and function.func is nn.functional.gelu
        and function.keywords == {"approximate": "tanh"}
    )


def _is_plain(module: GPT2MLP) -> bool:
    """Tell whether nothing of its parts is replaced or looked at from outside."""
    parts = (module.c_fc, module.act, module.c_proj)
    return (
        all(type(part) in (Conv1D, OneDNNConv1D) for part in (module.c_fc, module.c_proj))
        and _is_gelu_by_tanh(module.act)
        and not any("forward" in part.__dict__ or _has_hooks(part) for part in parts)
        and not nn.modules.module._has_any_global_hook()
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _is_exact(x: Tensor, *layers: Conv1D) -> bool:
    """Tell whether it is a training step in one precision, 32 bits or 64."""
    weights = [weight for layer in layers for weight in (layer.weight, layer.bias)]
    return (
        needed_once()
        and torch.is_grad_enabled()
        and x.dtype in (torch.float32, torch.float64)
        and all(weight.dtype == x.dtype for weight in weights)
        and not torch.is_autocast_enabled("cpu")
    )


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
        x_learns, w_in_learns, b_in_learns, w_out_learns, _ = ctx.needs_input_grad
        through = x_learns or w_in_learns or b_in_learns
        active, slope = _gelu(_product(x, w_in), b_in)
        # Only what the backward pass reads: a frozen layer does not keep its inputs.
        ctx.save_for_backward(
            x if w_in_learns else None,
            w_in if x_learns else None,
            active if w_out_learns else None,
            w_out if through else None,
            slope if through else None,
        )
        return _product(active, w_out).add_(b_out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, active, w_out, slope = ctx.saved_tensors
        grad = grad.contiguous()
        inner = None if slope is None else _product(grad, w_out.T).mul_(slope)
        return (
            None if w_in is None or inner is None else _product(inner, w_in.T),
            None if x is None or inner is None else _product(x.T, inner),
            inner.sum(0) if inner is not None and ctx.needs_input_grad[2] else None,
            None if active is None else _product(active.T, grad),
            grad.sum(0) if ctx.needs_input_grad[4] else None,
        )


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, by oneDNN where that is faster."""
    return product(left, right.T) if faster(left, right, right.shape[1]) else torch.mm(left, right)


def _gelu(hidden: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the GELU of hidden + bias and its slope, (N, F) each; the slope is in the memory of `hidden`."""
    active = torch.empty_like(hidden)
    rows = max(1, _PIECE // hidden.shape[1])
    buffer = hidden.new_empty(min(rows, len(hidden)), hidden.shape[1])
    a = hidden.new_tensor(_A)
    for x, y in zip(hidden.split(rows), active.split(rows), strict=True):
        x.add_(bias)
        s = torch.addcmul(a, x, x, value=_B, out=buffer[: len(x)])
        s.mul_(x).tanh_().add_(1).mul_(0.5)
        torch.mul(x, s, out=y)
        # The slope is s + x s', and x s' = y (1 - s) 2 u'.
        torch.addcmul(2 * a, x, x, value=6 * _B, out=x)
        x.mul_(y)
        x.addcmul_(x, s, value=-1).add_(s)
    return active, hidden
