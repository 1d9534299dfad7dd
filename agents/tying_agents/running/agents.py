"""Who chooses in a run: a controller, or an algorithm of Stable-Baselines3 that drives the environment itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from tying_agents.callbacks import Callback, conduct
from tying_agents.controllers.base import Context, Controller
from tying_agents.foreign import check_keeps_its_state, checked_state, give_what_it_needs, naming_the_controller
from tying_agents.loop import Loop
from tying_agents.registry import CONTROLLERS, Agent, find_agent
from tying_agents.run_config import RunConfig
from tying_env.runs import RunDirectory
from tying_env.wrappers.base import tying_env_below
from tying_env.wrappers.interval import ChooseInterval, interval_wrapper


class RunningAgent(ABC):
    """What a run asks of who chooses.

    Attributes:
        chooses: whether it decides by what its tyings lead to; else it is a fixed pattern, a trace, or chance.
    """

    chooses = True

    @abstractmethod
    def run(self, loop: Loop, directory: RunDirectory | None) -> None:
        """Make all decisions that are left.

        Args:
            loop: the run.
            directory: for what the agent writes down to be resumed; None: the run cannot be resumed.

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
        # Without either it cannot see what its tyings lead to.
        self.chooses = type(controller).update is not Controller.update or bool(controller.needs - {"sizes"})

    def run(self, loop: Loop, directory: RunDirectory | None) -> None:
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


def make_agent(config: RunConfig, env: gym.Env[Any, Any]) -> RunningAgent:
    """Return a new agent for a run in this environment.

    Raises:
        ValueError, TypeError, OSError, ImportError: it cannot be made.
        tying_env.plugins.ForeignCodeError: code of the user's own failed.
    """
    return _agent_in(env, find_agent(config.agent), config.controller, config.episodes, config.seed)


def drive_agent(
    name: str,
    env: gym.Env[Any, Any],
    callbacks: Sequence[Callback] = (),
    *,
    settings: object = None,
    episodes: int = 1,
    seed: int = 0,
) -> Loop:
    """Let any registered agent decide in an environment, in memory: nothing is written, and it cannot be resumed.

        drive_agent("ppo", gym.make("LayerTying-Synthetic-v0"), [my_callback], seed=3)

    Args:
        name: of the agent, or an import string.
        env: a LayerTyingEnv or another `tying_env.environment.TyingEnv`, in any wrappers.
        callbacks: are told how it goes.
        settings: of the agent; its defaults if there are none.
        episodes: that the agent learns over.
        seed: of the agent and of the first episode.

    Returns:
        The loop, as it stands at the end.

    Raises:
        ValueError, TypeError, OSError, ImportError: there is no such agent, or it cannot be made for this environment.
        tying_env.plugins.ForeignCodeError: code of the user's own failed.
    """
    agent = find_agent(name)
    made = _agent_in(env, agent, agent.settings() if settings is None else settings, episodes, seed)
    loop = Loop(env, callbacks, episodes=episodes, seed=seed)
    conduct(loop, lambda: made.run(loop, None))
    return loop


def _agent_in(env: gym.Env[Any, Any], agent: Agent, settings: Any, episodes: int, seed: int) -> RunningAgent:
    if not isinstance(settings, agent.settings):
        expected = agent.settings.__name__
        raise TypeError(f"the agent {agent.name!r} takes settings of the class {expected}, got {settings!r}")
    loop, inner = Loop(env, episodes=episodes), tying_env_below(env)
    if agent.kind == "sb3":
        from tying_agents.sb3.agent import SB3Run

        chosen: Any = settings
        made = SB3Run(agent.name, agent.load(), chosen, seed)
        made.check(loop)
        return made
    varied = interval_wrapper(env)
    intervals = varied.intervals if isinstance(varied, ChooseInterval) else ()
    context = Context(
        inner.n_units,
        seed,
        inner.steps_per_decision,
        loop.decisions_in_all,
        inner.kinds,
        intervals,
        varied is not None,
    )
    controller = agent.make(settings, context)
    if intervals and not controller.chooses_intervals:
        raise ValueError(
            f"the agent {agent.name!r} chooses no intervals, and here each action has one: give it --k in place of "
            "--wrappers choose-interval, or take dqn, random, ppo or a2c (a controller of your own that does says "
            "chooses_intervals = True)"
        )
    _check_spaces(agent.name, controller, env)
    give_what_it_needs(controller, env)  # what the environment lacks shows before the run begins
    check_keeps_its_state(controller)
    return ControlledRun(controller)


def _check_spaces(name: str, controller: Controller, env: gym.Env[Any, Any]) -> None:
    """Check that wrappers left a controller the tying to read, and of this package a vector to give."""
    below = tying_env_below(env)
    if controller.reads_tying and env.observation_space != below.observation_space:
        raise ValueError(
            f"the agent {name!r} reads the tying in force, {below.observation_space}, and here it would be shown "
            f"{env.observation_space}: leave out the wrapper that shows it something else, or take an agent of "
            "Stable-Baselines3 (ppo, a2c, sb3-dqn)"
        )
    ours = type(controller).__module__.startswith(f"{CONTROLLERS}.")
    if ours and isinstance(env.action_space, gym.spaces.Discrete):
        raise ValueError(
            f"the agent {name!r} gives a whole tying, {below.n_units} numbers, and here an action is of "
            f"{env.action_space}: leave out the wrapper that makes it another, or take an agent of Stable-Baselines3 "
            "(ppo, a2c)"
        )
