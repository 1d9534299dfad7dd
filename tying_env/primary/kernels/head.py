"""Cross-entropy of a linear head, without holding the logits of more than a few rows.

At GPT-2's vocabulary the logits of a batch are by far its largest tensor, and half of a small model's step is spent
on passes over them. Here they live in one buffer of `chunk_rows` rows: the logits of a chunk become log-probabilities
and then probabilities in place, and both gradients are taken from them at once, in the forward pass. It computes

    F.cross_entropy(F.linear(hidden, weight), targets)

and is held against that expression in the tests. What it gains is in docs/performance.md.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tying_env.primary.kernels.products import faster, product

# On a CPU a chunk should stay near the caches, on a GPU it should fill the chip.
CHUNK_ROWS = {"cpu": 256, "cuda": 2048}
# oneDNN returns new memory. Pieces of this many words (8 MB at a width of 256) come from memory that was there before;
# all the words at once would be mapped, and cleared by the kernel, each time.
_WORDS = 8192


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int | None = None) -> Tensor:
    """Return the mean cross-entropy in nats, a scalar (float32, or float64 for float64 inputs).

    Under autocast the products are computed in its type, and gradients come in the types of the arguments.

    Args:
        hidden: (N, D).
        weight: (V, D), the head.
        targets: (N,), int64 in [0, V).
        chunk_rows: rows of logits held at once; the default suits the device.
    """
    rows = chunk_rows or CHUNK_ROWS.get(hidden.device.type, 256)
    learning = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, rows, learning)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int, learning: bool) -> Tensor:
        n, dtypes = len(hidden), (hidden.dtype, weight.dtype)
        precise = torch.float64 if weight.dtype == torch.float64 else torch.float32
        if torch.is_autocast_enabled(hidden.device.type):  # it does not reach products into memory that is there
            compute = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight = hidden.to(compute), weight.to(compute)
        in_place = weight.dtype == precise
        total = torch.zeros((), dtype=precise, device=hidden.device)
        wants_hidden, wants_weight = (learning and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=precise) if wants_weight else None
        buffer = hidden.new_empty(min(chunk_rows, n), len(weight))  # (C, V)

        for start in range(0, n, chunk_rows):
            h, t = hidden[start : start + chunk_rows], targets[start : start + chunk_rows, None]  # (C, D), (C, 1)
            scores = _multiply(h, weight, buffer[: len(h)])  # (C, V)
            scores = torch.log_softmax(scores, -1, out=scores) if in_place else torch.log_softmax(scores.float(), -1)
            total -= scores.gather(1, t).sum()
            if not learning:
                continue
            # d(sum of losses)/d(logits) = probabilities - one_hot(targets)
            scores.exp_().scatter_add_(1, t, scores.new_full(t.shape, -1.0))
            if not in_place:
                scores = scores.to(weight.dtype)
            if grad_hidden is not None:
                _multiply(scores, weight.T, grad_hidden[start : start + chunk_rows]).mul_(1 / n)
            if grad_weight is not None:
                if in_place:
                    _add_product(grad_weight, scores.T, h.T, 1 / n)
                else:  # a sum over chunks in 16 bits would lose what the chunks add
                    grad_weight.add_(scores.T @ h, alpha=1 / n)
        gradients = zip((grad_hidden, grad_weight), dtypes, strict=True)
        ctx.save_for_backward(*(None if gradient is None else gradient.to(dtype) for gradient, dtype in gradients))
        return total / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        gradients = ctx.saved_tensors
        # Reading one number would stall a GPU, where the multiplication costs nothing to speak of.
        if grad_output.device.type != "cpu" or grad_output.item() != 1.0:
            gradients = [None if g is None else g * grad_output.to(g.dtype) for g in gradients]
        return gradients[0], gradients[1], None, None, None


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write left @ right.T into `out`: (N, K) and (M, K) into (N, M)."""
    if not faster(left, right, len(right)):
        return torch.mm(left, right.T, out=out)
    for start in range(0, len(right), _WORDS):
        out[:, start : start + _WORDS] = product(left, right[start : start + _WORDS])
    return out


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Add scale * left @ right.T to `total`: (N, K) and (M, K) into (N, M)."""
    if not faster(left, right, len(right)):
        total.addmm_(left, right.T, alpha=scale)
        return
    for start in range(0, len(left), _WORDS):
        total[start : start + _WORDS].add_(product(left[start : start + _WORDS], right), alpha=scale)
