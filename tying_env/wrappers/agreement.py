"""Observations of what the layers want of the weights they share."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from tying_env.partition import IntVector
from tying_env.wrappers.base import AnyEnv, Step, layer_tying_env


class GradientAgreementObservation(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Observe the tying, and the cosine between the gradients of each two layers: `Box`, shape (L + L (L - 1) / 2,).

    Entry i < L is the tying scaled by the layer's index, `tying[i] / i`. Then come the cosines of layers 0 and 1, 0 and
    2, ..., L-2 and L-1, each layer's gradient with respect to the weights that it computes with (see
    `tying_env.primary.agreement`); 0 where there is none: after `reset`, when training diverged, between layers of
    different kinds. `info` has `lowest_agreement` as well, the lowest cosine within a group, 1 where no layer is tied.

    Measuring takes forward and backward passes, so the episode pays a training step for each batch
    (`LayerTyingEnv.pay`) and ends that much earlier; when too few steps are left, it observes what it did before.

    Example (4 layers):
        >>> env = GradientAgreementObservation(make())
        >>> env.observation_space.shape
        (10,)
        >>> env.reset(seed=0, options={"tying": [0, 1, 1, 3]})[0]
        array([0. , 1. , 0.5, 1. , 0. , 0. , 0. , 0. , 0. , 0. ], dtype=float32)

    Args:
        env: a LayerTyingEnv, wrapped or not, whose observations are the tying.
        windows: how many sequences of `seq_len` tokens, or images, to measure on; 0 for a training batch's number.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: its observations are not the tying, or `windows` is below 0.
    """

    def __init__(self, env: AnyEnv, windows: int = 0) -> None:
        RecordConstructorArgs.__init__(self, windows=windows)
        gym.Wrapper.__init__(self, env)
        below = layer_tying_env(env)
        if env.observation_space != below.observation_space:
            raise ValueError(f"GradientAgreementObservation needs the tying below it, got {env.observation_space}")
        if windows < 0:
            raise ValueError(f"windows must be at least 0, got {windows!r}")
        self._below, self._windows = below, windows or below.config.batch_size
        self._steps = -(-self._windows // below.config.batch_size)
        self._cosines = np.zeros((below.n_units, below.n_units), dtype=np.float32)
        high = np.ones(below.n_units + len(self._pairs()), dtype=np.float32)
        low = np.concatenate(
            [np.zeros(below.n_units, dtype=np.float32), -np.ones(len(self._pairs()), dtype=np.float32)]
        )
        self.observation_space = gym.spaces.Box(low, high)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin an episode, with nothing measured."""
        tying, info = self.env.reset(seed=seed, options=options)
        self._cosines = np.zeros_like(self._cosines)
        return self._observation(tying), info | {"lowest_agreement": 1.0}

    def step(self, action: Any) -> Step:
        """Return what is observed after a step."""
        tying, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            self._cosines = np.zeros_like(self._cosines)
        elif self._below.steps_for_trials >= self._steps:
            self._below.pay(self._steps)
            self._cosines = np.nan_to_num(self._below.gradient_agreement(self._windows)).astype(np.float32)
        together = np.triu(np.asarray(tying)[:, None] == np.asarray(tying)[None], 1)
        lowest = float(self._cosines[together].min()) if together.any() else 1.0
        return self._observation(tying), float(reward), terminated, truncated, info | {"lowest_agreement": lowest}

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured last, ready for JSON."""
        return {"cosines": self._cosines.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with what was measured last.

        Raises:
            ValueError: it is of another number of layers.
        """
        cosines = np.asarray(state["cosines"], dtype=np.float32)
        if cosines.shape != self._cosines.shape:
            raise ValueError(f"the state's cosines must have the shape {self._cosines.shape}, got {cosines.shape}")
        self._cosines = cosines

    def _pairs(self) -> npt.NDArray[np.float32]:
        pairs: npt.NDArray[np.float32] = self._cosines[np.triu_indices(len(self._cosines), 1)]
        return pairs

    def _observation(self, tying: IntVector) -> npt.NDArray[np.float32]:
        scaled = tying / np.maximum(np.arange(len(tying)), 1)
        return np.concatenate([scaled, self._pairs()]).astype(np.float32)
