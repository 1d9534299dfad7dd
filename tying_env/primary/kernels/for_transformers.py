"""The kernels as transformers' models take them: an attention to name in their configuration, and a layer of theirs."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from tying_env.primary.kernels import dropout as dropping
from tying_env.primary.kernels.attention import attend_in_blocks
from tying_env.primary.kernels.first_order import needed_once
from tying_env.primary.kernels.probabilities import probabilities
from tying_env.primary.kernels.products import faster, linear

# What the attention below is called in the configuration of a transformers model.
ATTENTION = "sdpa_with_fast_dropout"

_NOT_OURS = ("is_causal", "position_bias", "softcap", "cache")  # of what transformers may ask of an attention


class OneDNNConv1D(Conv1D):  # type: ignore[misc]
    """GPT-2's linear layer, multiplied by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute (..., K) to (..., M)."""
        if not faster(x, self.weight, self.nf):
            result: Tensor = super().forward(x)
            return result
        return linear(x, self.weight, self.bias, False)


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
    """Compute what transformers' `sdpa_attention_forward` computes, with the dropout of `drop` where it can be.

    In a training step it is computed some rows at a time, each with masks of its own.

    Args:
        module: the attention module, whose `is_causal` says whether position t sees those after it.
        query: (B, h, T, D/h).
        key: (B, g, T, D/h), where g divides h: each head of it is there for h/g of the query.
        value: (B, g, T, D/h).
        attention_mask: who sees whom; None for all, or with `is_causal` all before.
        dropout: probability of dropping a weight.
        scaling: of the scores; 1/sqrt(D/h) by default.
        kwargs: what else transformers passes.

    Returns:
        The output (B, T, h, D/h), and no weights.
    """
    n_shared, rest = divmod(query.shape[1], key.shape[1])
    alike = not rest and (query.shape[0], *query.shape[2:]) == (key.shape[0], *key.shape[2:])  # not with a cache
    plain = attention_mask is None and alike and all(kwargs.get(name) is None for name in _NOT_OURS)
    # torch computes the softmax of 16-bit numbers in 32 bits.
    exact = query.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    if not (dropout and plain and exact and dropping.can_be_ours(query)):
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    if n_shared > 1:
        key, value = (part.repeat_interleave(n_shared, 1) for part in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = getattr(module, "is_causal", True)
    if needed_once() and value.shape == key.shape:
        return attend_in_blocks(query, key, value, dropout, causal, scale), None
    weights = probabilities(query, key, None, causal, scale)  # (B, h, T, T)
    out = torch.matmul(dropping.drop(weights, dropout), value)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
