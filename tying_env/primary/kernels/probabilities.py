"""Attention probabilities as numbers that are there, where a fused kernel would keep them to itself."""

import torch
from torch import Tensor

from tying_env.primary.kernels import dropout as dropping


def probabilities(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scaling: float) -> Tensor:
    """Return the softmax of the scores, (B, h, T, S), with gradients to query and key.

    Args:
        query: (B, h, T, d).
        key: (B, h, S, d).
        mask: who sees whom, which broadcasts to (B, h, T, S): booleans, or numbers that are added to the scores. None:
            every position sees all, or with `causal` those up to its own (a single one all there are). Positions
            beyond T are then slots of a cache that are empty yet, and left out: S is T in the result.
        causal: see `mask`.
        scaling: of the scores.
    """
    b, h, t, d = query.shape
    future = causal and mask is None and t > 1
    s = t if future else key.shape[2]
    q, k = query.reshape(b * h, t, d), key[:, :, :s].reshape(b * h, s, d)
    added = query.new_full((t, s), -torch.inf).triu(1) if future else query.new_zeros(())
    scores = torch.baddbmm(added, q, k.transpose(1, 2), alpha=scaling).view(b, h, t, s)
    if mask is not None and mask.dtype == torch.bool:
        # Not minus infinity: of a position that sees nothing, which padding is, no number may come out as none.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1)


def dropped(weights: Tensor, probability: float) -> Tensor:
    """Return attention probabilities with each dropped with this probability, by a mask drawn for this call."""
    if not probability:
        return weights
    if dropping.can_be_ours(weights):
        return dropping.drop(weights, probability)
    return torch.nn.functional.dropout(weights, probability)
