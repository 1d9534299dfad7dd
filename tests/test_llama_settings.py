"""A LLaMA's settings: from a checkpoint, by a preset, and what is refused."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
import transformers
from tying_agents.commands.early import chosen_preset, default_run

from tests.conftest import TINY
from tying_env import PRESETS, EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.workloads import open_workload
from tying_env.seeding import torch_randomness_from, torch_stream
from tying_env.vector import VectorTyingEnv

LLAMA: dict[str, Any] = TINY | {"model": "llama", "n_kv_head": 1}


@pytest.fixture
def llama(text_folder: Path) -> dict[str, Any]:
    """Settings of a tiny LLaMA on real text."""
    return LLAMA | {"dataset": str(text_folder)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LLaMA as transformers saves it, of the shape that is built here but for its vocabulary and context."""
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch_randomness_from(torch_stream(5, "checkpoint")):
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder := tmp_path_factory.mktemp("checkpoint"))
    return folder


def sizes_decided_by_it(llama: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in llama.items() if name not in ("n_layer", "n_embd", "n_head", "n_kv_head")}


def test_it_starts_from_a_checkpoint_that_computes_as_it_does(llama: dict[str, Any], checkpoint: Path) -> None:
    env = LayerTyingEnv(**sizes_decided_by_it(llama), init_from=str(checkpoint))
    assert (env.config.n_layer, env.config.n_embd, env.config.n_head, env.config.n_kv_head) == (3, 16, 4, 2)
    env.reset(seed=0, options={"tying": [0, 1, 2]})
    ours, theirs = env.trainer.network.model, transformers.LlamaForCausalLM.from_pretrained(checkpoint)
    for name, parameter in theirs.named_parameters():
        assert torch.equal(ours.get_parameter(name), parameter) == ("embed_tokens" not in name)  # of 40 tokens
    assert chosen_preset(["--model", "llama", "--init-from", str(checkpoint)])[1].n_kv_head == 2
    assert chosen_preset(["--init-from", str(checkpoint)])[1].model == "causal-lm"  # as before, if nothing is asked for


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rms_norm_eps", None, r"rms_norm_eps=1e-06, the network it would start computes with 1e-05"),
        ("tie_word_embeddings", None, "tie_word_embeddings=False"),
        ("intermediate_size", 64, "intermediate_size=64, .* computes with 48"),
        ("rope_parameters", {"rope_theta": 500_000.0, "rope_type": "default"}, r"rope_theta=500000\.0"),
        ("rope_parameters", {"rope_theta": 10_000.0, "rope_type": "llama3"}, "rope_type='llama3'"),
        ("rope_parameters", "odd", "rope_type='odd'"),
        ("head_dim", 8, "head_dim=8"),
        ("attention_bias", True, "attention_bias=True"),
        ("num_key_value_heads", None, "has n_kv_head=4, the settings 2"),
        ("num_key_value_heads", "two", "must have a whole number under 'num_key_value_heads'"),
        ("num_attention_heads", 0, "n_head"),
    ],
)
def test_a_checkpoint_that_computes_otherwise_is_refused_by_name(
    llama: dict[str, Any], checkpoint: Path, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    stored = json.loads((checkpoint / "config.json").read_text())
    stored.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(stored if value is None else stored | {name: value}))
    with pytest.raises(ValueError, match=message):
        LayerTyingEnv(**sizes_decided_by_it(llama), n_kv_head=2, init_from=str(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_kv_head": 3, "n_head": 4}, "n_kv_head must divide n_head, got n_kv_head=3 and n_head=4"),
        ({"n_kv_head": 0}, "n_kv_head must divide n_head, got n_kv_head=0"),
        ({"n_kv_head": -2}, "n_kv_head must divide n_head, got n_kv_head=-2"),
        ({"n_kv_head": True}, "n_kv_head must be int or none, got True"),
        ({"n_head": 16}, "n_embd must be an even multiple of n_head .* got n_embd=16 and n_head=16: heads of 1"),
        ({"n_head": 3, "n_kv_head": 3}, "n_head must divide n_embd, got n_head=3"),
        ({"model": "gpt2"}, "n_kv_head does not apply to the model 'gpt2', only to llama: leave it out, got 1"),
        ({"mask_seed": 1}, "mask_seed does not apply to the model 'llama', only to bert"),
        ({"tokenizer": "checkpoint"}, "for the model 'causal-lm' alone; got the model 'llama'"),
        ({"reward": "accuracy"}, "reward='accuracy' needs a network that classifies"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig(**LLAMA | changed)


def test_without_shared_heads_it_has_a_key_for_each(llama: dict[str, Any]) -> None:
    config = EnvConfig(**llama | {"n_kv_head": None})
    assert config.key_value_heads == config.n_head == 2
    layer: Any = open_workload(config).skeleton().blocks[0]
    assert layer.self_attn.k_proj.weight.shape == (16, 16)


def test_many_networks_at_once_are_refused_by_name(llama: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="model must be 'gpt2' in the vector environment, got 'llama'"):
        VectorTyingEnv(**llama)
    assert gym.spec("LayerTying-Llama-v0").vector_entry_point is None


def test_its_presets_are_its_own() -> None:
    assert chosen_preset(["--model", "llama"]) == ("small", EnvConfig(**PRESETS["llama", "small"]))
    size, env = chosen_preset(["--model", "llama", "--preset", "135m"])
    assert (size, env.n_layer, default_run(size, env).test_windows) == ("135m", 30, 0)
    with pytest.raises(ValueError, match="preset must be small or 135m for the model 'llama', got 'paper'"):
        chosen_preset(["--model", "llama", "--preset", "paper"])
    for model in ("gpt2", "bert", "my_net.py:f"):
        with pytest.raises(ValueError, match=f"preset must be small or paper for the model '{model}', got '135m'"):
            chosen_preset(["--model", model, "--preset", "135m"])
