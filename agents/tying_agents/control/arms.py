"""Whom the positive control tries: agents at their defaults, and the paper's DQN as a bandit. No torch."""

from dataclasses import dataclass
from typing import Any

from tying_agents.registry import Agent, find_agent
from tying_agents.settings import DQNConfig


@dataclass(frozen=True)
class ControlArm:
    """An agent with its settings.

    Attributes:
        name: in the table.
        agent: its name in the registry.
        settings: of the agent; None for its defaults.
    """

    name: str
    agent: str
    settings: Any = None

    @property
    def found(self) -> Agent:
        """The agent, from the registry."""
        return find_agent(self.agent)

    @property
    def chosen(self) -> Any:
        """The settings, the defaults where none are given."""
        return self.found.settings() if self.settings is None else self.settings

    @property
    def goes_by_length(self) -> bool:
        """Whether it decides otherwise in a longer run from the first decision on.

        SB3's algorithms that learn off policy do: exploration falls over a share of the run. So do controllers that
        say so themselves. What they reach after 59 decisions is only seen in a run of 59. Of the others a longer run
        begins with the shorter one.
        """
        return self.agent in ("sb3-dqn", "qrdqn") or self.found.goes_by_length(self.chosen)


BANDIT = "dqn-bandit"  # gamma 0: the value of the next tying does not count

ARMS = {
    arm.name: arm
    for arm in (
        ControlArm("random", "random"),
        ControlArm("dqn", "dqn"),
        ControlArm(BANDIT, "dqn", DQNConfig(gamma=0.0, q_learning_rate=1e-2)),
        ControlArm("repaired-dqn", "repaired-dqn"),
        ControlArm("layer-sweep-dqn", "layer-sweep-dqn"),
        ControlArm("ppo", "ppo"),
        ControlArm("a2c", "a2c"),
        ControlArm("sb3-dqn", "sb3-dqn"),
        ControlArm("qrdqn", "qrdqn"),
        ControlArm("maskable-ppo", "maskable-ppo"),
        ControlArm("tpe", "tpe"),
        ControlArm("cma-es", "cma-es"),
        ControlArm("evolution", "evolution"),
        ControlArm("halving", "halving"),
        ControlArm("change-little", "change-little"),
        ControlArm("thompson", "thompson"),
        ControlArm("mcts", "mcts"),
        ControlArm("hill-climbing", "hill-climbing"),
        ControlArm("annealing", "annealing"),
        ControlArm("tree-search", "tree-search"),
    )
}


def find_arm(name: str) -> ControlArm:
    """Return an arm of the control, or any other agent at its defaults.

    Raises:
        ValueError: there is no such agent.
    """
    return ARMS[name] if name in ARMS else ControlArm(name, find_agent(name).name)
