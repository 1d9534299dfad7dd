"""A LLaMA built from settings: RMSNorm, rotary positions, SwiGLU and attention whose heads share keys and values.

What settings leave open is as in the small decoders of today (SmolLM-135M, TinyLlama): embeddings that are the head as
well, as GPT-2's are; no biases; rotations of base 10,000; norms with 1e-5 under the root. Sources: Touvron et al.
(arXiv 2302.13971), Ainslie et al. (GQA, arXiv 2305.13245), Shazeer (SwiGLU, arXiv 2002.05202).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tying_env.config import EnvConfig

if TYPE_CHECKING:
    from torch import nn

_NORM_EPS, _ROPE_BASE = 1e-5, 10_000.0


def intermediate_size(n_embd: int) -> int:
    """Return the width of the feed-forward part: 8/3 of the network's, so that three matrices hold what two of 4 do.

    It is rounded up to a multiple of 256, as LLaMA's (4096 -> 11,008), TinyLlama's (2048 -> 5632) and SmolLM-135M's
    (576 -> 1536) are; of 16 in a network narrower than 256, where that would add half and more.
    """
    multiple = 256 if n_embd >= 256 else 16
    return -(-(8 * n_embd // 3) // multiple) * multiple


def explicit(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a LLaMA's config.json with what it may leave to transformers' defaults, under the names of today.

    Args:
        stored: its content.
    """
    rope = stored.get("rope_parameters") or stored.get("rope_scaling") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    heads = stored.get("num_attention_heads")
    defaults = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "intermediate_size": 11_008}
    said = {name: value for name, value in stored.items() if value is not None}
    return {
        **{"num_key_value_heads": heads, **defaults, **said},
        "rope_theta": rope.get("rope_theta", stored.get("rope_theta", _ROPE_BASE)),
        "rope_type": rope.get("rope_type", rope.get("type", "default")),
    }


def computation(stored: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return what the network of `build_llama` computes, at the sizes of a checkpoint: name in `explicit` -> values."""
    width, heads = stored.get("hidden_size"), stored.get("num_attention_heads")
    sizes: dict[str, tuple[Any, ...]] = {}
    if type(width) is int and type(heads) is int and heads > 0:  # else the sizes themselves are refused
        sizes = {"intermediate_size": (intermediate_size(width),), "head_dim": (width // heads,)}
    return sizes | {
        "hidden_act": ("silu",),
        "rms_norm_eps": (_NORM_EPS,),
        "tie_word_embeddings": (True,),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "rope_theta": (_ROPE_BASE,),
        "rope_type": ("default",),
    }


def build_llama(config: EnvConfig, vocab_size: int, attention: str) -> nn.Module:
    """Return a new network; its weights come from torch's global generator.

    Args:
        config: its sizes; `dropout` is that of the attention weights, the only one a LLaMA has.
        vocab_size: tokens that it has embeddings for.
        attention: the name of the attention that it computes with, in transformers' registry.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    architecture = LlamaConfig(
        vocab_size=vocab_size,
        max_position_embeddings=config.seq_len,
        hidden_size=config.n_embd,
        intermediate_size=intermediate_size(config.n_embd),
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.key_value_heads,
        rms_norm_eps=_NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_BASE},
        tie_word_embeddings=True,
        attention_dropout=config.dropout,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )
    model: nn.Module = LlamaForCausalLM(architecture)
    return model
