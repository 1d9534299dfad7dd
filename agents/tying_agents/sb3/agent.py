"""Stable-Baselines3 agents: any of its algorithms, and of its contributions, trains on a recorded run.

PPO and A2C take the MultiDiscrete action as it is. Algorithms that learn off policy (DQN, QR-DQN) take one number, so
they change one entry per step (`SingleLayerAction`); MaskablePPO goes through the layers in turn (`LayerSweepAction`),
with the targets a layer does not have masked out. SB3 seeds Python's, NumPy's and torch's global generators itself; the
environment draws from none of them.
"""

import inspect
from typing import Any

import gymnasium as gym

from tying_agents.foreign import naming_the_algorithm
from tying_agents.loop import Loop
from tying_agents.running.agents import RunningAgent
from tying_agents.sb3.journal import Journal, read_journal
from tying_agents.settings import SB3Config
from tying_env.partition import IntVector
from tying_env.runs import RunDirectory
from tying_env.wrappers import LayerSweepAction, OneHotObservation, SingleLayerAction
from tying_env.wrappers.base import Step
from tying_env.wrappers.interval import ChooseInterval, interval_wrapper


class LoopEnv(gym.Wrapper[IntVector, IntVector, IntVector, IntVector]):
    """The environment as SB3 sees it: every step goes through the loop.

    SB3 resets an environment as soon as an episode is over. After the last episode that would throw the network away,
    so this reset returns the last observation instead, and the run is concluded from what is there.

    Attributes:
        model: whose exploration rate stands in the records; None before it is made.
        metrics: of the model, as it was when it chose the last action.
    """

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.env)
        self._loop = loop
        self.model: Any = None
        self.metrics: dict[str, float] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntVector, dict[str, Any]]:
        """Begin the next episode; its seed is the run's, not SB3's."""
        if self._loop.finished:
            return self._loop.observation, {}
        self._loop.complete_if_open(self.metrics)  # SB3 calls back only after this
        return self._loop.reset(None)

    def step(self, action: IntVector) -> Step:
        """Step the environment."""
        self.metrics = exploration_of(self.model)
        return self._loop.step(action)


def exploration_of(model: Any) -> dict[str, float]:
    """Return the probability that the action a model has just chosen is random, as epsilon; nothing where it has none.

    Until `learning_starts` all actions are random, whatever the model's exploration rate says.
    """
    if (rate := getattr(model, "exploration_rate", None)) is None:
        return {}
    return {"epsilon": 1.0 if model.num_timesteps < model.learning_starts else float(rate)}


class SB3Run(RunningAgent):
    """An algorithm of Stable-Baselines3 makes the decisions, from the start or from its journal.

    Args:
        name: of the agent, for messages.
        algorithm: a subclass of SB3's BaseAlgorithm.
        config: its settings.
        seed: of the run.
    """

    def __init__(self, name: str, algorithm: type[Any], config: SB3Config, seed: int) -> None:
        self._name = name
        self._algorithm = algorithm
        self._config = config
        self._seed = seed
        self._ancestors = {base.__name__ for base in algorithm.__mro__}

    def check(self, loop: Loop) -> None:
        """Check that the algorithm can be made for the environment of a loop; it is made and thrown away.

        Raises:
            ValueError: it does not take the environment's actions.
        """
        self._model(self._as_seen(loop), loop.decisions_in_all)

    def run(self, loop: Loop, directory: RunDirectory | None) -> None:
        """Let the algorithm learn.

        Raises:
            ValueError: the journal is damaged, or the agent cannot be brought back from it.
            tying_env.episode.Stopped: the environment was asked to stop.
        """
        loop.learns_every = self._config.sb3_n_steps if self._on_policy else 1
        if loop.finished:
            return
        decisions, config = loop.decisions_in_all, self._config
        if self._on_policy and decisions <= config.sb3_n_steps:
            loop.callbacks.note(
                f"{self._name} learns after every {config.sb3_n_steps} decisions, and there are {decisions}: it will "
                "not have learned when it makes its last. Lower --sb3-n-steps or --k, or raise --total-steps or "
                "--episodes."
            )
        seen = self._as_seen(loop)
        journal = None if directory is None else Journal(seen, directory)
        model = self._model(seen if journal is None else journal, decisions)
        told = _loop_env(seen)
        told.model = model
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.logger import Logger

        if model.verbose == 0 and model.tensorboard_log is None:
            # One that writes nowhere: the library's own makes an empty folder in the system's temporary one.
            model.set_logger(Logger(folder=None, output_formats=[]))

        class AfterEachStep(BaseCallback):
            def _on_step(self) -> bool:
                if journal is not None and journal.reliving:
                    return True
                loop.complete_if_open(told.metrics)
                return not (loop.finished or loop.stop_reason is not None)

        # Schedules, as that of exploration, go by the decisions there will be.
        with naming_the_algorithm(self._algorithm):
            model.learn(total_timesteps=decisions, callback=AfterEachStep())

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the journal has it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any], loop: Loop, directory: RunDirectory, journal_bytes: int) -> None:
        """Check as much of the run's journal as belongs to a checkpoint; `run` relives it.

        Raises:
            ValueError: it is damaged (the message names the line), or of another number of decisions.
        """
        lines = read_journal(self._as_seen(loop), directory, journal_bytes)
        if (steps := sum("action" in line for line in lines)) != loop.decisions:
            raise ValueError(f"its journal has {steps} decisions, the checkpoint {loop.decisions}")

    @property
    def _on_policy(self) -> bool:
        return "OnPolicyAlgorithm" in self._ancestors

    def _as_seen(self, loop: Loop) -> gym.Env[Any, Any]:
        """Return the environment with actions that the algorithm can take.

        Raises:
            ValueError: there is an interval in an action, and the algorithm takes one number.
        """
        env = LoopEnv(loop)
        one_layer = self._ancestors & {"MaskablePPO", "OffPolicyAlgorithm"}
        if one_layer and isinstance(interval_wrapper(env), ChooseInterval):
            raise ValueError(
                f"the agent {self._name!r} takes one number, a change of one layer, and chooses no interval with it: "
                "give it --k in place of --wrappers choose-interval, or take ppo or a2c"
            )
        if "MaskablePPO" in self._ancestors:
            return LayerSweepAction(env)
        if "RecurrentPPO" in self._ancestors:  # its network cannot count what a MultiDiscrete space flattens to
            return OneHotObservation(env)
        return SingleLayerAction(env) if "OffPolicyAlgorithm" in self._ancestors else env

    def _model(self, env: gym.Env[Any, Any], decisions: int) -> Any:
        config, taken = self._config, inspect.signature(self._algorithm.__init__).parameters
        settings: dict[str, Any] = {"seed": self._seed, "device": "cpu", "gamma": config.sb3_gamma}
        if config.sb3_learning_rate is not None:
            settings["learning_rate"] = config.sb3_learning_rate
        if self._on_policy:
            settings |= {"n_steps": config.sb3_n_steps, "batch_size": config.sb3_n_steps}
        else:
            # A run has tens of decisions: begin to learn after a few of them, not after SB3's 100, and renew the target
            # network now and then, not after 10,000.
            settings |= {"learning_starts": 5, "buffer_size": 10_000, "train_freq": 1}
            settings |= {"target_update_interval": max(1, decisions // 10)}
        policies = getattr(self._algorithm, "policy_aliases", {})
        policy = next((name for name in ("MlpPolicy", "MlpLstmPolicy") if name in policies), "MlpPolicy")
        settings = {name: value for name, value in settings.items() if name in taken}
        with naming_the_algorithm(self._algorithm):
            try:
                return self._algorithm(policy, env, **settings)
            except AssertionError as error:
                if "action spaces" not in str(error):  # SB3's words
                    raise
                raise ValueError(
                    f"the agent {self._name!r} does not take the actions {env.action_space}: {error}"
                ) from error


def _loop_env(env: Any) -> LoopEnv:
    """Return the environment with the loop, from within its wrappers."""
    while not isinstance(env, LoopEnv):
        env = env.env
    return env
