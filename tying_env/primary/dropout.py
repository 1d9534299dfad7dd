"""Dropout on CPUs: the same thing as torch's in a fraction of the time, and half of the memory.

torch draws its masks by way of MKL, which is slow at it on other makers' processors, and keeps them as floats for the
backward pass. Here 16 random bits decide on a value, drawn 64 at a time from torch's own generator, and they are what
is kept. On a GPU, and in compiled code, torch's own dropout is used.

What it gains is in docs/performance.md.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# What the attention below is called in the configuration of a transformers model.
ATTENTION = "sdpa_with_fast_dropout"

_STEPS = 2**16
_NOT_OURS = ("is_causal", "position_bias", "softcap", "cache")  # of what transformers may ask of an attention


def use_fast_dropout(model: nn.Module) -> None:
    """Let the dropout layers of a model, those that are plain `nn.Dropout`, draw their masks by `drop`."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = _FastDropout


def drop(x: Tensor, probability: float) -> Tensor:
    """Set values to 0 at random and scale the others so that the mean stays: dropout (Srivastava et al., 2014).

    Args:
        x: any shape, on the CPU.
        probability: that of a 0, in [0, 1); rounded to a multiple of 2^-16, and the others are scaled to match.
    """
    dropped: Tensor = _Drop.apply(x, random_numbers(x.shape, None), probability)  # type: ignore[no-untyped-call]
    return dropped


def random_numbers(shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """Return random numbers of 16 bits, int16.

    Args:
        shape: of the result.
        generator: the random stream, on the CPU; None is torch's global one.
    """
    words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[: shape.numel()].view(shape)


@torch.no_grad()
def factors(numbers: Tensor, probability: float, dtype: torch.dtype) -> Tensor:
    """Return what values are multiplied by: 0 where the random numbers say so, elsewhere what keeps the mean.

    Args:
        numbers: of `random_numbers`.
        probability: that of a 0, in [0, 1).
        dtype: of the result, which is shaped as the numbers.
    """
    dropped = min(round(probability * _STEPS), _STEPS - 1)
    # A comparison that writes floats at once: four times as fast as bytes made floats.
    kept = torch.ge(numbers, dropped - _STEPS // 2, out=torch.empty(numbers.shape, dtype=dtype))
    return kept.mul_(_STEPS / (_STEPS - dropped))


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, numbers: Tensor, probability: float) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.probability = probability
        return factors(numbers, probability, x.dtype).mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (numbers,) = ctx.saved_tensors
        return grad * factors(numbers, ctx.probability, grad.dtype), None, None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute what transformers' `sdpa_attention_forward` computes, with the dropout of this module where it can be.

    Args:
        module: the attention module, whose `is_causal` says whether position t sees those after it.
        query: (B, h, T, D/h).
        key: (B, h, T, D/h).
        value: (B, h, T, D/h).
        attention_mask: who sees whom; None for all, or with `is_causal` all before.
        dropout: probability of dropping a weight.
        scaling: of the scores; 1/sqrt(D/h) by default.
        kwargs: what else transformers passes.

    Returns:
        The output (B, T, h, D/h), and no weights.
    """
    plain = attention_mask is None and query.shape == key.shape and all(kwargs.get(name) is None for name in _NOT_OURS)
    # torch computes the softmax of 16-bit numbers in 32 bits.
    exact = query.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    if not (dropout and plain and exact and _can_be_ours(query)):
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    b, h, t, d = query.shape
    mask = query.new_full((t, t), -torch.inf).triu(1) if getattr(module, "is_causal", True) else query.new_zeros(())
    q, k, v = (part.reshape(b * h, t, d) for part in (query, key, value))
    scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=d**-0.5 if scaling is None else scaling)  # (B h, T, T)
    out = torch.bmm(drop(torch.softmax(scores, -1), dropout), v)
    return out.view(b, h, t, d).transpose(1, 2).contiguous(), None


def _can_be_ours(x: Tensor) -> bool:
    return x.device.type == "cpu" and not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


class _FastDropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        """Return the input with values dropped in training."""
        ours = self.training and 0 < self.p < 1 and _can_be_ours(input)
        return drop(input, self.p) if ours else super().forward(input)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
