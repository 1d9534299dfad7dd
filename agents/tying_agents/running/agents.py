"""Who chooses in a run: a controller, or an algorithm of Stable-Baselines3 that drives the environment itself."""

from abc import ABC, abstractmethod
from typing import Any

from tying_agents.controllers.base import Context, Controller
from tying_agents.foreign import checked_state, give_what_it_needs, naming_the_controller
from tying_agents.loop import Loop
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_env.runs import RunDirectory


class RunningAgent(ABC):
    """What a run asks of who chooses."""

    @abstractmethod
    def run(self, loop: Loop, directory: RunDirectory) -> None:
        """Make all decisions that are left.

        Raises:
            tying_env.episode.Stopped: the environment was asked to stop; loop and agent can be saved then.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that the next decisions depend on, but for what is in the journal."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], loop: Loop, directory: RunDirectory, journal_bytes: int) -> None:
        """Continue from a state that `state_dict` gave, and as much of the run's journal as belongs to it.

        Raises:
            ValueError: it does not fit.
        """


class ControlledRun(RunningAgent):
    """A controller makes the decisions."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def run(self, loop: Loop, directory: RunDirectory) -> None:
        """Let the controller decide."""
        loop.run(self.controller)

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's.

        Raises:
            tying_agents.foreign.WrongReturn: it cannot be saved; the message names the entry.
        """
        with naming_the_controller(self.controller, "state_dict"):
            state = self.controller.state_dict()
        return checked_state(state, self.controller)

    def load_state_dict(self, state: dict[str, Any], loop: Loop, directory: RunDirectory, journal_bytes: int) -> None:
        """Restore the controller's."""
        with naming_the_controller(self.controller, "load_state_dict"):
            self.controller.load_state_dict(state)


def make_agent(config: RunConfig, env: Any) -> RunningAgent:
    """Return a new agent for a run in this environment.

    Raises:
        ValueError, TypeError, OSError, ImportError: it cannot be made.
        tying_env.plugins.ForeignCodeError: code of the user's own failed.
    """
    agent = find_agent(config.agent)
    if agent.kind == "sb3":
        from tying_agents.sb3.agent import SB3Run

        settings: Any = config.controller
        made = SB3Run(agent.name, agent.load(), settings, config.seed)
        made.check(Loop(env, episodes=config.episodes))
        return made
    decisions = Loop(env, episodes=config.episodes).decisions_in_all
    controller = agent.make(config.controller, Context(config.env.n_units, config.seed, config.env.k, decisions))
    give_what_it_needs(controller, env)  # what the environment lacks shows before the run begins
    return ControlledRun(controller)
