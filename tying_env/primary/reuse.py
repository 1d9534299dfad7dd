"""Attention probabilities reused: a tied layer takes its leader's, and computes values and feed-forward alone.

Plain tying saves memory and no arithmetic; this saves queries, keys and scores of all followers (Xiao et al., 2019,
"Sharing attention weights for fast Transformer"; Reuse Transformer, Bhojanapalli et al., 2021, arXiv 2110.06821).

A leader is the lowest layer of its group, so it computes first. Its probabilities (B, h, T, T) go to its followers as
an input of their blocks, with gradients: its queries and keys learn from all positions of the group. For what is
between the two they are kept in one place, `Kept`, which is empty between forward passes. Every layer drops
probabilities by a mask of its own: with one mask for a group a connection that is dropped would be missing in all of
its layers at once, a stronger dropout than that of the layers it is compared with.

A layer that shares its weights with no other computes as it would without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from tying_env.primary.models import PrimaryNetwork

_NAME = "_reused_attention"


class Kept:
    """Which layer takes whose attention probabilities, and these for as long as a forward pass lasts.

    Attributes:
        sources: for each layer that whose probabilities it takes, or itself; L of them.
        probabilities: of each layer that others take them from, by its number; None between forward passes.
    """

    def __init__(self, n_layer: int) -> None:
        self.sources = list(range(n_layer))
        self.probabilities: dict[int, Tensor] | None = None

    def is_taken(self, layer: int) -> bool:
        """Tell whether another layer takes this one's probabilities."""
        return self.sources.count(layer) > 1

    def keep(self, layer: int, weights: Tensor) -> None:
        """Keep a layer's probabilities; not in a backward pass, which computes checkpointed blocks again."""
        if self.probabilities is not None:
            self.probabilities[layer] = weights


def add_reuse(network: PrimaryNetwork) -> None:
    """Let the layers of a GPT-2, BERT or ViT take each other's attention probabilities; none does yet.

    Raises:
        ValueError: it is another network.
    """
    from tying_env.primary.reusing_attention import CLASSES  # the modules of three networks of transformers

    blocks, trunk = network.blocks, _trunk(network)
    kept = Kept(len(blocks))
    found = [[module for module in block.modules() if type(module) in CLASSES] for block in blocks]
    if any(len(own) != 1 for own in found):
        raise ValueError(
            "attention can be reused in a GPT-2, BERT or ViT of transformers, whose blocks have one attention each, "
            f"not in a {type(network.model).__name__}"
        )
    for layer, (block, (attention,)) in enumerate(zip(blocks, found, strict=True)):
        attention.__class__ = CLASSES[type(attention)]
        attention._kept, attention._layer = kept, layer  # type: ignore[assignment]
        setattr(block, _NAME, (kept, layer))
        block.register_forward_pre_hook(_hand_over, with_kwargs=True)
    setattr(trunk, _NAME, kept)
    trunk.register_forward_pre_hook(_begin)
    trunk.register_forward_hook(_end, always_call=True)


def reuses(network: PrimaryNetwork) -> bool:
    """Tell whether layers of a network can take each other's attention probabilities."""
    return bool(network.blocks_paths) and _NAME in _trunk(network).__dict__


def reuse_as(network: PrimaryNetwork, sources: Sequence[int]) -> None:
    """Let every layer take the probabilities of the layer whose weights it computes with.

    Args:
        network: one that `add_reuse` has been at.
        sources: as `TiedBlocks.sources` has them, of L blocks, or of their L attentions and what comes after. At the
            frozen start, where every layer has weights of its own, each computes its own.
    """
    kept: Kept = getattr(_trunk(network), _NAME)
    kept.sources = [int(source) for source in sources[: len(kept.sources)]]


def _trunk(network: PrimaryNetwork) -> nn.Module:
    """Return the module that computes the blocks one after the other."""
    return network.model.get_submodule(network.blocks_paths[0].rpartition(".")[0])


def _begin(trunk: nn.Module, _: Any) -> None:
    getattr(trunk, _NAME).probabilities = {}


def _end(trunk: nn.Module, *_: Any) -> None:
    getattr(trunk, _NAME).probabilities = None


def _hand_over(block: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Give a follower's block its leader's probabilities: as an input, which checkpointing takes care of."""
    kept, layer = getattr(block, _NAME)
    source = kept.sources[layer]
    if source == layer or kept.probabilities is None or source not in kept.probabilities:
        return None
    return args, kwargs | {"reused": kept.probabilities[source]}
