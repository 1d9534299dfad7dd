"""The DQN's low-rank head, whose size grows with the number of layers and not with its square."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tying_agents.control.experiment import ENV_ID, EndOfMark
from tying_agents.controllers.base import Context
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.running.agents import drive_agent
from tying_agents.settings import DQNConfig

from tests.controllers import dqn, vector


def test_a_low_rank_head_grows_with_the_layers_and_not_with_their_square() -> None:
    def outputs(n_layer: int, **settings: Any) -> int:
        return sum(1 for _ in dqn(n_layer, **settings).network[2].bias)

    assert [outputs(n) for n in (12, 48, 192)] == [77, 1175, 18527]
    assert [outputs(n, q_head="low-rank", q_rank=4) for n in (12, 48, 192)] == [4 * (2 * n - 1) for n in (12, 48, 192)]


def test_a_head_of_enough_rank_can_have_any_table() -> None:
    """With u[i] the i-th unit vector, v[j] is the j-th column of the table."""
    n_layer = 5
    full, low = dqn(n_layer), dqn(n_layer, q_head="low-rank", q_rank=n_layer - 1)
    state = vector(0, 1, 0, 3, 1)
    wanted = full.values(state).detach()
    columns = wanted.masked_fill(wanted == -torch.inf, 7.0).T  # what no layer may choose is free
    with torch.no_grad():
        low.network[2].weight.zero_()
        low.network[2].bias.copy_(torch.cat([torch.eye(n_layer - 1).flatten(), columns.flatten()]))
    assert torch.equal(low.values(state), wanted)
    assert low.values(np.stack([state] * 3)).shape == (3, *wanted.shape)


def test_a_low_rank_head_gives_products_of_two_vectors_also_with_intervals() -> None:
    context = Context(4, seed=0, k=2, intervals=(2, 4, 6, 8, 10))
    made = FactorizedDQN.create(DQNConfig(q_head="low-rank", q_rank=2), context)
    state = vector(0, 0, 1, 2)
    outputs = made.network(torch.tensor([0.0, 1.0, 2.0]))
    u, v, intervals = outputs[:6].view(3, 2), outputs[6:14].view(4, 2), outputs[14:]
    table = made.values(state)
    assert table.shape == (4, 5) and torch.equal(table[3], intervals)
    for i in range(3):
        assert torch.allclose(table[i, : i + 2], v[: i + 2] @ u[i])
        assert (table[i, i + 2 :] == -torch.inf).all()


def test_a_low_rank_head_learns_which_layer_each_should_copy() -> None:
    learns: dict[str, Any] = {"replay_size": 200, "replay_updates": 2, "reward_scale": "running", "state_scale": "unit"}
    learns |= {"gamma": 0.0, "exploration_share": 0.6, "epsilon_floor": 0.0}
    shares = []
    for seed in range(3):
        env: gym.Env[Any, Any] = gym.make(ENV_ID, n_layer=5, kind="additive", decisions=200, instance=seed)
        ends = EndOfMark((200,))
        drive_agent("dqn", env, [ends], settings=DQNConfig(q_head="low-rank", q_rank=4, **learns), seed=seed)
        best, chance = (ends.known[name] for name in ("best", "chance"))
        shares.append((ends.values()["200"] - chance) / (best - chance))
    assert np.mean(shares) > 0.5  # of what there is to gain over chance
