"""Observations in other forms than the tying vector.

Both wrappers take any `MultiDiscrete` observation: the tying, or the tying and the layer that `LayerSweepAction` adds.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from tying_env.partition import IntVector
from tying_env.wrappers.base import AnyEnv, Step, layer_tying_env


class TrainingProgressObservation(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Observe the tying and how far training has come: a `Box` of float32, shape (L + 3,).

    Entry i < L is the tying scaled by the layer's index, `tying[i] / i`: 0 is layer 0, 1 is independent (and layer 0
    itself is always 0). Then come the training loss in nats per token, mean over the last k steps; the fraction of
    `total_steps` that is done; and the independent layers divided by L.

    The loss is at most 20, and 20 as well where there is no finite one: after `reset`, and when training diverged.

    Example (4 layers):
        >>> env = TrainingProgressObservation(make())
        >>> env.observation_space.shape
        (7,)
        >>> env.reset(seed=0, options={"tying": [0, 1, 1, 3]})[0]
        array([ 0.  ,  1.  ,  0.5 ,  1.  , 20.  ,  0.  ,  0.75], dtype=float32)

    Args:
        env: a LayerTyingEnv, wrapped or not, with `MultiDiscrete` observations.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: its observations are not `MultiDiscrete`.
    """

    def __init__(self, env: AnyEnv) -> None:
        from tying_env.primary.evaluation import MAX_MEAN_LOSS  # here, because it imports torch

        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        config = layer_tying_env(env).config
        self._largest = np.maximum(_multi_discrete(type(self).__name__, env).nvec - 1, 1)  # layer 0's is 0
        self._max_loss = MAX_MEAN_LOSS  # where the environment bounds the loss behind its reward, too
        self._total_steps, self._n_units = config.total_steps, config.n_units
        high = np.ones(len(self._largest) + 3, dtype=np.float32)
        high[-3] = self._max_loss
        self.observation_space = gym.spaces.Box(np.zeros_like(high), high)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; its first observation has a loss of 20."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation, info), info

    def step(self, action: Any) -> Step:
        """Return the richer observation of a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observation(observation, info), float(reward), terminated, truncated, info

    def _observation(self, observation: IntVector, info: dict[str, Any]) -> npt.NDArray[np.float32]:
        loss = min(info["train_loss"], self._max_loss)  # infinity: not yet measured, or not finite
        progress = [loss, info["train_step"] / self._total_steps, info["independent_layers"] / self._n_units]
        return np.concatenate([observation / self._largest, progress]).astype(np.float32)


class OneHotObservation(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Observe the tying as ones and zeros: `MultiBinary(L (L + 1) / 2)`, i + 1 places for layer i.

    A layer's index is a name and no quantity; this is the form for networks that read numbers as quantities.
    (Stable-Baselines3 turns `MultiDiscrete` observations into this form by itself.)

    Example (4 layers; the bars are between layers):
        >>> env = OneHotObservation(make())
        >>> env.observation_space
        MultiBinary(10)
        >>> env.reset(seed=0, options={"tying": [0, 1, 1, 3]})[0]  # 1 | 0 1 | 0 1 0 | 0 0 0 1
        array([1, 0, 1, 0, 1, 0, 0, 0, 0, 1], dtype=int8)

    Args:
        env: an environment with `MultiDiscrete` observations.

    Raises:
        ValueError: its observations are not `MultiDiscrete`.
    """

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self._below = _multi_discrete(type(self).__name__, env)
        self.observation_space = gym.spaces.MultiBinary(int(self._below.nvec.sum()))

    def observation(self, observation: IntVector) -> npt.NDArray[np.int8]:
        """Return the observation in one-hot form."""
        return np.asarray(gym.spaces.flatten(self._below, observation), dtype=np.int8)


def _multi_discrete(name: str, env: AnyEnv) -> gym.spaces.MultiDiscrete:
    space = env.observation_space
    if not isinstance(space, gym.spaces.MultiDiscrete):
        raise ValueError(f"{name} needs MultiDiscrete observations below it, got {space}")
    return space
