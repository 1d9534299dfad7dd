"""Small decoders in folders as transformers saves them, with tokenizers of the kinds that there are."""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from tests.conftest import TINY
from tying_env.env import LayerTyingEnv

L = 3
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": L,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 0,
}
END = "<|endoftext|>"


def byte_level(text: str, vocab_size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE as of LLaMA 3, Qwen and GPT-NeoX, trained on a text."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([text], trainer)
    return made


def sentence_piece(text: str, vocab_size: int) -> tokenizers.Tokenizer:
    """A BPE with single bytes as of LLaMA 2 and Mistral, trained on a text."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    replaced = tokenizers.normalizers.Replace(" ", "▁")
    made.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("▁"), replaced])
    decoders = tokenizers.decoders
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<s>", "<unk>", *every_byte], show_progress=False, max_token_length=8
    )
    made.train_from_iterator([text[:2000]], trainer)
    # Bytes are no special tokens, which would never be used for text.
    described = json.loads(made.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in ("<s>", "<unk>")]
    return tokenizers.Tokenizer.from_str(json.dumps(described))


def save(folder: Path, name: str, config: Any, tokenizer: tokenizers.Tokenizer) -> Path:
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = getattr(transformers, name)(config)
    torch.random.set_rng_state(generator)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def settings(folder: Path, text_folder: Path, **changed: Any) -> dict[str, Any]:
    decided = ("n_layer", "n_embd", "n_head", "tokenizer")  # by the checkpoint
    tiny = {name: value for name, value in TINY.items() if name not in decided}
    return tiny | {"model": "causal-lm", "init_from": str(folder), "dataset": str(text_folder)} | changed


def make(folder: Path, text_folder: Path, **changed: Any) -> LayerTyingEnv:
    return LayerTyingEnv(**settings(folder, text_folder, **changed))
