"""Tying of matrices alone: norms and biases stay every layer's own, in training, files and exports."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run

from tests.models import Mixed, own
from tests.reliability.runs import Watcher, interrupt, outcome
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.runs import load_network, save_network

MATRICES: dict[str, Any] = {"tied_parameters": "matrices"}


def trained(tiny: dict[str, Any], **more: Any) -> LayerTyingEnv:
    env = LayerTyingEnv(**tiny | MATRICES | {"learning_rate": 1e-2} | more)
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 1]))
    env.step(np.array([0, 0, 2, 0]))
    return env


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_vectors_are_every_layers_own_and_matrices_are_tied(tiny: dict[str, Any], gradient: str) -> None:
    env = trained(tiny, gradient=gradient)
    first, tied = (dict(env.trainer.network.blocks[i].named_parameters()) for i in (0, 3))
    for name, p in first.items():
        if p.ndim > 1:
            assert p.data_ptr() == tied[name].data_ptr()
        else:
            assert p.data_ptr() != tied[name].data_ptr()
            assert not torch.equal(p, tied[name]), name
    own_vectors = sum(p.numel() for name, p in first.items() if p.ndim == 1)
    block = sum(p.numel() for p in first.values())
    outside = env.trainer.count_conventional() - 4 * block
    assert env.trainer.count_trainable() == outside + 2 * block + 2 * own_vectors


def test_vectors_of_frozen_layers_train(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | MATRICES)
    env.reset(seed=0)
    before = {name: p.detach().clone() for name, p in env.trainer.network.blocks[2].named_parameters()}
    env.trainer.train(2)
    for name, p in env.trainer.network.blocks[2].named_parameters():
        assert torch.equal(p, before[name]) == (p.ndim > 1), name


def test_a_file_a_fork_and_an_export_keep_them(tiny: dict[str, Any], tmp_path: Path) -> None:
    env = trained(tiny)
    expected = env.evaluate("validation").mean_loss
    save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
    for model in (load_network(tmp_path / "network").network.model, load_tied(export_tied(env, tmp_path / "tied"))):
        assert env.workload.evaluate(model, "validation", 8, env.device).mean_loss == pytest.approx(expected, rel=1e-6)
    other = LayerTyingEnv(**tiny | MATRICES | {"learning_rate": 1e-2})
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    fork, action = env.fork(), np.array([0, 1, 1, 0])
    result = env.step(action)
    np.testing.assert_equal([other.step(action), fork.step(action)], [result, result])


def test_networks_of_ones_own_tie_their_matrices() -> None:
    env = own(Mixed((4, 4)), **MATRICES)
    env.reset(seed=0)
    env.step(np.array([0, 0]))
    for name, p in env.trainer.network.blocks[0].named_parameters():
        same = p.data_ptr() == env.trainer.network.blocks[1].get_parameter(name).data_ptr()
        assert same == (p.ndim > 1)


def test_blocks_without_matrices_are_refused_and_so_is_redrawing() -> None:
    with pytest.raises(ValueError, match=r"frozen_weights must be 'held' .* tied_parameters='matrices'"):
        EnvConfig(frozen_weights="redrawn", **MATRICES)
    with pytest.raises(ValueError, match="tied_parameters must be one of 'all', 'matrices', got 'norms'"):
        EnvConfig(tied_parameters="norms")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "choice",
    [{"optimizer": "muon", "schedule": "wsd"}, {"optimizer": "sgd", "schedule": "linear", "units": "sublayers"}],
    ids=str,
)
def test_a_run_that_was_stopped_is_resumed_to_the_same_bits(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, choice: dict[str, Any]
) -> None:
    env = EnvConfig(**tiny | MATRICES | {"dataset": str(text_folder), "warmup_steps": 3} | choice)
    paths, stopped = [], Watcher(lambda decision: interrupt() if decision == 4 else None)
    for name, watcher in (("whole", Watcher()), ("part", stopped)):
        config = RunConfig("random", 1, run_dir=tmp_path / name, env=env, checkpoint_every=2, test_windows=2)
        directory, status = run(config, [watcher])
        paths.append(directory.path)
    assert status == "interrupted"
    assert resume(paths[1], [Watcher()])[1] == "finished"
    assert outcome(paths[1]) == outcome(paths[0])
