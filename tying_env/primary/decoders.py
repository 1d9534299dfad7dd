"""Decoders of transformers as a checkpoint's config.json describes them: LLaMA, Qwen, Mistral, Gemma, GPT-NeoX, ...

What describes a network here is that file's content as far as it decides what is computed, its **architecture**. It
goes into run directories, so that a network can be made again without its checkpoint. Only classes that transformers
itself has are made: code that lies beside a checkpoint is never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Keys of config.json that say where code, kernels or files come from, or in which type weights are stored.
_LEFT_OUT = ("auto_map", "attn_implementation", "experts_implementation", "dtype", "torch_dtype", "use_cache")
# What our settings are called in the configurations of transformers, most usual names first.
_NAMES = {
    "n_layer": ("num_hidden_layers", "n_layer", "num_layers"),
    "n_embd": ("hidden_size", "n_embd", "d_model"),
    "n_head": ("num_attention_heads", "n_head", "num_heads"),
}
_LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")
# How the classes of decoders are called.
_DECODERS = ("ForCausalLM", "LMHeadModel")


def read_architecture(stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the architecture that a checkpoint's config.json describes, ready for JSON.

    Args:
        stored: the content of config.json.
        where: its path, for messages.

    Raises:
        ValueError: it is of no decoder, or of one whose weights are quantised; or it lacks its type or a size.
    """
    names = stored.get("architectures") or []
    if stored.get("is_encoder_decoder") or not any(str(name).endswith(_DECODERS) for name in names):
        raise ValueError(
            f"{where} must be of a decoder, whose name under 'architectures' ends in {' or '.join(_DECODERS)}; "
            f"got {names!r}"
        )
    if stored.get("quantization_config") is not None:
        raise ValueError(f"{where} is of quantised weights, which cannot be trained: save the network in full")
    architecture = {name: value for name, value in stored.items() if name not in _LEFT_OUT and not name.startswith("_")}
    check_architecture(architecture, where)
    return architecture


def check_architecture(architecture: object, where: str) -> None:
    """Check that this is an architecture: one of `read_architecture`, or of a file that says it is.

    Raises:
        ValueError: it is not; the message says what is missing.
    """
    if not isinstance(architecture, dict) or not isinstance(architecture.get("model_type"), str):
        raise ValueError(f"{where} must be an object with a 'model_type', got {architecture!r:.100}")
    if odd := sorted(name for name in architecture if name in _LEFT_OUT or name.startswith("_")):
        raise ValueError(f"{where} must not have {odd[0]!r}: it says where code comes from, not what is computed")
    architecture_settings(architecture, where)
    vocabulary_size(architecture, where)


def architecture_settings(architecture: Mapping[str, Any], where: str) -> dict[str, int]:
    """Return the settings of `EnvConfig` that an architecture decides: n_layer, n_embd, n_head.

    Raises:
        ValueError: it lacks one.
    """
    return {ours: _number(architecture, names, where) for ours, names in _NAMES.items()}


def vocabulary_size(architecture: Mapping[str, Any], where: str) -> int:
    """Return the number of tokens that a network has embeddings for.

    Raises:
        ValueError: the architecture does not say.
    """
    return _number(architecture, ("vocab_size",), where)


def longest_context(architecture: Mapping[str, Any]) -> int | None:
    """Return how many tokens a network was made for, None where its architecture does not say."""
    found = [architecture[name] for name in _LENGTH if type(architecture.get(name)) is int]
    return found[0] if found else None


def end_token(architecture: Mapping[str, Any]) -> int | None:
    """Return the token that ends a text; the first where there are several, None where there is none."""
    token = architecture.get("eos_token_id")
    token = token[0] if isinstance(token, list) and token else token
    return token if type(token) is int and token >= 0 else None


def build_decoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Return a new network; its weights come from torch's global generator.

    Raises:
        ValueError: transformers has no such decoder, or does not accept its configuration.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings, kind = dict(architecture), architecture["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no network of the type {kind!r}; code beside a checkpoint is never run")
    try:
        config = CONFIG_MAPPING[kind].from_dict(settings)
        # Scores with a soft cap are computed by transformers' own functions alone (Gemma 2).
        plain = "eager" if getattr(config, "attn_logit_softcapping", None) else None
        model: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation=plain)
    except Exception as error:  # transformers' checks of a configuration have classes of their own
        raise ValueError(f"the configuration of a {kind!r} does not make a decoder: {error}") from error
    return model


def _number(architecture: Mapping[str, Any], names: tuple[str, ...], where: str) -> int:
    for name in names:
        value = architecture.get(name)
        if type(value) is int and value >= 1:
            return value
    raise ValueError(f"{where} must have a whole number above 0 under {names[0]!r}, got {architecture.get(names[0])!r}")
