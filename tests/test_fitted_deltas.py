"""Relaxed recursion from trained weights: deltas by singular value decomposition of what tying takes from a layer."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tests.conftest import TINY
from tying_env.env import LayerTyingEnv

MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
TYING = [0, 1, 0, 1]
FULL = 16  # no matrix of these networks has a higher rank


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 whose biases and norms are none that training begins with."""
    config = transformers.GPT2Config(vocab_size=256, n_positions=16, n_embd=16, n_layer=4, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("trained")
    model.save_pretrained(folder)
    return folder


def make(trained: Path, text_folder: Path, rank: int, **settings: Any) -> LayerTyingEnv:
    chosen = {"dataset": str(text_folder), "init_from": str(trained), "dropout": 0.0, "dtype": "float64"}
    env = LayerTyingEnv(**TINY | chosen | {"delta_rank": rank, "delta_init": "svd"} | settings)
    env.reset(seed=0)
    return env


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(torch.arange(32).view(2, 16)).logits
    return found


def matrix(env: LayerTyingEnv, layer: int, name: str) -> tuple[Tensor, Tensor]:
    """The tied matrix of a layer and its delta, both (inputs, outputs)."""
    module: Any = env.trainer.network.blocks[layer].get_submodule(name)
    delta = module.lora_B["default"].weight @ module.lora_A["default"].weight
    return module.base_layer.weight.detach(), delta.T.detach()


@pytest.mark.parametrize("first_tying", ["leader", "mean"])
def test_with_deltas_of_full_rank_a_tied_network_computes_what_the_trained_one_does(
    trained: Path, text_folder: Path, first_tying: str
) -> None:
    env = make(trained, text_folder, FULL, first_tying=first_tying, tied_parameters="matrices")
    env.trainer.tie(TYING)
    expected = transformers.GPT2LMHeadModel.from_pretrained(trained).double()
    torch.testing.assert_close(logits(env.trainer.network.model), logits(expected), atol=1e-5, rtol=1e-5)
    zero = make(trained, text_folder, FULL, first_tying=first_tying, tied_parameters="matrices", delta_init="zero")
    zero.trainer.tie(TYING)
    assert (logits(zero.trainer.network.model) - logits(expected)).abs().max() > 0.1


@pytest.mark.parametrize("first_tying", ["leader", "mean"])
@pytest.mark.parametrize("rank", [1, 5])
def test_what_a_delta_leaves_is_the_tail_of_the_singular_values(
    trained: Path, text_folder: Path, rank: int, first_tying: str
) -> None:
    env = make(trained, text_folder, rank, first_tying=first_tying)
    env.trainer.tie(TYING)
    source: Any = transformers.GPT2LMHeadModel.from_pretrained(trained).double().transformer.h
    for layer, leader in enumerate(TYING):
        for name in MATRICES:
            own, other = (source[i].get_submodule(name).weight.detach().numpy() for i in (layer, leader + 2))
            lead = source[leader].get_submodule(name).weight.detach().numpy()
            shared = (lead + other) / 2 if first_tying == "mean" else lead
            found, delta = (part.numpy() for part in matrix(env, layer, name))
            np.testing.assert_allclose(found, shared, atol=1e-12)
            tail = np.sqrt((np.linalg.svd(own - shared, compute_uv=False)[rank:] ** 2).sum())
            assert np.linalg.norm(own - found - delta) == pytest.approx(tail, abs=1e-9)
            assert np.linalg.matrix_rank(delta, tol=1e-9) == (0 if (own == shared).all() else rank)


def test_a_later_change_keeps_what_a_layer_had_learnt(trained: Path, text_folder: Path) -> None:
    env = make(trained, text_folder, FULL, tied_parameters="matrices")
    env.step(np.array(TYING))
    trainer = env.trainer
    before, state = logits(trainer.network.model), trainer.optimizer.state
    kept, gone = (trainer.network.blocks[i].mlp.c_fc.lora_A["default"].weight for i in (1, 2))  # type: ignore[union-attr]
    assert {kept, gone} <= state.keys()
    trainer.tie([0, 1, 1, 3])  # layer 3 is untied, and keeps its weights; layer 2 ties elsewhere
    torch.testing.assert_close(logits(trainer.network.model), before)
    assert kept in trainer.optimizer.state and gone not in trainer.optimizer.state
    env.step(np.array([0, 1, 1, 3]))
    assert gone in trainer.optimizer.state


@pytest.mark.parametrize("choice", [{"units": "sublayers", "dtype": "bfloat16"}, {"model": "llama"}], ids=str)
def test_runs_are_resumed_and_forked_to_the_bit(text_folder: Path, choice: dict[str, Any]) -> None:
    chosen = {"dataset": str(text_folder), "delta_rank": 2, "delta_init": "svd"}
    env, other = (LayerTyingEnv(**TINY | chosen | choice) for _ in range(2))
    env.reset(seed=0)
    first, second = np.array(TYING), np.array([0, 0, 1, 3])
    if choice.get("units"):
        first, second = np.tile(first, 2), np.tile(second, 2)
    twin = env.fork()
    np.testing.assert_equal(twin.step(first), env.step(first))
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    results = [each.step(second) for each in (env, twin, other)]
    np.testing.assert_equal(results[1:], results[:1] * 2)


def test_a_tying_to_begin_with_is_fitted_as_well(trained: Path, text_folder: Path) -> None:
    env, begun = make(trained, text_folder, 3), make(trained, text_folder, 3)
    env.trainer.tie(TYING)
    begun.reset(seed=0, options={"tying": TYING})
    assert torch.equal(logits(begun.trainer.network.model), logits(env.trainer.network.model))


def test_what_cannot_be_fitted_is_left_as_it_is(trained: Path, text_folder: Path) -> None:
    env = make(trained, text_folder, FULL + 2)  # more than a matrix has
    blocks: Any = env.trainer.network.blocks
    with torch.no_grad():
        blocks[2].mlp.c_fc.base_layer.weight[0, 0] = torch.nan
    deltas = blocks[2].mlp.c_fc.lora_A["default"].weight, blocks[3].mlp.c_fc.lora_A["default"].weight
    former = [delta.clone() for delta in deltas]
    env.trainer.tie(TYING)
    assert torch.equal(deltas[0], former[0])
    assert torch.equal(deltas[1][FULL:], former[1][FULL:]) and deltas[1][FULL:].any()
    assert not torch.equal(deltas[1][:FULL], former[1][:FULL])


def test_a_tying_that_fails_leaves_deltas_as_they_are(
    trained: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make(trained, text_folder, 2)
    before = {name: p.clone() for name, p in env.trainer.network.model.named_parameters()}
    tries = iter(range(5))

    def interrupted(*_: Any, **__: Any) -> None:
        if next(tries) == 4:
            raise KeyboardInterrupt
        return real(*_, **__)

    real = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", interrupted)
    with pytest.raises(KeyboardInterrupt):
        env.trainer.tie(TYING)
    assert env.trainer.tied.frozen
    for name, parameter in env.trainer.network.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_deltas_are_fitted_only_where_there_are_some(text_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"delta_init='svd' needs deltas, delta_rank of at least 1, got delta_rank=0"):
        LayerTyingEnv(**TINY | {"dataset": str(text_folder), "delta_init": "svd"})
    with pytest.raises(ValueError, match=r"delta_init must be one of 'zero', 'svd', got 'qr'"):
        LayerTyingEnv(**TINY | {"dataset": str(text_folder), "delta_rank": 2, "delta_init": "qr"})
