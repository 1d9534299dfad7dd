"""Reused attention in use: caches, padding, states, files, exports and commands."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.test_reused_attention import shake, tied
from tests.tiny_runs import tiny_run
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export, load_tied
from tying_env.runs import load_network, load_run, save_network


@torch.no_grad()
def test_cached_generation_is_uncached_generation(tiny: dict[str, Any]) -> None:
    env = tied(tiny)
    model: Any = env.trainer.network.model.eval()
    shake(env)
    ids = torch.arange(12).view(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])  # padded in front
    for way in ({"num_beams": 1}, {"num_beams": 3}):
        options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0} | way
        ours, plain = (model.generate(ids, use_cache=cache, **options) for cache in (True, False))
        assert torch.equal(ours, plain)
    whole = model(ids).logits
    past = model(ids[:, :2], use_cache=True).past_key_values
    several = model(ids[:, 2:5], past_key_values=past, use_cache=True)
    last = model(ids[:, 5:], past_key_values=several.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat([several.logits, last.logits], 1), whole[:, 2:])
    sizes = [(layer.keys.shape[-1], layer.values.shape[-1]) for layer in last.past_key_values.layers]
    assert sizes == [(8, 8), (1, 8), (8, 8), (1, 8)]  # followers keep their values


def test_padding_in_front_changes_nothing(tiny: dict[str, Any]) -> None:
    model: Any = tied(tiny).trainer.network.model.eval()
    ids, mask = torch.tensor([[9, 9, 1, 2, 3]]), torch.tensor([[0, 0, 1, 1, 1]])
    places = torch.tensor([[0, 0, 0, 1, 2]])
    padded = model(ids, attention_mask=mask, position_ids=places).logits
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[:, 2:], model(ids[:, 2:]).logits)


@pytest.mark.parametrize("choice", [{"units": "sublayers", "checkpoint_blocks": True}, {"frozen_weights": "redrawn"}])
def test_runs_are_resumed_and_forked_to_the_bit(tiny: dict[str, Any], choice: dict[str, Any]) -> None:
    made = tiny | {"attention": "reused"} | choice
    env, other = LayerTyingEnv(**made), LayerTyingEnv(**made)
    second = [0, 1, 2, 0] if choice.get("units") else []
    env.reset(seed=0)
    twins = [env.fork()]  # of the frozen start
    twins[0].step(np.array([0, 1, 0, 0, *second]))
    env.step(np.array([0, 1, 0, 0, *second]))
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    twins += [env, other, env.fork()]
    for tying in ([0, 0, 2, 0], [0, 1, 1, 3]):
        results = [twin.step(np.array([*tying, *second])) for twin in twins]
        np.testing.assert_equal(results[1:], [results[0]] * 3)
    plain = LayerTyingEnv(**made | {"attention": "own"})
    with pytest.raises(ValueError, match="attention"):
        plain.load_state_dict(env.state_dict())


@pytest.mark.parametrize("model", ["gpt2", "bert", "vit"])
def test_files_and_exports_predict_as_the_network_does(tiny: dict[str, Any], tmp_path: Path, model: str) -> None:
    env = tied(tiny, model, dtype="float32")
    shake(env)
    expected = pytest.approx(env.evaluate("validation").mean_loss, rel=1e-6)

    def loss(network: nn.Module) -> float:
        return env.workload.evaluate(network, "validation", 8, env.device).mean_loss

    save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
    assert loss(load_network(tmp_path / "network").network.model) == expected
    folder = export_tied(env, tmp_path / "tied")
    assert loss(load_tied(folder)) == expected
    assert loss(load_tied(folder, tied=False)) == expected
    assert loss(load_export(folder).model) == expected
    about = json.loads((folder / "tying.json").read_text())
    assert about["format"] == "tied model 2"  # so that an earlier version does not compute something else
    (folder / "tying.json").write_text(json.dumps(about | {"format": "tied model 1"}))
    assert loss(load_tied(folder)) != expected  # it is the format that says so
    assert "reuse the attention probabilities" in (folder / "README.md").read_text()
    with pytest.raises(TypeError, match=r"its tied layers reuse their leaders' attention .* a plain checkpoint would"):
        export_tied(env, tmp_path / "dense", dense=True)
    assert not (tmp_path / "dense").exists()


def test_commands_read_a_run_with_reused_attention(
    tmp_path: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tying_agents.commands import generate, prune

    from tying_env.compression import load_packed, pack_network

    path = tiny_run(tmp_path / "run", text_folder, attention="reused")
    run = load_run(path, "final")
    kept: Any = run.model.transformer._reused_attention  # type: ignore[union-attr]
    assert kept.sources == run.tying.tolist() == [0, 1, 1, 3]
    assert generate.main([str(path), "--prompt", "We", "--tokens", "3"]) == 0
    words = [str(path), "--out", str(tmp_path / "pruned"), "--examples", "4", "--windows", "4"]
    assert prune.main(words) == 0, capsys.readouterr().out
    assert load_export(tmp_path / "pruned").model.transformer._reused_attention.sources == [0, 1, 1, 3]  # type: ignore[union-attr]
    pack_network(run, tmp_path / "packed", 10**6, bits=8)
    packed: Any = load_packed(tmp_path / "packed")
    ids = torch.arange(10)[None]
    torch.testing.assert_close(packed(ids).logits, run.model(ids).logits, rtol=0.1, atol=0.02)
    assert packed.transformer._reused_attention.sources == [0, 1, 1, 3]
