"""The limit on bytes: what a network takes, whatever is tied, and what is beyond the limit off the reward."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.pytorch_utils import Conv1D
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY, Make
from tests.models import own
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.owned import owned_parameters
from tying_env.runs.run_directory import SUMMARY
from tying_env.wrappers import LogPerplexityReward, MaxBytesReward


def bytes_of(env: LayerTyingEnv, bits: int) -> int:
    """Count every weight that the network under training holds, once."""
    total = 0
    for name, parameter in owned_parameters(env.trainer.network, env.trainer.tied):
        module = env.trainer.network.model.get_submodule(name.rpartition(".")[0])
        if parameter.ndim < 2:
            total += 2 * parameter.numel()
        else:
            outputs = parameter.shape[1] if isinstance(module, Conv1D) else parameter.shape[0]
            total += parameter.numel() * bits // 8 + 2 * outputs
    return total


SETTINGS: dict[str, dict[str, Any]] = {
    "blocks": {},
    "sublayers": {"units": "sublayers"},
    "matrices": {"tied_parameters": "matrices"},
    "deltas": {"delta_rank": 2},
    "leader's gradient": {"gradient": "leader"},
    "copied": {"replication": "copied"},
    "redrawn": {"frozen_weights": "redrawn"},
    "bert": {"model": "bert"},
    "factorised": {"embedding_dim": 8},
}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("bits", [8, 4])
def test_bytes_are_those_of_the_weights_that_the_network_holds(make: Make, kind: str, bits: int) -> None:
    env = MaxBytesReward(make(**SETTINGS[kind]), bits=bits)
    below = env.unwrapped
    assert isinstance(below, LayerTyingEnv)
    env.reset(seed=0)
    for action in ([0, 0, 1, 0], [0, 1, 1, 3]):
        _, _, _, _, info = env.step(np.array(action * (2 if kind == "sublayers" else 1)))
        assert info["packed_bytes"] == bytes_of(below, bits)
    if kind != "redrawn":  # counting holds the weights that are drawn again
        assert env.reset(seed=0)[1]["packed_bytes"] == bytes_of(below, bits)


def test_networks_of_ones_own_have_a_limit_too() -> None:
    below = own()
    env = MaxBytesReward(below)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.zeros(below.n_units, dtype=np.int64))
    assert info["packed_bytes"] == bytes_of(below, 8)


def test_only_what_is_beyond_the_limit_is_taken_off(make: Make) -> None:
    env = MaxBytesReward(LogPerplexityReward(make()), max_bytes=10_000, weight=3.0)
    plain = LogPerplexityReward(make())
    env.reset(seed=0)
    plain.reset(seed=0)
    found = []
    for action in ([0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 3]):
        _, reward, _, _, info = env.step(np.array(action))
        found.append((info["packed_bytes"], plain.step(np.array(action))[1] - float(reward)))
    # By hand: 4,960 outside the blocks and 3,776 a block (width 16, bytes).
    sizes = [4960 + 3776 * groups for groups in (1, 2, 4)]
    assert found == [(size, pytest.approx(3.0 * max(0.0, size / 10_000 - 1))) for size in sizes]


@pytest.mark.parametrize(
    ("settings", "wrong", "message"),
    [
        ({}, {"max_bytes": 8_735}, "max_bytes is 8,735, and with all layers tied the network takes 8,736 in 8 bits"),
        ({"units": "sublayers"}, {"max_bytes": 8_735}, "takes 8,736 in 8 bits"),
        ({"replication": "copied"}, {"max_bytes": 8_736}, "layers that are copied and not tied take 20,064 in 8 bits"),
        ({}, {"max_bytes": 0}, "max_bytes must be"),
        ({}, {"bits": 5}, "bits must be one of 8, 6, 4, got 5"),
        ({}, {"weight": -1}, "weight must be at least 0, got -1"),
    ],
)
def test_a_limit_that_nothing_meets_is_refused(
    make: Make, settings: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MaxBytesReward(make(**settings), **wrong)
    MaxBytesReward(make(), max_bytes=8_736)


def test_a_run_has_its_settings_and_writes_the_bytes_down(text_folder: Path, tmp_path: Path) -> None:
    env = EnvConfig(**TINY | {"dataset": str(text_folder), "total_steps": 8})
    about: dict[str, Any] = {"rewards": ("max-bytes",), "max_bytes_bits": 4, "max_bytes_penalty": 2.0}
    folder, _ = run(RunConfig("albert", run_dir=tmp_path / "run", env=env, max_bytes=6_000, **about))
    below = LayerTyingEnv(**TINY | {"dataset": str(text_folder)})
    below.reset(seed=0, options={"tying": [0, 0, 0, 0]})
    size = bytes_of(below, 4)
    assert {record["packed_bytes"] for record in folder.read_metrics()} == {size} and size < 6_000
    packed = folder.read_json(SUMMARY)["packed"]  # of the best network
    sizes = {str(bits): bytes_of(below, bits) for bits in (8, 6, 4)}
    assert packed == {"bits": 4, "bytes": size, "bytes_by_bits": sizes} and sizes["4"] == size
    with pytest.raises(
        ValueError, match=f"max_bytes is 5,000, and with all layers tied the network takes {size:,} in 4"
    ):
        run(RunConfig("albert", run_dir=tmp_path / "no", env=env, max_bytes=5_000, **about))
    assert not (tmp_path / "no").exists()


def test_it_is_a_reward_of_the_command_line() -> None:
    assert RunConfig(rewards=("max-bytes",)).rewards == ("max-bytes",)
    with pytest.raises(ValueError, match="'log-perplexity' needs a perplexity below it, not 'max-bytes'"):
        RunConfig(rewards=("max-bytes", "log-perplexity"))
