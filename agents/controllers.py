"""The controllers by name."""

from typing import Literal, get_args

from agents.base import Controller
from agents.baselines import PATTERNS, FixedController, RandomController
from agents.factorized_dqn import DQNConfig, FactorizedDQN
from tying_env.seeding import numpy_stream, torch_stream

AgentName = Literal["dqn", "random", "conventional", "albert", "cycle", "cycle-rev", "sequence"]


def make_controller(agent: AgentName, n_layer: int, seed: int, dqn: DQNConfig | None = None) -> Controller:
    """Return a new controller whose random streams come from `seed`.

    Args:
        agent: which one.
        n_layer: L.
        seed: of its exploration and of its network's initial weights.
        dqn: settings of `"dqn"`; the paper's by default.

    Raises:
        ValueError: unknown agent, or too few layers for it.
    """
    exploration = numpy_stream(seed, "controller")
    if agent == "dqn":
        return FactorizedDQN(n_layer, dqn or DQNConfig(), exploration, torch_stream(seed, "controller weights"))
    if agent == "random":
        return RandomController(n_layer, exploration)
    if agent in PATTERNS:
        return FixedController(PATTERNS[agent](n_layer))
    raise ValueError(f"agent must be one of {', '.join(get_args(AgentName))}, got {agent!r}")
