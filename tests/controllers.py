"""Small DQNs with and without options, and a world for them to decide in."""

import itertools
from typing import Any

import numpy as np
import torch
from tying_agents.controllers.base import Context, Controller, Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.registry import find_agent
from tying_agents.settings import DQNConfig

from tying_env import partition
from tying_env.seeding import numpy_stream, torch_stream

COMBINATIONS = [
    {
        "replay_size": replay,
        "replay_batch": 8,
        "target_every": every,
        "double_q": double,
        "dueling": dueling,
        "reward_scale": reward,
        "state_scale": state,
    }
    for replay, (every, double), dueling, reward, state in itertools.product(
        (0, 50), ((0, False), (5, False), (5, True)), (False, True), ("none", "running"), ("raw", "unit")
    )
]


def short(settings: dict[str, Any]) -> str:
    return ",".join(str(value) for value in settings.values())


def dqn(n_units: int = 4, seed: int = 0, **settings: Any) -> FactorizedDQN:
    streams = numpy_stream(seed, "controller"), torch_stream(seed, "controller weights")
    return FactorizedDQN(n_units, DQNConfig(**settings), *streams)


def make_controller(agent: str, n_units: int, seed: int, settings: object = None, k: int | None = None) -> Controller:
    found = find_agent(agent)
    return found.make(found.settings() if settings is None else settings, Context(n_units, seed, k))


def vector(*entries: int) -> partition.IntVector:
    return np.array(entries, dtype=np.int64)


def drive(controller: Any, decisions: int, seed: int = 7) -> list[Any]:
    """Let a controller decide, in a world with random rewards; return all that can be seen of it."""
    rng, n_units, seen = np.random.default_rng(seed), controller.n_units, []
    state = np.zeros(n_units, dtype=np.int64)
    for n in range(decisions):
        action = controller.act(state)
        following = partition.canonicalise(action)
        controller.update(Transition(state, action, -float(rng.exponential(50.0)), following, n % 9 == 8))
        seen.append((action.tolist(), controller.metrics()))
        state = following
    return seen


def weights(network: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def numbered(n: int, n_units: int = 3) -> Transition:
    rng = np.random.default_rng(n)
    action = partition.uniform_random_action(n_units, rng)
    return Transition(np.zeros(n_units, dtype=np.int64), action, float(n), partition.canonicalise(action), n % 2 == 0)
