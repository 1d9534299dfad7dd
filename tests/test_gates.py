"""Gates between layers: what the layers compute with, what is learned, and the controller that ties by it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.controllers.base import Context
from tying_agents.controllers.gates import Gates
from tying_agents.controllers.view import View
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import run
from tying_agents.settings import GatesConfig

from tests.conftest import TINY
from tests.models import Mixed, own
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.budget import BudgetSpent
from tying_env.env import LayerTyingEnv
from tying_env.primary.gates import train_gates

pytestmark = pytest.mark.usefixtures("short_text")

LONG: dict[str, Any] = TINY | {"total_steps": 80, "freeze_at_start": False, "dropout": 0.0}


def begun(tying: Any = (0, 1, 2, 3), **settings: Any) -> LayerTyingEnv:
    env = LayerTyingEnv(**LONG | settings)
    env.reset(seed=0, options={"tying": np.array(tying)})
    return env


def test_a_step_of_the_gates_is_that_of_the_mixed_network_written_out() -> None:
    """Against copies of the network whose layers hold the mixtures: the gate's gradient by finite differences."""
    env = begun()
    batch = next(iter(env.workload.batches_of("train", 4)))
    rate, eye = 1e-3, np.eye(4)
    others = np.maximum(np.tril(np.ones((4, 4))).sum(1) - 1, 1)
    start = np.where(eye == 1, np.log(others)[:, None], 0.0)

    def loss(logits: Any) -> float:
        mixture = np.exp(np.where(np.tril(np.ones((4, 4))) == 1, logits, -np.inf))
        mixture /= mixture.sum(1, keepdims=True)
        model: Any = copy.deepcopy(env.trainer.network.model).double()
        sources = [dict(block.named_parameters()) for block in copy.deepcopy(model).transformer.h]
        with torch.no_grad():
            for i, block in enumerate(model.transformer.h):
                for name, parameter in block.named_parameters():
                    parameter.copy_(sum(mixture[i, j] * sources[j][name] for j in range(i + 1)))
        windows = torch.from_numpy(np.array(batch, dtype=np.int64))
        with torch.no_grad():
            logits = model(windows[:, :-1]).logits
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))

    # Adam's first step is as long as its rate, against the gradient's sign.
    found = train_gates(env.fork().trainer, [batch], [1.0], rate, 1.0)
    step = np.log(found / np.diag(found)[:, None], where=np.tril(found) > 0, out=np.full((4, 4), np.nan))
    expected = start - np.diag(start)[:, None]
    moved = np.round((step - expected) / rate)  # of each gate beside its layer's own: -2, 0 or 2 steps
    for i in range(1, 4):
        slopes = []
        for j in range(i + 1):
            shifted = [start + sign * 1e-4 * np.outer(eye[i], eye[j]) for sign in (1, -1)]
            slopes.append((loss(shifted[0]) - loss(shifted[1])) / 2e-4)
        assert moved[i, : i + 1].tolist() == [-np.sign(s) + np.sign(slopes[i]) for s in slopes]
    assert (found[np.triu_indices(4, 1)] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(np.diag(found), [1, 0.5, 0.5, 0.5], atol=1e-3)


def test_a_layer_whose_own_weights_are_bad_uses_anothers() -> None:
    env = begun(total_steps=400, learning_rate=1e-2)
    for _ in range(50):
        env.step(np.arange(4))
    sound = env.mixing_weights(20, gate_learning_rate=0.2, temperature=0.5)
    blocks: Any = env.trainer.network.blocks
    with torch.no_grad():
        for name, parameter in blocks[3].named_parameters():
            if parameter.ndim > 1 and "c_proj" in name:
                parameter.normal_(0, 3, generator=torch.Generator())
    mixing = env.mixing_weights(20, gate_learning_rate=0.2, temperature=0.5)
    assert sound[3, 3] > 0.5 > 0.1 > mixing[3, 3]


def test_nothing_of_the_environment_changes() -> None:
    env, twin = begun((0, 1, 1, 3)), begun((0, 1, 1, 3))
    first = env.mixing_weights(3)
    np.testing.assert_equal(env.mixing_weights(3), first)
    for _ in range(2):
        np.testing.assert_equal(env.step(np.array([0, 0, 2, 3])), twin.step(np.array([0, 0, 2, 3])))


def test_layers_of_other_kinds_are_not_mixed() -> None:
    env = own(Mixed(), unequal_blocks="within-kind", freeze_at_start=False)
    env.reset(seed=0)
    mixing, kinds = env.mixing_weights(2), env.kinds.lowest
    assert ((mixing > 0) == np.tril(kinds[:, None] == kinds[None, :])).all()


def test_the_run_pays_and_trains_with_the_groups_found() -> None:
    env = LayerTyingEnv(**LONG)
    loop = drive_agent("gates", env, settings=GatesConfig(groups=2, share=0.25), seed=0)
    assert env.trial_steps == 20 and env.train_step == 60 and loop.finished
    again = begun()
    mixing = again.mixing_weights(20)
    together = {pair: mixing[pair] for pair in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))}
    nearest = max(together, key=lambda pair: together[pair])
    assert env.tying[nearest[0]] == env.tying[nearest[1]] and len(set(env.tying.tolist())) == 2


def test_a_stopped_run_ends_with_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    config: dict[str, Any] = {"agent": "gates", "controller": GatesConfig(groups=2)}
    tiny = tiny | {"total_steps": 40}
    expected = outcome(finish(small(tiny, tmp_path / "whole", **config)))
    path = tmp_path / "stopped"
    watcher = Watcher(lambda n: interrupt() if n == 2 else None)
    assert run(small(tiny, path, **config), [watcher])[1] == "interrupted"
    resume_until_it_ends(path)
    assert outcome(path) == expected


def test_what_cannot_be_is_named() -> None:
    env = begun()
    for settings, message in (
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 1, "temperature": 0.0}, r"temperature must be in \(0, 1\], got 0.0"),
        ({"steps": 1, "gate_learning_rate": -1.0}, "gate_learning_rate must be a finite number above 0, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            env.mixing_weights(**settings)
    with pytest.raises(ValueError, match="mixing_weights needs replication='tied', got 'copied'"):
        begun(replication="copied").mixing_weights(1)
    with torch.no_grad():
        env.trainer.network.model.get_parameter("lm_head.weight").fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="a network with mixed layers has diverged: its loss is nan"):
        env.mixing_weights(2)
    controller = Gates(GatesConfig(share=0.99), Context(4, seed=0))
    controller.bind(View(begun()))
    with pytest.raises(BudgetSpent):
        controller.act(np.arange(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": -1}, "groups must be at least 0, got -1"),
        ({"groups": 5}, "groups must be at most the number of layers, 4, got 5"),
        ({"share": 1.0}, r"share must be in \(0, 1\), got 1.0"),
        ({"temperature": 2.0}, r"temperature must be in \(0, 1\], got 2.0"),
        ({"gate_learning_rate": 0.0}, "gate_learning_rate must be a finite number above 0, got 0.0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gates(GatesConfig(**settings), Context(4, seed=0))
