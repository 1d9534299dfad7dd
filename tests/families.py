"""Forty families of transformers, each as a small network with random weights and batches that it takes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import transformers
from torch import Tensor, nn

from tests.models import _BERT, _VIT, LLAMA, L, T, V
from tests.models import FAMILIES as TESTED
from tying_env.primary.own_tasks import Loss

Batch = dict[str, np.ndarray[Any, Any]]


def tokens(rng: np.random.Generator) -> Batch:
    ids = rng.integers(3, V, size=(4, T))
    return {"input_ids": ids, "labels": ids}


def images(rng: np.random.Generator, size: int = 8) -> Batch:
    pixels = rng.standard_normal((4, 1, size, size)).astype(np.float32)
    return {"pixel_values": pixels, "labels": rng.integers(3, size=4)}


def pixels_alone(rng: np.random.Generator) -> Batch:
    return {"pixel_values": images(rng)["pixel_values"]}


def sound(rng: np.random.Generator) -> Batch:
    return {"input_values": rng.standard_normal((4, 400)).astype(np.float32), "labels": rng.integers(3, size=4)}


def spectrograms(rng: np.random.Generator) -> Batch:
    return {
        "input_features": rng.standard_normal((4, 8, 2 * T)).astype(np.float32),
        "labels": rng.integers(3, V, size=(4, T)),
    }


def pairs(rng: np.random.Generator) -> Batch:
    return {"input_ids": tokens(rng)["input_ids"], "pixel_values": images(rng)["pixel_values"]}


def matching(model: Any, batch: Any) -> Tensor:
    return model(**batch, return_loss=True).loss  # type: ignore[no-any-return]


class Family(NamedTuple):
    """A class of networks, that of its configuration, sizes, what a batch of it is, and its loss if not `.loss`."""

    model: str
    config: str
    sizes: dict[str, Any]
    draw: Callable[[np.random.Generator], Batch] = tokens
    loss: Loss | None = None

    def make(self) -> nn.Module:
        config = getattr(transformers, self.config)(**self.sizes)
        model: nn.Module = getattr(transformers, self.model)(config)
        return model


_NO_IDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
_SQUARE = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
_GPT2 = TESTED["gpt2"][2]
_BART = {
    "vocab_size": V,
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": L,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 2 * T,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
_WAV2VEC2 = {
    "vocab_size": V,
    "hidden_size": 16,
    "num_hidden_layers": L,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "num_labels": 3,
    "mask_time_length": 2,
    "mask_time_min_masks": 1,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}

FAMILIES: dict[str, Family] = {
    **{
        name: Family(model, config, sizes, images if name in ("vit", "deit") else tokens)
        for name, (model, config, sizes, _) in TESTED.items()
    },
    # Decoders
    "gpt-neo": Family(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": V,
            "hidden_size": 16,
            "num_layers": L,
            "num_heads": 2,
            "attention_types": [[["global", "local"], L // 2]],
            "max_position_embeddings": T,
            "window_size": 4,
            **_NO_IDS,
        },
    ),
    "gpt-j": Family("GPTJForCausalLM", "GPTJConfig", _GPT2 | {"rotary_dim": 4, **_NO_IDS}),
    "opt": Family(
        "OPTForCausalLM",
        "OPTConfig",
        {k: v for k, v in _SQUARE.items() if k != "intermediate_size"}
        | {"ffn_dim": 32, "word_embed_proj_dim": 16, "pad_token_id": 1},
    ),
    "bloom": Family(
        "BloomForCausalLM", "BloomConfig", {"vocab_size": V, "hidden_size": 16, "n_layer": L, "n_head": 2, **_NO_IDS}
    ),
    "falcon": Family("FalconForCausalLM", "FalconConfig", _SQUARE),
    "mpt": Family(
        "MptForCausalLM", "MptConfig", {"vocab_size": V, "d_model": 16, "n_heads": 2, "n_layers": L, "max_seq_len": T}
    ),
    "mixtral": Family(
        "MixtralForCausalLM", "MixtralConfig", LLAMA | {"num_local_experts": 3, "num_experts_per_tok": 2}
    ),
    "qwen2-moe": Family(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        LLAMA | _EXPERTS | {"num_experts": 3, "decoder_sparse_step": 2, "shared_expert_intermediate_size": 8},
    ),
    "gemma": Family("GemmaForCausalLM", "GemmaConfig", LLAMA | {"head_dim": 8}),
    "gemma2": Family("Gemma2ForCausalLM", "Gemma2Config", LLAMA | {"head_dim": 8, "sliding_window": 4}),
    "phi": Family("PhiForCausalLM", "PhiConfig", LLAMA | {"num_key_value_heads": 2}),
    "phi3": Family("Phi3ForCausalLM", "Phi3Config", LLAMA),
    "olmo2": Family("Olmo2ForCausalLM", "Olmo2Config", LLAMA),
    "cohere": Family("CohereForCausalLM", "CohereConfig", LLAMA),
    "starcoder2": Family("Starcoder2ForCausalLM", "Starcoder2Config", LLAMA),
    "mamba": Family(
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": L, "state_size": 4, **_NO_IDS},
    ),
    # Encoders
    "albert": Family("AlbertForMaskedLM", "AlbertConfig", _BERT | {"embedding_size": 8, "num_hidden_groups": L}),
    "electra": Family("ElectraForMaskedLM", "ElectraConfig", _BERT | {"embedding_size": 8}),
    "deberta-v2": Family(
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        _BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4},
    ),
    "mpnet": Family("MPNetForMaskedLM", "MPNetConfig", _BERT | {"pad_token_id": 1}),
    "modernbert": Family(
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        _BERT | _NO_IDS | {"cls_token_id": 0, "sep_token_id": 1, "pad_token_id": 2},
    ),
    # Images
    "dinov2": Family("Dinov2ForImageClassification", "Dinov2Config", _VIT, images),
    "vit-mae": Family(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        _VIT
        | {
            "decoder_num_attention_heads": 2,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 2,
            "decoder_intermediate_size": 32,
        },
        pixels_alone,
    ),
    "swin": Family(
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 16,
            "patch_size": 2,
            "num_channels": 1,
            "embed_dim": 8,
            "depths": [2, 2],
            "num_heads": [1, 2],
            "window_size": 2,
            "num_labels": 3,
        },
        functools.partial(images, size=16),
    ),
    # Encoder and decoder
    "bart": Family("BartForConditionalGeneration", "BartConfig", _BART),
    "whisper": Family(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        _BART
        | {
            "num_mel_bins": 8,
            "max_source_positions": T,
            "max_target_positions": T,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        spectrograms,
    ),
    # Sound, pairs of text and image
    "wav2vec2": Family("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", _WAV2VEC2, sound),
    "clip": Family(
        "CLIPModel",
        "CLIPConfig",
        {
            "text_config": _BERT
            | {
                "max_position_embeddings": T,
                "projection_dim": 8,
                "eos_token_id": 2,
                "bos_token_id": 0,
                "pad_token_id": 1,
            },
            "vision_config": _VIT | {"projection_dim": 8},
            "projection_dim": 8,
        },
        pairs,
        matching,
    ),
}
