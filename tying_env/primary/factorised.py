"""Embeddings of a GPT-2 that are narrower than the network: a product of two matrices in place of a wide one.

Where layers are tied, embeddings are most of what is left. ALBERT (Lan et al., 2020, arXiv 1909.11942) and Subformer
(Reid et al., 2021, arXiv 2101.00234) keep tokens and positions in E numbers each and bring their sum to the width D
by a matrix P (E, D): V E + T E + E D weights for V D + T D. The head, which is the embeddings once more, takes hidden
states back to E numbers by P as well, so that the network is one whose wide embeddings are of rank E.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What GPT-2's embeddings are drawn with; P keeps a vector's size.
_SIZE = 0.02
_NAME = "embedding_projection"


class FactorisedHead(nn.Module):
    """Scores (..., V) for hidden states (..., D).

    Args:
        weight: the tokens' embeddings, (V, E).
        projection: P, as a layer.
    """

    def __init__(self, weight: nn.Parameter, projection: nn.Linear) -> None:
        super().__init__()
        self.weight = weight
        self._projection = (projection,)  # in a tuple: no part of the head

    def narrow(self, hidden: Tensor) -> Tensor:
        """Return hidden states (..., D) as what is compared with the tokens' embeddings, (..., E)."""
        return hidden @ self._projection[0].weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the scores."""
        return F.linear(self.narrow(hidden), self.weight)


def factorise(model: Any, width: int) -> None:
    """Give a new GPT-2 embeddings of this width E; they come from torch's global generator."""
    trunk, wide = model.transformer, model.config.n_embd
    trunk.wte, trunk.wpe = (nn.Embedding(table.num_embeddings, width) for table in (trunk.wte, trunk.wpe))
    projection = nn.Linear(width, wide, bias=False)
    for weight, size in ((trunk.wte.weight, _SIZE), (trunk.wpe.weight, _SIZE), (projection.weight, width**-0.5)):
        nn.init.normal_(weight, std=size)
    trunk.add_module(_NAME, projection)
    setattr(trunk.drop, f"_{_NAME}", (projection,))
    trunk.drop.register_forward_pre_hook(_widen)
    model.lm_head = FactorisedHead(trunk.wte.weight, projection)


@torch.no_grad()
def merge_factors(model: Any) -> None:
    """Multiply the two matrices of a factorised GPT-2, which becomes a plain one."""
    if not isinstance(model.lm_head, FactorisedHead):
        return
    trunk = model.transformer
    projection = trunk.get_submodule(_NAME)
    for table in (trunk.wte, trunk.wpe):
        table.weight = nn.Parameter(projection(table.weight))
        table.embedding_dim = table.weight.shape[1]
    delattr(trunk, _NAME)
    hooks = trunk.drop._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if hook is _widen]:
        del hooks[key]
    model.lm_head = nn.Linear(table.embedding_dim, trunk.wte.num_embeddings, bias=False, device="meta")
    model.lm_head.weight = trunk.wte.weight


def _widen(drop: nn.Module, args: tuple[Tensor]) -> Tensor:
    (projection,) = getattr(drop, f"_{_NAME}")
    wide: Tensor = projection(args[0])
    return wide
