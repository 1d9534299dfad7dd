"""Attention with dropout on CPUs, some rows at a time.

torch's fused attention has no dropout on a CPU: it computes all scores, their softmax, a mask of floats and the product
of both, each a pass over memory, and of a causal network half of them for nothing. Here the scores of a block of rows
end where its last row does, and what is kept for the backward pass are its probabilities and 16 random bits for each.

What it gains is in docs/performance.md.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tying_env.primary.kernels.dropout import kept, random_numbers, scale_of

# With fewer, products are too small to be fast; with more, too little is left out.
ROWS = 64


def attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, probability: float, causal: bool, scaling: float
) -> Tensor:
    """Return what `F.scaled_dot_product_attention` computes, as (B, T, h, d).

    Args:
        query: (B, h, T, d), on the CPU, float32 or float64; so are the other two.
        key: (B, h, T, d).
        value: (B, h, T, d).
        probability: that of dropping a weight, in [0, 1); rounded to a multiple of 2^-16.
        causal: whether position t sees those up to its own alone.
        scaling: of the scores.
    """
    out: Tensor = _Attention.apply(query, key, value, probability, causal, scaling)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """Matrices of all heads of all sequences are in a row: n = B h of them."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, probability: float, causal: bool, scaling: float
    ) -> Tensor:
        b, h, t, d = query.shape
        q, k, v = (_in_a_row(each, factor) for each, factor in ((query, scaling), (key, 1.0), (value, 1.0)))
        out = torch.empty_like(v)
        rows = min(ROWS, t)
        future = q.new_full((rows, rows), -torch.inf).triu(1)
        kept_for_later: list[Tensor] = []
        for start, end in blocks_of(t):
            seen = end if causal else t
            p = torch.bmm(q[:, start:end], k[:, :seen].transpose(1, 2))  # (n, rows, seen)
            if causal:
                p[:, :, start:].add_(future[: end - start, : end - start])
            torch.softmax(p, -1, out=p)
            numbers = random_numbers(p.shape, None)
            torch.bmm(kept(numbers, probability, p.dtype).mul_(p), v[:, :seen], out=out[:, start:end])
            kept_for_later += [p, numbers]
        ctx.save_for_backward(q, k, v, *kept_for_later)
        ctx.settings = probability, causal, scaling
        return out.mul_(scale_of(probability)).view(b, h, t, d).transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, *from_forward = ctx.saved_tensors
        probability, causal, scaling = ctx.settings
        b, t, h, d = grad.shape
        g = _in_a_row(grad.transpose(1, 2), scale_of(probability))
        gradients = q.new_empty(3, b * h, t, d)
        of_query, of_key, of_value = gradients
        for place, (start, end) in reversed(list(enumerate(blocks_of(t)))):
            seen, last = end if causal else t, end == t
            p, numbers = from_forward[2 * place : 2 * place + 2]
            mask = kept(numbers, probability, p.dtype)
            of_p = torch.bmm(g[:, start:end], v[:, :seen].transpose(1, 2)).mul_(mask)
            _add_product(of_value, mask.mul_(p), g[:, start:end], first=last)
            of_scores = torch._softmax_backward_data(of_p, p, -1, p.dtype, grad_input=of_p)
            torch.bmm(of_scores, k[:, :seen], out=of_query[:, start:end])
            _add_product(of_key, of_scores, q[:, start:end], first=last)
        of_query.mul_(scaling)
        of_query, of_key, of_value = gradients.view(3, b, h, t, d)
        return of_query, of_key, of_value, None, None, None


def blocks_of(t: int) -> list[tuple[int, int]]:
    """Return where each block of rows begins and ends, of t rows."""
    return [(start, min(start + ROWS, t)) for start in range(0, t, ROWS)]


def _in_a_row(x: Tensor, factor: float) -> Tensor:
    """Return factor times (B, h, T, d) as (B h, T, d), in memory of its own."""
    b, h, t, d = x.shape
    return torch.mul(x, factor, out=x.new_empty(b, h, t, d)).view(b * h, t, d)


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """Add left.T @ right to the first rows of `total`, (n, rows, seen) and (n, rows, d) to (n, T, d).

    The first product has all rows, and is written there.
    """
    if first:
        torch.bmm(left.transpose(1, 2), right, out=total)
    else:
        total[:, : left.shape[2]].baddbmm_(left.transpose(1, 2), right)
