"""The loss of every family of decoders is the one that transformers computes."""

import json
from typing import Any

import pytest
import torch
import transformers

from tests.decoder_folders import SIZES, L
from tying_env.primary.decoders import build_decoder, read_architecture
from tying_env.primary.tasks import PLAIN_HEADS, DecoderLM

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", SIZES),
    "gemma2": ("Gemma2Config", SIZES),
    "gpt2": ("GPT2Config", {"vocab_size": 300, "n_embd": 16, "n_layer": L, "n_head": 2, "n_positions": 32}),
    "gpt_neox": ("GPTNeoXConfig", {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "head_dim")}),
    "granite": ("GraniteConfig", SIZES | {"logits_scaling": 3.0}),
    "llama": ("LlamaConfig", SIZES),
    "mistral": ("MistralConfig", SIZES),
    "olmo2": ("Olmo2Config", SIZES),
    "phi3": ("Phi3Config", SIZES),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen3": ("Qwen3Config", SIZES),
}


def test_every_plain_head_is_compared() -> None:
    assert set(FAMILIES) >= PLAIN_HEADS


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_models_own(family: str) -> None:
    name, arguments = FAMILIES[family]
    stored = json.loads(getattr(transformers, name)(**arguments).to_json_string(use_diff=False))
    architecture = read_architecture(stored | {"architectures": ["AnyForCausalLM"]}, "config.json")
    model: Any = build_decoder(json.loads(json.dumps(architecture))).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # as large as trained ones: caps and scales would show
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    tokens = torch.randint(300, (3, 17), generator=generator)
    expected = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    torch.testing.assert_close(DecoderLM().loss(model, tokens), expected)
