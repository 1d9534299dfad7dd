"""Dropout on CPUs: the same thing as torch's in a fraction of the time, and half of the memory.

torch draws its masks by way of MKL, which is slow at it on other makers' processors, and keeps them as floats for the
backward pass. Here 16 random bits decide on a value, drawn 64 at a time from torch's own generator, and they are what
is kept. On a GPU, and in compiled code, torch's own dropout is used.

What it gains is in docs/performance.md.
"""

from typing import Any

import torch
from torch import Tensor, nn

_STEPS = 2**16


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
    return kept(numbers, probability, dtype).mul_(scale_of(probability))


@torch.no_grad()
def kept(numbers: Tensor, probability: float, dtype: torch.dtype) -> Tensor:
    """Return 0 where the random numbers say that a value is dropped, and 1 elsewhere; arguments as of `factors`."""
    # A comparison that writes floats at once: four times as fast as bytes made floats.
    return torch.ge(numbers, _dropped(probability) - _STEPS // 2, out=torch.empty(numbers.shape, dtype=dtype))


def scale_of(probability: float) -> float:
    """Return what values that are kept are multiplied by, so that the mean stays."""
    return _STEPS / (_STEPS - _dropped(probability))


def _dropped(probability: float) -> int:
    """Return how many of `_STEPS` random numbers drop a value."""
    return min(round(probability * _STEPS), _STEPS - 1)


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


def can_be_ours(x: Tensor) -> bool:
    """Tell whether a value is on a CPU, and in code that is neither compiled nor transformed (`torch.func`)."""
    return x.device.type == "cpu" and not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


class _FastDropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        """Return the input with values dropped in training."""
        ours = self.training and 0 < self.p < 1 and can_be_ours(input)
        return drop(input, self.p) if ours else super().forward(input)
