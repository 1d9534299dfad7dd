"""Factorised embeddings: a network whose wide embeddings are a product of two matrices."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tests.tiny_runs import tiny_run
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export, load_tied
from tying_env.primary.tasks import CausalLM
from tying_env.runs import load_network, load_run, save_network

TYING = [0, 1, 1, 3]
IDS = torch.arange(2 * 9).view(2, 9) % 7
E, D, V, T = 3, 16, 256, 16


def made(tiny: dict[str, Any], **settings: Any) -> LayerTyingEnv:
    env = LayerTyingEnv(**tiny | {"embedding_dim": E, "dropout": 0.0, "dtype": "float64"} | settings)
    env.reset(seed=0, options={"tying": TYING})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in env.trainer.network.model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return env


def wide(env: LayerTyingEnv) -> Any:
    """A plain GPT-2 on the products, which are computed here: gradients go through to the factors."""
    ours: Any = env.trainer.network.model
    config = transformers.GPT2Config(vocab_size=V, n_positions=T, n_embd=D, n_layer=4, n_head=2)
    config.activation_function = "gelu_pytorch_tanh"
    plain: Any = transformers.GPT2LMHeadModel(config).double().eval()
    plain.transformer.h, plain.transformer.ln_f = ours.transformer.h, ours.transformer.ln_f
    p = ours.transformer.embedding_projection.weight.T  # (E, D)
    for name in ("wte", "wpe"):
        table = getattr(plain.transformer, name)
        del table.weight
        table.weight = getattr(ours.transformer, name).weight @ p
    del plain.lm_head.weight
    plain.lm_head.weight = plain.transformer.wte.weight
    return plain


def test_it_computes_what_a_plain_network_with_the_product_does(tiny: dict[str, Any]) -> None:
    env = made(tiny)
    model: Any = env.trainer.network.model.eval()
    expected = wide(env)(IDS).logits
    torch.testing.assert_close(model(IDS).logits, expected)
    loss = CausalLM().loss(model, IDS)
    plain = nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    torch.testing.assert_close(loss, plain)
    parameters = env.trainer.trainable_parameters()
    for one, other in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(plain, parameters), strict=True):
        torch.testing.assert_close(one, other)
    found = CausalLM().measure(model, IDS, logits=True).logits
    torch.testing.assert_close(found, expected[:, :-1].flatten(0, 1))


def test_parameters_are_counted(tiny: dict[str, Any]) -> None:
    counts = []
    for settings in ({}, {"embedding_dim": E}):
        env = LayerTyingEnv(**tiny | settings)
        env.reset(seed=0)
        env.step(np.array(TYING))
        counts.append(env.trainer.count_trainable())
    assert counts[0] - counts[1] == (V + T) * D - (V + T) * E - E * D


def test_embeddings_begin_in_gpt2s_size(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"embedding_dim": 60, "n_embd": 64})
    env.reset(seed=0)
    trunk: Any = env.trainer.network.model.transformer
    product = trunk.wte.weight @ trunk.embedding_projection.weight.T
    assert product.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    "choice",
    [
        {"frozen_weights": "redrawn", "step_embedding": "learned", "dtype": "bfloat16"},
        {"units": "sublayers", "checkpoint_blocks": True, "adaptive_halting": True},
    ],
    ids=str,
)
def test_runs_are_resumed_and_forked_to_the_bit(tiny: dict[str, Any], choice: dict[str, Any]) -> None:
    settings = tiny | {"embedding_dim": E} | choice
    env, other = LayerTyingEnv(**settings), LayerTyingEnv(**settings)
    actions = [np.array(a * (2 if choice.get("units") else 1)) for a in ([0, 1, 0, 0], TYING)]
    env.reset(seed=0)
    twin = env.fork()
    np.testing.assert_equal(twin.step(actions[0]), env.step(actions[0]))
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    results = [each.step(actions[1]) for each in (env, twin, other)]
    np.testing.assert_equal(results[1:], results[:1] * 2)


@pytest.mark.parametrize("choice", [{}, {"step_embedding": "learned", "residual_scale": "depth-sqrt"}], ids=str)
def test_files_and_exports_predict_as_the_network_does(
    tiny: dict[str, Any], tmp_path: Path, choice: dict[str, Any]
) -> None:
    env = made(tiny, dtype="float32", **choice)
    expected = pytest.approx(env.evaluate("validation").mean_loss, rel=1e-5)

    def loss(network: nn.Module) -> float:
        return env.workload.evaluate(network, "validation", 8, env.device).mean_loss

    save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
    assert loss(load_network(tmp_path / "network").network.model) == expected
    if not choice:  # scales are merged, or refused
        folder = export_tied(env, tmp_path / "tied")
        assert loss(load_tied(folder)) == expected
        assert loss(load_export(folder).model) == expected
        assert (folder / "tied.safetensors").stat().st_size < (tmp_path / "network").stat().st_size + 4096
    opened: Any = transformers.GPT2LMHeadModel.from_pretrained(export_tied(env, tmp_path / "dense", dense=True))
    assert opened.transformer.wte.weight.shape == (V, D)
    assert opened.lm_head.weight is opened.transformer.wte.weight
    assert loss(opened) == expected
    assert env.evaluate("validation").mean_loss == expected  # the export merged a copy


def test_commands_read_a_run_of_one(tmp_path: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tying_agents.commands import generate

    from tying_env.compression import load_packed, pack_network

    path = tiny_run(tmp_path / "run", text_folder, embedding_dim=E)
    run = load_run(path, "final")
    assert generate.main([str(path), "--prompt", "We", "--tokens", "3"]) == 0, capsys.readouterr().out
    pack_network(run, tmp_path / "packed", 10**6, bits=8)
    packed: Any = load_packed(tmp_path / "packed")
    torch.testing.assert_close(packed(IDS).logits, run.model(IDS).logits, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dim": 16}, "embedding_dim must be at least 1 and below n_embd=16, got 16"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1 and below n_embd=16, got 0"),
        ({"embedding_dim": 4, "model": "bert"}, "embedding_dim does not apply to the model 'bert'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tiny: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerTyingEnv(**tiny | settings)


def test_a_checkpoint_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=V, n_positions=T, n_embd=D, n_layer=4, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match=r"embedding_dim needs init_from=None, got .*: a checkpoint's embeddings are"):
        LayerTyingEnv(**tiny | {"embedding_dim": E, "init_from": str(tmp_path / "gpt2")})
