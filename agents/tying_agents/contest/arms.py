"""Whom a contest lets search: agents with their settings. No torch."""

from dataclasses import dataclass
from typing import Any

from tying_agents.registry import find_agent
from tying_agents.run_config import short_name


@dataclass(frozen=True)
class ContestArm:
    """An agent with its settings.

    Attributes:
        name: in the table.
        agent: in the registry, or an import string.
        settings: an instance of the agent's settings.
        fidelities: whether its actions say how long to train.
    """

    name: str
    agent: str
    settings: Any
    fidelities: bool = False


def arm_of(agent: str, settings: Any = None) -> ContestArm:
    """Return an agent as an arm, with its defaults where no settings are given.

    Raises:
        ValueError, OSError, ImportError, TypeError, tying_env.plugins.ForeignCodeError: there is no such agent.
    """
    found = find_agent(agent)
    return ContestArm(short_name(agent), agent, found.settings() if settings is None else settings)
