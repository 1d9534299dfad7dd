"""Buffers that training changes, such as BatchNorm's running means, go wherever a network's weights go."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load, save
from torch import Tensor, nn

from tests.models import squares
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.files import to_json
from tying_env.runs import load_network, save_network
from tying_env.runs.network_file import _seal
from tying_env.runs.state_tree import join, part

MEAN, COUNT = "layers.1.1.running_mean", "layers.1.1.num_batches_tracked"
TIED = np.array([0, 1, 1])


class Normed(nn.Module):
    """Blocks with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def make() -> LayerTyingEnv:
    x = torch.randn((40, 4), generator=torch.Generator().manual_seed(0)) * 3 + 5
    settings: dict[str, Any] = {"batches": (x, x.flip(1)), "validation": (x, x.flip(1)), "loss": squares}
    return LayerTyingEnv(model=Normed, total_steps=40, k=4, learning_rate=0.01, device="cpu", **settings)


@pytest.fixture
def env() -> LayerTyingEnv:
    env = make()
    env.reset(seed=0)
    env.step(TIED)
    return env


def as_files(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state that went through a checkpoint's two files."""
    plain, tensors = part(state)
    restored = join(json.loads(to_json(plain)), load(save(tensors)))
    assert isinstance(restored, dict)
    return restored


def test_a_fork_and_a_restored_environment_measure_and_continue_alike(env: LayerTyingEnv) -> None:
    assert env.trainer.network.model.get_buffer(COUNT) == 8  # the frozen start and the step
    restored = make()
    restored.load_state_dict(as_files(env.state_dict()))
    twins = [env.fork(), restored]
    measured = env.evaluate("validation")
    assert [twin.evaluate("validation") for twin in twins] == [measured, measured]
    expected = env.step(TIED)
    np.testing.assert_equal([twin.step(TIED) for twin in twins], [expected, expected])
    assert twins[0].trainer.network.model.get_buffer(COUNT) == 12


def test_layers_that_are_tied_keep_statistics_of_their_own(env: LayerTyingEnv) -> None:
    one, two = (env.trainer.network.model.get_buffer(f"layers.{i}.1.running_mean") for i in (1, 2))
    assert not torch.equal(one, two)


def test_a_saved_network_measures_alike(env: LayerTyingEnv, tmp_path: Path) -> None:
    save_network(tmp_path / "net", env.trainer, env.config, env.workload.sizes)
    model = load_network(tmp_path / "net", workload=env.workload).network.model
    assert env.workload.evaluate(model, "validation", 0, env.device) == env.evaluate("validation", 0)
    assert model.get_buffer(COUNT).dtype == torch.int64


CHANGES: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (lambda tensors: tensors.pop(MEAN), f"lacks the tensor '{MEAN}'"),
    (lambda tensors: tensors.update({MEAN: torch.ones(9)}), rf"has '{MEAN}' of shape \(9,\), expected \(4,\)"),
    (lambda tensors: tensors.update({COUNT: torch.tensor(1.0)}), f"has '{COUNT}' in torch.float32, expected"),
    (lambda tensors: tensors.update({"layers.1.1.more": torch.ones(1)}), "has an unexpected tensor"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_buffers_that_do_not_fit_are_refused(env: LayerTyingEnv, tmp_path: Path, change: Any, message: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    state = env.state_dict()
    change(state["trainer"]["weights"])
    before = env.evaluate("validation")
    with pytest.raises(ValueError, match=message):
        env.load_state_dict(state)
    assert env.evaluate("validation") == before
    path = tmp_path / "net"
    save_network(path, env.trainer, env.config, env.workload.sizes)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["tying_env"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    about.pop("sha256")
    save_file(tensors, path, metadata={"tying_env": to_json(about | {"sha256": _seal(about, tensors)})})
    with pytest.raises(ValueError, match=message):
        load_network(path, workload=env.workload)


def test_a_model_without_such_buffers_has_none_in_its_state() -> None:
    config = transformers.GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    tokens = {"input_ids": np.zeros((4, 8), dtype=np.int64), "labels": np.zeros((4, 8), dtype=np.int64)}
    env = LayerTyingEnv(model=lambda: transformers.GPT2LMHeadModel(config), batches=tokens, device="cpu")
    env.reset(seed=0)
    assert set(env.state_dict()["trainer"]["weights"]) == dict(env.trainer.named_parameters()).keys()


def test_exports_have_the_buffers_of_every_layer(tmp_path: Path) -> None:
    config = transformers.PatchTSTConfig(
        num_input_channels=1,
        context_length=16,
        patch_length=4,
        patch_stride=4,
        prediction_length=2,
        num_hidden_layers=3,
        d_model=8,
        num_attention_heads=2,
        ffn_dim=8,
        norm_type="batchnorm",
    )
    values = torch.randn((20, 18, 1), generator=torch.Generator().manual_seed(0)) * 3
    batches = {"past_values": values[:, :16], "future_values": values[:, 16:]}
    env = LayerTyingEnv(
        model=lambda: transformers.PatchTSTForPrediction(config), batches=batches, k=3, total_steps=20, device="cpu"
    )
    env.reset(seed=0)
    env.step(TIED)
    mine = env.trainer.network.model.eval()
    assert any("num_batches_tracked" in name for name in mine.state_dict())
    opened: list[Any] = [load_tied(export_tied(env, tmp_path / "tied"))]
    opened.append(transformers.PatchTSTForPrediction.from_pretrained(export_tied(env, tmp_path / "dense", dense=True)))
    for model in opened:
        assert model.state_dict().keys() == mine.state_dict().keys()
        for name, tensor in mine.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
        expected = mine(past_values=values[:, :16]).prediction_outputs
        assert torch.equal(model.eval()(past_values=values[:, :16]).prediction_outputs, expected)
