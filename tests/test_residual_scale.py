"""Residual branches scaled by the size of a layer's group, or by the depth: the sum, the ramp, files and exports."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied
from tying_env.runs import load_network, save_network

VIT: dict[str, Any] = {key: value for key, value in TINY.items() if key not in ("tokenizer", "seq_len")} | {
    "model": "vit",
    "dataset": "digits",
    "batch_size": 8,
}
# Whose output is added to the residual stream first; ViT's has both branches' outputs.
FIRST_BRANCH = {"gpt2": "attn.resid_dropout", "bert": "attention.output.dropout", "vit": "dropout"}


def settings(model: str, tiny: dict[str, Any]) -> dict[str, Any]:
    return VIT if model == "vit" else tiny | {"model": model}


def branches(env: LayerTyingEnv, layer: int) -> list[Any]:
    """What the layer adds to its input: in the network as it is, and with a scale of 1."""
    block = env.trainer.network.blocks[layer].eval()
    x = torch.randn(2, 5, env.config.n_embd, generator=torch.Generator().manual_seed(0))
    outputs = []
    for value in (None, 1.0):
        for name, buffer in block.named_buffers():
            if value is not None and name.endswith("residual_scale"):
                buffer.fill_(value)
        attended = []
        module = block.get_submodule(FIRST_BRANCH[env.config.model])
        hook = module.register_forward_hook(lambda _m, _i, out, seen=attended: seen.append(out.detach().clone()))
        with torch.no_grad():
            block(x)
        hook.remove()
        outputs.append(attended)
    return outputs


@pytest.mark.parametrize("model", ["gpt2", "bert", "vit"])
@pytest.mark.parametrize(("rule", "scales"), [("sqrt", [3**-0.5, 1.0]), ("depth-linear", [1 / 4, 1 / 4])])
def test_branches_are_multiplied_by_the_scale(tiny: dict[str, Any], model: str, rule: str, scales: list[float]) -> None:
    env = LayerTyingEnv(**settings(model, tiny) | {"residual_scale": rule})
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    for layer, scale in ((3, scales[0]), (2, scales[1])):
        ours, plain = branches(env, layer)
        assert len(ours) == len(plain) == (2 if model == "vit" else 1)
        torch.testing.assert_close(ours[0], plain[0] * scale)


def test_scales_ramp_after_a_change_and_nothing_jumps(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"residual_scale": "linear", "residual_ramp": 4})
    env.reset(seed=0)
    assert env.trainer.residual.values == [1.0] * 4  # at the frozen start every layer has weights of its own
    env.trainer.train(1)
    env.trainer.tie([0, 0, 0, 3])
    assert env.trainer.residual.values == [1.0] * 4
    third = 1 / 3
    for step in (1, 2):
        env.trainer.train(1)
        expected = 1 + (third - 1) * step / 4
        assert env.trainer.residual.values == pytest.approx([expected] * 3 + [1.0])
    env.trainer.tie([0, 0, 0, 3])  # no change: the ramp goes on
    env.trainer.train(2)
    assert env.trainer.residual.values == [third] * 3 + [1.0]
    buffers = [b.item() for name, b in env.trainer.network.model.named_buffers() if name.endswith("residual_scale")]
    assert buffers == pytest.approx([third] * 6 + [1.0] * 2)
    env.trainer.tie([0, 1, 1, 1])  # from where they are
    env.trainer.train(1)
    assert env.trainer.residual.values == pytest.approx([third + (1 - third) / 4, third, third, 1 + (third - 1) / 4])


def test_without_a_ramp_scales_change_at_once(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"residual_scale": "sqrt", "residual_ramp": 0})
    env.reset(seed=0)
    env.trainer.tie([0, 0, 0, 0])
    assert env.trainer.residual.values == [0.5] * 4


def test_a_scale_by_depth_does_not_depend_on_the_tying(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"residual_scale": "depth-sqrt"})
    env.reset(seed=0)
    for tying in ([0, 0, 0, 0], [0, 1, 2, 3]):
        env.step(np.array(tying))
        assert env.trainer.residual.values == [0.5] * 4


@pytest.mark.parametrize("choice", [{}, {"frozen_weights": "redrawn"}, {"checkpoint_blocks": True}])
def test_a_run_is_resumed_and_forked_in_the_middle_of_a_ramp(tiny: dict[str, Any], choice: Any) -> None:
    made = tiny | {"residual_scale": "sqrt", "residual_ramp": 3} | choice
    env, other = LayerTyingEnv(**made), LayerTyingEnv(**made)
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 0]))
    assert env.trainer.residual.steps_left == 1
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    twins = [env, other, env.fork()]
    for tying in ([0, 0, 2, 0], [0, 1, 1, 3]):
        results = [twin.step(np.array(tying)) for twin in twins]
        np.testing.assert_equal(results[1:], [results[0]] * 2)
    assert all(twin.trainer.residual.values == env.trainer.residual.values for twin in twins)
    state = env.state_dict()
    state["trainer"]["residual"]["values"] = [2.0] * 4
    with pytest.raises(ValueError, match="residual scales must be 4 from 0 to 1"):
        other.load_state_dict(state)


@pytest.mark.parametrize("model", ["gpt2", "llama", "bert", "vit"])
def test_files_and_dense_exports_predict_as_the_network_does(tiny: dict[str, Any], tmp_path: Path, model: str) -> None:
    env = LayerTyingEnv(**settings(model, tiny) | {"residual_scale": "linear", "residual_ramp": 3})
    env.reset(seed=0)
    env.step(np.array([0, 0, 0, 3]))
    expected = env.evaluate("validation").mean_loss
    save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
    saved = load_network(tmp_path / "network").network.model
    assert env.workload.evaluate(saved, "validation", 8, env.device).mean_loss == pytest.approx(expected, rel=1e-6)
    with pytest.raises(TypeError, match=r"its residual branches are scaled .* export it with dense=True"):
        export_tied(env, tmp_path / "tied")
    folder = export_tied(env, tmp_path / "dense", dense=True)
    opened = type(env.trainer.network.model).from_pretrained(folder)  # type: ignore[attr-defined]
    assert env.workload.evaluate(opened, "validation", 8, env.device).mean_loss == pytest.approx(expected, rel=1e-5)


def test_without_a_scale_the_network_is_as_before(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny)
    env.reset(seed=0)
    assert not any("residual_scale" in name for name, _ in env.trainer.network.model.named_buffers())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_scale": "cube"}, "residual_scale must be one of 'none', 'sqrt', 'linear', 'depth-sqrt'"),
        ({"residual_scale": "sqrt", "residual_ramp": -1}, "residual_ramp must be at least 0, got -1"),
        ({"residual_ramp": 3}, "residual_ramp applies only to residual_scale 'sqrt' and 'linear': leave it out, got 3"),
        ({"model": "custom", "residual_scale": "sqrt"}, "residual_scale does not apply to the model 'custom'"),
    ],
)
def test_scales_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EnvConfig(), **changes)
