"""Small models of transformers and networks of one's own, and environments of them."""

from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from tying_env.env import LayerTyingEnv

L, V, T = 4, 40, 12
TRAIN: dict[str, Any] = {"k": 2, "total_steps": 12, "batch_size": 4, "device": "cpu"}

LLAMA = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": L,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": T,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_BERT = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": L,
    "num_attention_heads": 2,
    "max_position_embeddings": T + 2,
}
_VIT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": L,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "num_labels": 3,
}
_T5 = {"vocab_size": V, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 3, "num_decoder_layers": 4}

# name -> (model class, configuration class, its arguments, number of block lists)
FAMILIES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": V, "n_positions": T, "n_embd": 16, "n_layer": L, "n_head": 2},
        1,
    ),
    "gpt-neox": (
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"},
        1,
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA, 1),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LLAMA, 1),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", LLAMA | {"head_dim": 8}, 1),
    "mistral": ("MistralForCausalLM", "MistralConfig", LLAMA, 1),
    "bert": ("BertForMaskedLM", "BertConfig", _BERT, 1),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", _BERT | {"pad_token_id": 1}, 1),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": V, "dim": 16, "hidden_dim": 32, "n_layers": L, "n_heads": 2, "max_position_embeddings": T},
        1,
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", _VIT, 1),
    "deit": ("DeiTForImageClassification", "DeiTConfig", _VIT, 1),
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5 | {"decoder_start_token_id": 0}, 2),
}


def make_model(family: str) -> nn.Module:
    model_class, config_class, arguments, _ = FAMILIES[family]
    model: nn.Module = getattr(transformers, model_class)(getattr(transformers, config_class)(**arguments))
    return model


def draw(family: str, rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    if family in ("vit", "deit"):
        pixels = rng.standard_normal((4, 1, 8, 8)).astype(np.float32)
        return {"pixel_values": pixels, "labels": rng.integers(3, size=4)}
    tokens = rng.integers(2, V, size=(4, T))
    return {"input_ids": tokens, "labels": tokens}


def make_env(family: str, **settings: Any) -> LayerTyingEnv:
    return LayerTyingEnv(model=lambda: make_model(family), batches=lambda rng: draw(family, rng), **TRAIN | settings)


class Mixed(nn.Module):
    """Dense blocks with a wider one, as of a mixture of experts, among them."""

    def __init__(self, widths: tuple[int, ...] = (4, 8, 4, 8, 4)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3)) for width in widths
        )
        self.heads = nn.ModuleList([nn.Linear(3, 1)])
        self.single = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.heads[0](x)  # type: ignore[no-any-return]


def squares(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return (model(x) - y).square().mean()  # type: ignore[no-any-return]


def examples(count: int) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 1, 3 * count).reshape(count, 3)
    return x, x.sum(1, keepdim=True)


def own(model: Any = None, **changed: Any) -> LayerTyingEnv:
    parts = {"batches": examples(50), "loss": squares, "validation": examples(9), "validate_every": 4}
    return LayerTyingEnv(model=model or Mixed((4, 4, 4)), **TRAIN | parts | changed)
