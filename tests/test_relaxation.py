"""Relaxed recursion: tied weights, and a low-rank delta of each layer's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.conftest import TINY
from tying_env.downstream import make_classifier
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied
from tying_env.runs import load_network, save_network
from tying_env.seeding import torch_stream


def settings(model: str, text_folder: Path) -> dict[str, Any]:
    if model == "vit":
        sizes = {key: value for key, value in TINY.items() if key not in ("tokenizer", "seq_len")}
        return sizes | {"model": "vit", "dataset": "digits"}
    return TINY | {"model": model, "dataset": str(text_folder)}


@pytest.mark.parametrize("model", ["gpt2", "llama", "bert", "vit"])
def test_tied_layers_share_their_matrices_and_keep_their_deltas(text_folder: Path, model: str, tmp_path: Path) -> None:
    chosen = settings(model, text_folder)
    plain, relaxed = LayerTyingEnv(**chosen), LayerTyingEnv(**chosen, delta_rank=2)
    plain.reset(seed=0)
    relaxed.reset(seed=0)
    loss, same = (env.evaluate("validation").mean_loss for env in (plain, relaxed))
    assert same == pytest.approx(loss, rel=1e-6)  # deltas begin at 0
    for action in ([0, 0, 2, 2], [0, 0, 0, 3]):
        relaxed.step(np.array(action))
    trainer = relaxed.trainer
    blocks = [dict(block.named_parameters()) for block in trainer.network.blocks]
    deltas = [name for name in blocks[0] if "lora_" in name]
    assert len(deltas) == 2 * sum(p.ndim == 2 for name, p in blocks[0].items() if "lora_" not in name)
    for name, parameter in blocks[0].items():
        assert (parameter is blocks[1][name]) == (name not in deltas)
        assert parameter is not blocks[3][name]
    moved = [not torch.equal(blocks[i][name], blocks[j][name]) for name in deltas for i, j in ((0, 1), (1, 2))]
    assert all(moved)
    state = relaxed.state_dict()
    twin = LayerTyingEnv(**chosen, delta_rank=2)
    twin.load_state_dict(state)
    np.testing.assert_equal(twin.step(np.array([0, 1, 0, 0])), relaxed.step(np.array([0, 1, 0, 0])))
    path = tmp_path / "network"
    save_network(path, trainer, relaxed.config, relaxed.workload.sizes)
    saved = load_network(path)
    expected = relaxed.evaluate("test", 4)
    assert relaxed.workload.evaluate(saved.network.model, "test", 4, relaxed.device) == expected
    with pytest.raises(TypeError, match="low-rank deltas of their own"):
        export_tied(relaxed, tmp_path / "tied")
    if model != "vit":
        with pytest.raises(ValueError, match="has low-rank deltas already"):
            make_classifier(path, "lora", torch_stream(0, "head"))
    dense = export_tied(relaxed, tmp_path / "dense", dense=True)
    opened = getattr(transformers, type(trainer.network.model).__name__).from_pretrained(dense)
    measured = relaxed.workload.evaluate(opened, "test", 4, relaxed.device)
    assert measured.mean_loss == pytest.approx(expected.mean_loss, rel=1e-5)


def test_a_checkpoint_fits_beside_deltas(text_folder: Path, tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=256, n_positions=16, n_embd=16, n_layer=4, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "gpt2")
    env = LayerTyingEnv(**settings("gpt2", text_folder), delta_rank=2, init_from=str(tmp_path / "gpt2"))
    env.reset(seed=0)
    ours: Any = env.trainer.network.model
    assert torch.equal(ours.transformer.h[3].mlp.c_fc.base_layer.weight, model.transformer.h[3].mlp.c_fc.weight)


def test_a_rank_below_zero_is_refused(text_folder: Path) -> None:
    with pytest.raises(ValueError, match="delta_rank must be at least 0, got -1"):
        LayerTyingEnv(**settings("gpt2", text_folder), delta_rank=-1)
