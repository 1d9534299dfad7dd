from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.base import Transition
from tying_agents.controllers.published import LayerSweepDQN
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run
from tying_agents.settings import DQNConfig

from tests.controllers import make_controller
from tying_env import EnvConfig


def sweep(n_layer: int = 4, **settings: Any) -> LayerSweepDQN:
    controller = make_controller("layer-sweep-dqn", n_layer, 0, DQNConfig(**settings))
    assert isinstance(controller, LayerSweepDQN)
    return controller


def test_layers_are_decided_one_at_a_time_in_turn_and_epsilon_falls_per_sweep() -> None:
    controller = sweep(epsilon_floor=0.2)
    state = np.array([0, 1, 2, 3])
    for decision in range(200):
        layer = 1 + decision % 3
        assert controller.layer == layer
        assert controller.epsilon == pytest.approx(max(0.95 ** (decision // 3), 0.2))
        action = controller.act(state)
        assert all(action[i] == state[i] for i in range(4) if i != layer)
        assert 0 <= action[layer] <= layer
        controller.update(Transition(state, action, -1.0, state, False))
    assert controller.metrics()["epsilon"] == 0.2


def test_an_update_learns_from_the_decided_layers_values_alone() -> None:
    controller = sweep(gamma=0.5, epsilon_start=0.0)
    state, following = np.array([0, 0, 0, 0]), np.array([0, 1, 0, 0])
    action = controller.act(state)
    predicted = controller.values(state)[0, action[1]].item()
    target = -3.0 + 0.5 * controller.values(following)[0].max().item()
    controller.update(Transition(state, action, -3.0, following, False))
    assert controller.metrics()["q_loss"] == pytest.approx((predicted - target) ** 2, rel=1e-5)
    gradient = controller.network[2].bias.grad
    assert gradient.nonzero().flatten().tolist() == [int(action[1])]


def test_a_restored_sweep_continues_with_its_turn() -> None:
    controller, other = sweep(), sweep()
    state = np.array([0, 1, 2, 3])
    for _ in range(4):
        controller.update(Transition(state, controller.act(state), -1.0, state, False))
    other.load_state_dict(controller.state_dict())
    assert other.layer == controller.layer == 2
    assert (other.act(state) == controller.act(state)).all()


def test_the_published_semantics_run_and_their_storages_collapse(tmp_path: Path, tiny: Any) -> None:
    settings = tiny | {"gradient": "leader", "replication": "aliased", "k": 1, "total_steps": 60, "validate_every": 0}
    config = RunConfig(
        "layer-sweep-dqn", rewards=("clipped",), run_dir=tmp_path / "run", env=EnvConfig(**settings), test_windows=4
    )
    directory, _ = run(config)
    records = directory.read_metrics()
    assert records[-1]["storages"] == 1
    assert all(record["reward"] == -10 for record in records if record["perplexity"] > 10)
    assert any(record["independent_layers"] > record["storages"] for record in records[-20:])
