"""What the DQN remembers of the past: transitions, and the mean and spread of rewards."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from tying_agents.controllers.base import Transition
from tying_env import partition
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy


class Transitions(NamedTuple):
    """Transitions to learn from, stacked: the leading dimensions are () for a single one, (n,) for n."""

    observation: IntVector  # (..., L)
    action: IntVector  # (..., L), or (..., L + 1) with intervals
    reward: npt.NDArray[np.float64]  # (...)
    next_observation: IntVector  # (..., L)
    terminated: npt.NDArray[np.bool_]  # (...)

    @classmethod
    def single(cls, transition: Transition) -> Self:
        """Return one transition, without a leading dimension."""
        return cls._of(transition)

    @classmethod
    def stack(cls, transitions: Sequence[Transition]) -> Self:
        """Return n transitions, at least one, under a leading dimension n."""
        return cls._of(zip(*transitions, strict=True))

    @classmethod
    def _of(cls, parts: Iterable[Any]) -> Self:
        dtypes = (np.int64, np.int64, np.float64, np.int64, np.bool_)
        return cls(*(np.asarray(part, dtype) for part, dtype in zip(parts, dtypes, strict=True)))


class ReplayBuffer:
    """Keeps the newest transitions and samples them uniformly (Lin, 1992; Mnih et al., Nature 2015).

    Args:
        n_units: L.
        size: how many to keep; a newer one then takes the place of the oldest.
        rng: draws the samples.
        n_intervals: how many intervals the last entry of an action chooses from; 0: an action is a tying alone.
    """

    def __init__(self, n_units: int, size: int, rng: np.random.Generator, n_intervals: int = 0) -> None:
        self._n_units, self._n_intervals = n_units, n_intervals
        self._size = size
        self._rng = rng
        self._kept: list[Transition] = []
        self._oldest = 0  # index of the next to be replaced, once the buffer is full

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, transition: Transition) -> None:
        """Keep a copy of a transition."""
        observation, action, reward, following, terminated = transition
        own = Transition(observation.copy(), action.copy(), reward, following.copy(), terminated)
        if len(self._kept) < self._size:
            self._kept.append(own)
        else:
            self._kept[self._oldest] = own
            self._oldest = (self._oldest + 1) % self._size

    def sample(self, n: int) -> Transitions:
        """Draw n transitions, each uniformly from all kept ones: the same may come more than once."""
        # Counted from the oldest, as states are saved: a restored buffer draws the same.
        ages = self._rng.integers(len(self._kept), size=n)
        return Transitions.stack([self._kept[i] for i in (ages + self._oldest) % len(self._kept)])

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the transitions, oldest first and as tensors, and of the generator."""
        in_order = self._kept[self._oldest :] + self._kept[: self._oldest]
        stacked = Transitions.stack(in_order)._asdict() if in_order else {}
        return {
            "transitions": {name: torch.from_numpy(part) for name, part in stacked.items()},
            "rng": capture_numpy(self._rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            ValueError: it does not fit, and in what; nothing is changed then.
        """
        kept = self._read(state["transitions"])
        restore_numpy(self._rng, state["rng"])
        self._kept, self._oldest = kept, 0

    def _read(self, tensors: dict[str, torch.Tensor]) -> list[Transition]:
        """Return the transitions of a state, oldest first, after checking them."""
        if not tensors:
            return []
        if set(tensors) != set(Transitions._fields):
            raise ValueError(f"the replay state must have {', '.join(Transitions._fields)}; got {', '.join(tensors)}")
        stacked = Transitions._of(tensors[name].numpy() for name in Transitions._fields)
        n, n_units = len(stacked.action), self._n_units
        expected = [(n, n_units), (n, n_units + (self._n_intervals > 0)), (n,), (n, n_units), (n,)]
        if not 0 < n <= self._size or [part.shape for part in stacked] != expected:
            shapes = {name: part.shape for name, part in stacked._asdict().items()}
            raise ValueError(f"the replay state must have 1 to {self._size} transitions of {n_units} layers: {shapes}")
        if not np.isfinite(stacked.reward).all():
            raise ValueError("the replay state has a reward that is not finite")
        for vectors in (stacked.observation, stacked.action[:, :n_units], stacked.next_observation):
            for vector in vectors:
                partition.validate_action(vector, n_units)
        if self._n_intervals and not set(stacked.action[:, -1].tolist()) <= set(range(self._n_intervals)):
            raise ValueError(f"the replay state has an interval that is not in 0..{self._n_intervals - 1}")
        observation, action, reward, following, terminated = (list(part.copy()) for part in stacked)
        return [
            Transition(o, a, float(r), f, bool(t))
            for o, a, r, f, t in zip(observation, action, reward, following, terminated, strict=True)
        ]


class RewardNormaliser:
    """Running mean and standard deviation of all rewards so far, one pass, no sums of squares (Welford, 1962).

    Rewards here are negative perplexities: all below zero, and falling a hundredfold over a run. Learning targets that
    keep one scale is the motive of van Hasselt et al. (NeurIPS 2016); their correction of the network's outputs when
    the scale moves is not done here.
    """

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0  # _squares: the sum of squared deviations from the mean

    @property
    def std(self) -> float:
        """The standard deviation of the rewards so far (divided by n, not n - 1); 1 while they are all equal."""
        return math.sqrt(self._squares / self.count) if self._squares > 0 else 1.0

    def add(self, reward: float) -> None:
        """Take one more reward into account."""
        self.count += 1
        before = reward - self.mean
        self.mean += before / self.count
        self._squares += before * (reward - self.mean)

    def normalise(self, rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the rewards, minus the mean, over the standard deviation."""
        return np.asarray((rewards - self.mean) / self.std)

    def state_dict(self) -> dict[str, float]:
        """Return count, mean and sum of squared deviations."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            ValueError: it is not such a state; nothing is changed then.
        """
        count, mean, squares = (state.get(name, math.nan) for name in ("count", "mean", "squares"))
        if not (isinstance(count, int) and count >= 0 and math.isfinite(mean) and 0 <= squares < math.inf):
            raise ValueError(f"not the state of a reward normaliser: {state}")
        self.count, self.mean, self._squares = count, float(mean), float(squares)
