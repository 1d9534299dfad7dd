"""Attention modules of GPT-2, BERT and ViT that can take another layer's probabilities; see `tying_env.primary.reuse`.

Each builds on transformers' own class, and computes as that does where no other layer is concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertSelfAttention
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.vit.modeling_vit import ViTAttention
from transformers.pytorch_utils import Conv1D

from tying_env.primary.kernels.for_transformers import OneDNNConv1D
from tying_env.primary.kernels.probabilities import dropped, probabilities
from tying_env.primary.kernels.products import faster, linear

if TYPE_CHECKING:
    from tying_env.primary.reuse import Kept


class ReusingAttention(nn.Module):
    """What the attentions below have in common; a base before transformers' class."""

    config: Any
    is_causal: bool
    layer_idx: int
    scaling: float
    _kept: Kept
    _layer: int  # of the L blocks

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        reused: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the attention of a block.

        Args:
            hidden_states: (B, T, D).
            attention_mask: as transformers makes it.
            past_key_values: a cache of keys and values; of a follower it holds the values.
            reused: the leader's probabilities, (B, h, T, S); None of a layer that computes its own.
            kwargs: what else transformers passes.

        Returns:
            The output (B, T, D), and the probabilities where they are there as numbers.

        Raises:
            RuntimeError: they are to be reused, and the leader has not computed any in this forward pass.
        """
        if reused is None and (source := self._kept.sources[self._layer]) != self._layer:
            raise RuntimeError(
                f"layer {self._layer} reuses the attention of layer {source}, which has not computed any: "
                "compute the whole network, not a block of it"
            )
        if reused is None and not self._kept.is_taken(self._layer):
            cache = {} if past_key_values is None else {"past_key_values": past_key_values}
            alone: tuple[Tensor, Tensor | None] = super().forward(
                hidden_states, attention_mask=attention_mask, **cache, **kwargs
            )
            return alone
        if reused is None:
            query, key, value = (self._heads(part) for part in self._project(hidden_states))
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)
            reused = probabilities(query, key, attention_mask, self.is_causal, self.scaling)
            self._kept.keep(self._layer, reused)
        else:
            value = self._heads(self._values(hidden_states))
            if past_key_values is not None:  # a cache wants keys: one number for each position tells how many there are
                value = past_key_values.update(value[..., :1], value, self.layer_idx)[1]
        weights = dropped(reused, self._dropout() if self.training else 0.0)
        output = torch.matmul(weights, value[:, :, : reused.shape[-1]])  # (B, h, T, d)
        return self._finish(output.transpose(1, 2).flatten(2)), reused

    def _heads(self, x: Tensor) -> Tensor:
        """Return (B, h, T, d) of (B, T, D)."""
        b, t, width = x.shape
        heads: int = self.config.num_attention_heads
        return x.view(b, t, heads, width // heads).transpose(1, 2)

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values, (B, T, D) each."""
        raise NotImplementedError

    def _values(self, x: Tensor) -> Tensor:
        """Return the values alone, (B, T, D)."""
        raise NotImplementedError

    def _dropout(self) -> float:
        """Return the probability of dropping a connection in training."""
        raise NotImplementedError

    def _finish(self, x: Tensor) -> Tensor:
        """Return what the module gives for its heads' outputs, (B, T, D)."""
        raise NotImplementedError


class _GPT2(ReusingAttention, GPT2Attention):  # type: ignore[misc]
    c_attn: Any
    c_proj: Any
    attn_dropout: nn.Dropout
    resid_dropout: nn.Dropout
    split_size: int

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = self.c_attn(x).split(self.split_size, dim=2)
        return parts

    def _values(self, x: Tensor) -> Tensor:
        matrix = self.c_attn
        if type(matrix) not in (Conv1D, OneDNNConv1D) or matrix._forward_hooks or matrix._forward_pre_hooks:
            return self._project(x)[2]  # an adapter's, or one that someone looks into
        # A copy: of columns in a wider matrix oneDNN multiplies by a reference kernel, a thousand times slower.
        weight, bias = matrix.weight[:, -self.split_size :].contiguous(), matrix.bias[-self.split_size :]
        if faster(x, weight, self.split_size):
            return linear(x, weight, bias, False)
        return torch.addmm(bias, x.flatten(0, 1), weight).view(*x.shape[:2], -1)

    def _dropout(self) -> float:
        return self.attn_dropout.p

    def _finish(self, x: Tensor) -> Tensor:
        output: Tensor = self.resid_dropout(self.c_proj(x))
        return output


class _Bert(ReusingAttention, BertSelfAttention):  # type: ignore[misc]
    query: nn.Module
    key: nn.Module
    value: nn.Module
    dropout: nn.Dropout

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        return self.query(x), self.key(x), self.value(x)

    def _values(self, x: Tensor) -> Tensor:
        value: Tensor = self.value(x)
        return value

    def _dropout(self) -> float:
        return self.dropout.p

    def _finish(self, x: Tensor) -> Tensor:
        return x  # the block has a module for the rest


class _ViT(ReusingAttention, ViTAttention):  # type: ignore[misc]
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    o_proj: nn.Module
    attention_dropout: float

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def _values(self, x: Tensor) -> Tensor:
        value: Tensor = self.v_proj(x)
        return value

    def _dropout(self) -> float:
        return self.attention_dropout

    def _finish(self, x: Tensor) -> Tensor:
        output: Tensor = self.o_proj(x)
        return output


CLASSES: dict[type[nn.Module], type[ReusingAttention]] = {
    GPT2Attention: _GPT2,
    BertSelfAttention: _Bert,
    ViTAttention: _ViT,
}
