"""Universal Transformers in use: states, caches, files, exports and commands."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tests.test_universal import TYING, UNIVERSAL, made
from tests.tiny_runs import tiny_run
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export, load_tied
from tying_env.runs import load_network, load_run, save_network


@torch.no_grad()
def test_cached_generation_is_uncached_generation(tiny: dict[str, Any]) -> None:
    model: Any = made(tiny).trainer.network.model.eval()
    ids, mask = torch.arange(12).view(2, 6), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])  # padded in front
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    ours, plain = (model.generate(ids, use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(ours, plain)
    whole = model(ids).logits
    past = model(ids[:, :2], use_cache=True).past_key_values
    rest = model(ids[:, 2:], past_key_values=past, use_cache=True).logits
    torch.testing.assert_close(rest, whole[:, 2:])
    assert len(model(ids, return_dict=False)[0]) == 2


@pytest.mark.parametrize(
    "choice",
    [
        {"units": "sublayers", "checkpoint_blocks": True, "dropout": 0.1},
        {"frozen_weights": "redrawn", "attention": "reused"},
        {"delta_rank": 2, "residual_scale": "sqrt", "dtype": "bfloat16", "step_embedding": "sinusoidal"},
    ],
    ids=str,
)
def test_runs_are_resumed_and_forked_to_the_bit(tiny: dict[str, Any], choice: dict[str, Any]) -> None:
    settings = tiny | UNIVERSAL | choice
    env, other = LayerTyingEnv(**settings), LayerTyingEnv(**settings)
    second = [0, 1, 2, 0] if choice.get("units") else []
    env.reset(seed=0)
    twins = [env.fork()]  # of the frozen start
    twins[0].step(np.array([0, 1, 0, 0, *second]))
    env.step(np.array([0, 1, 0, 0, *second]))
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    results = [twin.step(np.array([*TYING, *second])) for twin in (*twins, env, other)]
    np.testing.assert_equal(results[1:], [results[0]] * 2)


def test_blocks_computed_again_and_batches_in_parts_train_alike(tiny: dict[str, Any]) -> None:
    losses = []
    for settings in ({}, {"checkpoint_blocks": True}, {"accumulate": 2}):
        env = made(tiny, **settings)
        losses.append([env.step(np.array(TYING))[4]["train_loss"] for _ in range(2)])
    assert losses[0] == losses[1] == pytest.approx(losses[2])


def test_a_state_of_another_network_is_refused(tiny: dict[str, Any]) -> None:
    env, plain = made(tiny), LayerTyingEnv(**tiny | {"dtype": "float64", "dropout": 0.0})
    with pytest.raises(ValueError, match=r"step_embedding|adaptive_halting"):
        plain.load_state_dict(env.state_dict())


@pytest.mark.parametrize("choice", [{}, {"attention": "reused", "step_embedding": "sinusoidal"}], ids=str)
def test_files_and_exports_predict_as_the_network_does(
    tiny: dict[str, Any], tmp_path: Path, choice: dict[str, Any]
) -> None:
    env = made(tiny, dtype="float32", **choice)
    expected = pytest.approx(env.evaluate("validation").mean_loss, rel=1e-6)

    def loss(network: nn.Module) -> float:
        return env.workload.evaluate(network, "validation", 8, env.device).mean_loss

    save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
    assert loss(load_network(tmp_path / "network").network.model) == expected
    folder = export_tied(env, tmp_path / "tied")
    assert loss(load_tied(folder)) == loss(load_tied(folder, tied=False)) == loss(load_export(folder).model) == expected
    assert "adaptive_halting=True" in (folder / "README.md").read_text()
    about = json.loads((folder / "tying.json").read_text())
    assert about["format"] == "tied model 3"  # so that an earlier version does not compute something else
    for wrong, message in (
        ({"additions": {"n_layer": 3}}, "additions must be of embedding_dim, step_embedding, .*, got 'n_layer'"),
        ({"additions": {"step_embedding": 3}}, "step_embedding must be one of"),
        ({"attention": "none"}, "is of the format 'tied model 3'"),
    ):
        (folder / "tying.json").write_text(json.dumps(about | wrong))
        with pytest.raises(ValueError, match=message):
            load_tied(folder)
    with pytest.raises(TypeError, match=r"reuse their leaders|adaptive_halting is no part of a plain"):
        export_tied(env, tmp_path / "dense", dense=True)
    assert not (tmp_path / "dense").exists()


@pytest.mark.parametrize("choice", [{"step_embedding": "sinusoidal"}, {"residual_scale": "linear"}], ids=str)
def test_steps_become_a_part_of_a_plain_checkpoint(
    tiny: dict[str, Any], tmp_path: Path, choice: dict[str, Any]
) -> None:
    env = made(tiny, adaptive_halting=False, dtype="float32", **choice)
    folder = export_tied(env, tmp_path / "dense", dense=True)
    opened = transformers.GPT2LMHeadModel.from_pretrained(folder)
    assert not hasattr(opened.transformer, "step_embedding")
    measured = env.workload.evaluate(opened, "validation", 8, env.device).mean_loss
    assert measured == pytest.approx(env.evaluate("validation").mean_loss, rel=1e-5)


def test_a_checkpoint_starts_one(tiny: dict[str, Any], tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=256, n_positions=16, n_embd=16, n_layer=4, n_head=2)
    source: Any = transformers.GPT2LMHeadModel(config)
    source.save_pretrained(tmp_path / "gpt2")
    env = LayerTyingEnv(**tiny | UNIVERSAL | {"init_from": str(tmp_path / "gpt2")})
    env.reset(seed=0)
    model: Any = env.trainer.network.model
    assert torch.equal(model.transformer.h[3].mlp.c_fc.weight, source.transformer.h[3].mlp.c_fc.weight)
    assert model.transformer.halting.unit.bias.item() == 1


def test_commands_read_a_run_of_one(tmp_path: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tying_agents.commands import generate

    from tying_env.compression import load_packed, pack_network
    from tying_env.downstream import make_classifier
    from tying_env.seeding import torch_stream

    path = tiny_run(tmp_path / "run", text_folder, **UNIVERSAL)
    run = load_run(path, "final")
    assert generate.main([str(path), "--prompt", "We", "--tokens", "3"]) == 0, capsys.readouterr().out
    pack_network(run, tmp_path / "packed", 10**6, bits=8)
    packed: Any = load_packed(tmp_path / "packed")
    ids = torch.arange(10)[None]
    torch.testing.assert_close(packed(ids).logits, run.model(ids).logits, rtol=0.1, atol=0.02)
    classifier = make_classifier(run.saved, "full", torch_stream(0, "head"))
    assert classifier(ids, torch.ones_like(ids)).shape == (1, 2)
