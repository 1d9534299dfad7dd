"""Small DQNs with and without options, and a world for them to decide in."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tying_agents.controllers.base import Context, Controller, Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.registry import find_agent
from tying_agents.settings import DQNConfig

from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.seeding import numpy_stream, torch_stream

OPTIONS: dict[str, tuple[Any, ...]] = {
    "replay_size": (0, 50),
    "replay_batch": (8,),
    "target_every, double_q": ((0, False), (5, False), (5, True)),
    "dueling": (False, True),
    "reward_scale": ("none", "running"),
    "state_scale": ("raw", "unit"),
}


def pairwise(values: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return rows, one value of each, such that any two values of any two occur together in one of them."""
    rows, every = [], list(itertools.product(*values))
    missing = {pair for row in every for pair in pairs(row)}
    while missing:
        rows.append(max(every, key=lambda row: len(missing & pairs(row))))
        missing -= pairs(rows[-1])
    return rows


def pairs(row: Sequence[Any]) -> set[Any]:
    return set(itertools.combinations(enumerate(row), 2))


COMBINATIONS = [
    {
        "replay_size": replay,
        "replay_batch": batch,
        "target_every": every,
        "double_q": double,
        "dueling": dueling,
        "reward_scale": reward,
        "state_scale": state,
    }
    for replay, batch, (every, double), dueling, reward, state in pairwise(list(OPTIONS.values()))
]


def short(settings: dict[str, Any]) -> str:
    return ",".join(str(value) for value in settings.values())


def dqn(n_units: int = 4, seed: int = 0, **settings: Any) -> FactorizedDQN:
    streams = numpy_stream(seed, "controller"), torch_stream(seed, "controller weights")
    return FactorizedDQN(Kinds.alike(n_units), DQNConfig(**settings), *streams)


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
