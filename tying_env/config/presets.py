"""Settings by network and size."""

from typing import Any, Literal

from tying_env.config.network import Model

Size = Literal["small", "paper", "135m"]

# Paper, Sec. 4: 48 x 1600 with 16 heads, batch 16, learning rate 0.0001, k = 15, 300 epochs; Table 3: sequences of 256.
# An epoch of WikiText-2 is 2,448,382 // (16 * 256) = 597 steps.
PAPER: dict[str, Any] = {
    "dataset": "wikitext-2",
    "tokenizer": "gpt2",
    "n_layer": 48,
    "n_embd": 1600,
    "n_head": 16,
    "seq_len": 256,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "schedule": "constant",
    "warmup_steps": 0,
    "k": 15,
    "total_steps": 300 * 597,
    "validate_every": 600,
    "validation_windows": 0,
    "frozen_weights": "redrawn",  # held, they would be 5.8 GB
}

# SmolLM-135M (Hugging Face, 2024): 30 x 576, 9 heads of which 3 share keys and values, tied embeddings; with GPT-2's
# 50,257 tokens for its 49,152. Data and lengths are as for the paper's GPT-2, so that both can stand in one table, but
# for 20 epochs, and today's recipe: cosine, warm-up, no dropout. The learning rate is not tuned.
_SMOLLM: dict[str, Any] = {
    "model": "llama",
    "dataset": "wikitext-2",
    "tokenizer": "gpt2",
    "n_layer": 30,
    "n_embd": 576,
    "n_head": 9,
    "n_kv_head": 3,
    "seq_len": 256,
    "dropout": 0.0,
    "batch_size": 16,
    "learning_rate": 5e-4,
    "beta2": 0.95,
    "k": 15,
    "total_steps": 20 * 597,
    "validate_every": 600,
    "validation_windows": 0,
}

# Settings by network and size. Small ones train in minutes on two CPU cores, with settings chosen on validation
# (docs/tuning.md), but for LLaMA's, which are GPT-2's. The paper's: Sec. 4 and Table 2 for BERT, 12 x 768 x 12;
# Appendix B for the ViT, 32 layers of about 630M parameters in all, which are the 1280 x 16 of ViT-Huge. What it leaves
# open is as for GPT-2; patches of 4 x 4 pixels, 64 to an image of CIFAR-10, are our choice. An epoch of CIFAR-10
# without its validation images is 2,812 steps.
PRESETS: dict[tuple[Model, Size], dict[str, Any]] = {
    ("gpt2", "small"): {},
    ("gpt2", "paper"): PAPER,
    ("llama", "small"): {"model": "llama", "n_kv_head": 2, "dropout": 0.0},
    ("llama", "135m"): _SMOLLM,
    # Of a hidden token nothing is known but its neighbours: where to look is learned sooner in short sequences.
    ("bert", "small"): {"model": "bert", "seq_len": 32, "batch_size": 32, "learning_rate": 2e-3},
    ("bert", "paper"): PAPER | {"model": "bert", "n_layer": 12, "n_embd": 768, "n_head": 12},
    ("vit", "small"): {
        "model": "vit",
        "dataset": "digits",
        "augment": "crop",
        "batch_size": 64,
        "validation_windows": 0,
    },
    # The paper has no speech. 216 utterances are seen 44 times.
    ("speech", "small"): {
        "model": "speech",
        "dataset": "japanese-vowels",
        "seq_len": 32,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "total_steps": 300,
        "validation_windows": 0,
    },
    ("vit", "paper"): {
        "model": "vit",
        "dataset": "cifar10",
        "augment": "crop-flip",
        "n_layer": 32,
        "n_embd": 1280,
        "n_head": 16,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "k": 15,
        "total_steps": 300 * 2812,
        "validate_every": 2812,
        "validation_windows": 0,
    },
}

# Learning rates of agents that never change the tying, where they want another than the preset's, which is for tyings
# that change (docs/tuning.md). BERT and the ViT want the preset's.
STATIC_RATES: dict[tuple[str, Size], float] = {("gpt2", "small"): 2e-3}
CONVENTIONAL_RATES: dict[tuple[str, Size], float] = {("gpt2", "small"): 4e-3}
