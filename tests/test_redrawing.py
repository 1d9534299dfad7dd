"""Frozen layers that draw their initial values again train exactly as those that hold them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.redrawing import InitialisationRecorder
from tying_env.tied_blocks import TiedBlocks


def test_redrawn_and_held_frozen_layers_train_with_the_same_bits(tiny: dict[str, Any]) -> None:
    episodes = []
    for checkpointed in (False, True):
        for frozen_weights in ("held", "redrawn"):
            choices = {"frozen_weights": frozen_weights, "checkpoint_blocks": checkpointed, "dropout": 0.2}
            env = LayerTyingEnv(**tiny | choices)
            env.reset(seed=3)
            frozen = env.trainer.train(2)
            steps = [env.step(np.array(action))[1] for action in ([0, 0, 2, 1], [0, 1, 2, 3])]
            weights = env.trainer.state_dict()["weights"]
            episodes.append((frozen, steps, {name: value.tolist() for name, value in weights.items()}))
    assert episodes[0] == episodes[1] == episodes[2] == episodes[3]


def test_redrawn_layers_hold_neither_weights_nor_gradients_nor_state_until_they_lead(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn"})
    env.reset(seed=0)
    env.trainer.train(1)
    trained = env.trainer.count_trainable()  # layer 0 and what lies outside the blocks
    assert env.trainer.memory_in_training == (4 * trained, 4 * trained, 8 * trained)
    block = sum(p.numel() for p in env.trainer.network.blocks[0].parameters())
    assert env.trainer.count_conventional() == trained + 3 * block  # their shapes are known all the same
    env.step(np.array([0, 0, 2, 0]))
    held = env.trainer.memory()
    assert held.weights == 4 * env.trainer.count_trainable()
    assert all("forward" not in block.__dict__ for block in env.trainer.network.blocks)


def test_the_state_of_a_frozen_start_that_redraws_can_be_saved_and_forked(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn"})
    env.reset(seed=1)
    twin = env.fork()
    action = np.array([0, 1, 1, 3])
    assert env.step(action)[1] == twin.step(action)[1]


@pytest.mark.parametrize("how", ["normal_", "uniform_", "kaiming_normal_", "xavier_uniform_", "ones_"])
def test_a_recipe_gives_the_same_bits_whatever_was_drawn_since(how: str) -> None:
    with InitialisationRecorder() as recorder:
        layer = nn.Linear(5, 7)  # its own drawing comes first
        getattr(nn.init, how)(layer.weight)
    torch.rand(3)
    before = torch.get_rng_state()
    recipe = recorder.recipes([layer.weight])[layer.weight]
    assert torch.equal(recipe.draw(), layer.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_that_came_about_otherwise_are_held() -> None:
    with InitialisationRecorder() as recorder:
        layer = nn.Linear(5, 7)
        with torch.no_grad():
            layer.weight.copy_(torch.arange(35.0).view(7, 5))
            layer.bias[2] = 1.0
        rejecting = nn.Parameter(torch.empty(1000))
        nn.init.trunc_normal_(rejecting)
    assert recorder.recipes([layer.weight, layer.bias, rejecting]) == {}
    blocks = [layer, nn.Linear(5, 7)]
    tied = TiedBlocks(blocks, recipes=recorder.recipes([layer.weight, layer.bias]))
    assert not any(p.is_meta for i in range(2) for p in tied.weights(i).values())


def test_a_failed_first_change_leaves_redrawn_layers_as_they_were(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn"})
    env.reset(seed=0)
    tied = env.trainer.tied
    stranger = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="no group made by TiedBlocks"):
        tied.change([0, 1, 0, 3], stranger)
    assert tied.frozen
    reference = LayerTyingEnv(**tiny)
    reference.reset(seed=0)
    assert env.trainer.train(2) == reference.trainer.train(2)


@pytest.mark.parametrize("start", [{"init_from": "somewhere"}, {"delta_rank": 2}])
def test_redrawing_is_refused_for_a_start_that_is_more_than_random_matrices(start: dict[str, Any]) -> None:
    name, value = next(iter(start.items()))
    with pytest.raises(ValueError, match=rf"frozen_weights must be 'held'.*got 'redrawn' with {name}={value!r}"):
        EnvConfig(frozen_weights="redrawn", **start)


def test_redrawing_is_refused_where_frozen_layers_go_on_to_train(tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"frozen_weights must be 'held'.*got 'redrawn' with replication='copied'"):
        LayerTyingEnv(**tiny | {"frozen_weights": "redrawn", "replication": "copied"})
