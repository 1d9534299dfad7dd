"""GPT-2 for N networks at once: every matrix product is one product of a batch of N.

It computes, network by network, what transformers' GPT-2 computes from the same weights and with the same dropout:
each network's masks come from its own generator in the order in which the network alone would draw them (on a CPU; on
a GPU its attention draws inside of one operation).

It cannot be transformers' model under `torch.func.vmap`: that has one generator for all networks, so that none would
equal its single twin, and it takes longer: 2.7, 1.5 and 1.2 x for the loss and gradients of N = 1, 8 and 32 networks of
6 x 32 on 4 x 32 bytes (one thread, no dropout, measured by hand).

Shapes: N networks, B sequences, T tokens each, D width, h heads, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tying_env.primary.dependence import spaced
from tying_env.primary.kernels.attention import blocks_of
from tying_env.primary.kernels.dropout import factors, random_numbers
from tying_env.primary.kernels.head import linear_cross_entropy

# From this vocabulary on the loss is computed network by network in chunks of rows: it is most of the work by then,
# and all logits of all networks would be too large to hold.
LARGE_VOCABULARY = 4096

Dropout = Callable[[Tensor], Tensor]


class Outside(NamedTuple):
    """The weights outside the blocks, of all networks."""

    tokens: Tensor  # (N, V, D), the head as well
    positions: Tensor  # (N, T, D)
    norm_weight: Tensor  # (N, D)
    norm_bias: Tensor  # (N, D)


class Block(NamedTuple):
    """The weights of one layer, of all networks; in the order of transformers' parameters."""

    norm_1_weight: Tensor  # (N, D)
    norm_1_bias: Tensor
    qkv_weight: Tensor  # (N, D, 3 D)
    qkv_bias: Tensor
    out_weight: Tensor  # (N, D, D)
    out_bias: Tensor
    norm_2_weight: Tensor
    norm_2_bias: Tensor
    up_weight: Tensor  # (N, D, 4 D)
    up_bias: Tensor
    down_weight: Tensor  # (N, 4 D, D)
    down_bias: Tensor


OUTSIDE_NAMES = ("transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias")
BLOCK_NAMES = tuple(
    f"{module}.{kind}"
    for module in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    for kind in ("weight", "bias")
)


def keep_all(x: Tensor) -> Tensor:
    """Dropout that drops nothing."""
    return x


def dropout_from(generators: Sequence[torch.Generator | None], probability: float) -> Dropout:
    """Return a dropout whose masks come from one generator for each network; None for one that is not training."""

    def drop(x: Tensor) -> Tensor:
        masks = torch.empty_like(x)  # (N, ...)
        for own, generator in zip(masks, generators, strict=True):
            if generator is None:
                own.zero_()
            elif x.device.type == "cpu":
                own.copy_(factors(random_numbers(own.shape, generator), probability, own.dtype))
            else:
                own.bernoulli_(1 - probability, generator=generator).div_(1 - probability)
        return x * masks

    return drop if probability else keep_all


def losses(
    batch: Tensor,
    outside: Outside,
    blocks: Sequence[Block],
    n_head: int,
    dropout: Dropout,
    look: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return each network's mean cross-entropy in nats, shape (N,).

    Args:
        batch: each network's own windows, (N, B, T + 1).
        outside: weights.
        blocks: weights, of each layer.
        n_head: h.
        dropout: takes and returns (N, ...).
        look: is handed the logits (N, positions, V) at some of the positions, see `tying_env.primary.dependence`.
    """
    n, b, t = batch.shape[0], batch.shape[1], batch.shape[2] - 1
    inputs, targets = batch[..., :-1], batch[..., 1:].flatten(1)  # (N, B, T), (N, B T)
    vocabulary = outside.tokens.shape[1]
    first = torch.arange(n, device=batch.device).view(n, 1, 1) * vocabulary
    x = F.embedding(inputs + first, outside.tokens.flatten(0, 1)) + outside.positions[:, None, :t]  # (N, B, T, D)
    x = dropout(x).flatten(1, 2)  # (N, B T, D)
    future = torch.full((t, t), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
    for block in blocks:
        normal = _norm(x, block.norm_1_weight, block.norm_1_bias)
        x = x + dropout(_attention(normal, block, n_head, b, future, dropout))
        normal = _norm(x, block.norm_2_weight, block.norm_2_bias)
        up = F.gelu(_linear(normal, block.up_weight, block.up_bias), approximate="tanh")
        x = x + dropout(_linear(up, block.down_weight, block.down_bias))
    hidden = _norm(x, outside.norm_weight, outside.norm_bias)
    if look is not None:
        some = spaced(hidden.detach().transpose(0, 1), vocabulary).transpose(0, 1)  # (N, positions, D)
        look(torch.bmm(some, outside.tokens.detach().transpose(1, 2)))
    if vocabulary >= LARGE_VOCABULARY:
        heads = zip(hidden, outside.tokens, targets, strict=True)
        return torch.stack([linear_cross_entropy(h, weight, own) for h, weight, own in heads])
    scores = F.log_softmax(torch.bmm(hidden, outside.tokens.transpose(1, 2)), -1)  # (N, B T, V)
    return -scores.gather(-1, targets[..., None]).mean((1, 2))


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias[:, None], x, weight)


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addcmul(bias[:, None], F.layer_norm(x, x.shape[-1:]), weight[:, None])


def _attention(x: Tensor, block: Block, n_head: int, b: int, future: Tensor, dropout: Dropout) -> Tensor:
    n, rows, width = x.shape
    t, size = rows // b, width // n_head
    qkv = _linear(x, block.qkv_weight, block.qkv_bias).view(n * b, t, 3, n_head, size)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)  # (N B h, T, D/h) each
    parts = []
    for start, end in blocks_of(t):  # as a network alone computes it, which draws its masks block by block
        seen = k[:, :end].transpose(1, 2)
        scores = torch.baddbmm(future[start:end, :end], q[:, start:end], seen, alpha=size**-0.5)  # (N B h, rows, seen)
        weights = dropout(torch.softmax(scores, -1).unflatten(0, (n, -1))).flatten(0, 1)
        parts.append(torch.bmm(weights, v[:, :end]))
    out = torch.cat(parts, 1).view(n, b, n_head, t, size).transpose(2, 3).reshape(n, rows, width)
    return _linear(out, block.out_weight, block.out_bias)
