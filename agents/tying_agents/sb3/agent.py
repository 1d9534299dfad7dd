"""Stable-Baselines3 agents: any of its algorithms trains on a recorded run.

PPO and A2C take the MultiDiscrete action as it is. SB3's DQN and sb3-contrib's QR-DQN take one number, so they change
one entry per step (`SingleLayerAction`); MaskablePPO goes through the layers in turn (`LayerSweepAction`), with the
targets a layer does not have masked out. SB3 seeds Python's, NumPy's and torch's global generators itself; the
environment draws from none of them.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym

from tying_agents.sb3.journal import Journal, read_journal
from tying_agents.running.recorder import Recorder, Step
from tying_env.partition import IntVector
from tying_env.wrappers import LayerSweepAction, SingleLayerAction

SB3Name = Literal["ppo", "a2c", "sb3-dqn", "qrdqn", "maskable-ppo"]


class RecordedEnv(gym.Wrapper[IntVector, IntVector, IntVector, IntVector]):
    """The environment as SB3 sees it: every step is recorded.

    SB3 resets an environment as soon as an episode is over. After the last episode that would throw the network away,
    so this reset returns the last observation instead, and the run is concluded from what is there.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder.env)
        self._recorder = recorder

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntVector, dict[str, Any]]:
        """Begin the next episode; its seed is the run's, not SB3's."""
        if self._recorder.finished:
            return self._recorder.layer_tying.trainer.tied.tying, {}
        return self._recorder.reset(None)

    def step(self, action: IntVector) -> Step:
        """Step and record."""
        result = self._recorder.step(action)
        self._recorder.record({})
        return result


def train_sb3(agent: SB3Name, config: SB3Config, recorder: Recorder, seed: int) -> None:
    """Let an SB3 agent learn until the recorder's episodes are over, from the start or from its journal.

    Raises:
        ImportError: stable-baselines3 or sb3-contrib is not installed; the message says what to install.
        ValueError: the agent's journal is damaged, or the agent cannot be brought back from it.
        tying_env.episode.Stopped: the environment was asked to stop.
    """
    if recorder.finished:
        return
    if "dqn" not in agent and (decisions := recorder.decisions_in_all) <= config.sb3_n_steps:
        recorder.observer.note(
            f"{agent} learns after every {config.sb3_n_steps} decisions, and there are {decisions}: it will not have "
            "learned when it makes its last. Lower --sb3-n-steps or --k, or raise --total-steps or --episodes."
        )
    journal = Journal(_as_seen(agent, recorder), recorder.directory)
    model = _make(agent, config, journal, seed)
    from stable_baselines3.common.callbacks import BaseCallback

    class AfterEachStep(BaseCallback):
        def _on_step(self) -> bool:
            if not journal.reliving:
                recorder.checkpoint_if_due(dict)
            return journal.reliving or not recorder.finished

    model.learn(total_timesteps=2**62, callback=AfterEachStep())


def check_journal(agent: SB3Name, recorder: Recorder, n_bytes: int) -> None:
    """Check as much of a run's journal as a checkpoint counts, before anything is changed.

    Raises:
        ValueError: it is damaged (the message names the line), or of another number of decisions.
    """
    lines = read_journal(_as_seen(agent, recorder), recorder.directory, n_bytes)
    if (steps := sum("action" in line for line in lines)) != recorder.decisions:
        raise ValueError(f"its journal has {steps} decisions, the checkpoint {recorder.decisions}")


def _as_seen(agent: SB3Name, recorder: Recorder) -> gym.Env[Any, Any]:
    env, wrapper = RecordedEnv(recorder), _ALGORITHMS[agent][2]
    return env if wrapper is None else wrapper(env)


# Name -> the class, and the wrapper that gives it an action space it can take.
_ALGORITHMS: dict[SB3Name, tuple[str, str, Callable[[RecordedEnv], gym.Env[Any, Any]] | None]] = {
    "ppo": ("stable_baselines3", "PPO", None),
    "a2c": ("stable_baselines3", "A2C", None),
    "sb3-dqn": ("stable_baselines3", "DQN", SingleLayerAction),
    "qrdqn": ("sb3_contrib", "QRDQN", SingleLayerAction),
    "maskable-ppo": ("sb3_contrib", "MaskablePPO", LayerSweepAction),
}


def _make(agent: SB3Name, config: SB3Config, env: Journal, seed: int) -> Any:
    package, name, _ = _ALGORITHMS[agent]
    try:
        algorithm = getattr(importlib.import_module(package), name)
    except ImportError as error:
        raise ImportError(f"the agent {agent!r} needs {package}: pip install 'tying-env[sb3]'") from error
    settings: dict[str, Any] = {"seed": seed, "device": "cpu", "gamma": config.sb3_gamma}
    if config.sb3_learning_rate is not None:
        settings["learning_rate"] = config.sb3_learning_rate
    if "dqn" in agent:
        # A run has tens of decisions: begin to learn after a few of them, not after SB3's 100.
        settings |= {"learning_starts": 5, "buffer_size": 10_000, "train_freq": 1}
    else:
        settings |= {"n_steps": config.sb3_n_steps}
        if agent != "a2c":
            settings |= {"batch_size": config.sb3_n_steps}
    return algorithm("MlpPolicy", env, **settings)
