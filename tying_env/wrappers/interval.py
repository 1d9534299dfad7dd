"""How many training steps follow a decision: chosen with it, or doubled from one decision to the next.

What a reward stands for then differs from decision to decision. The environment's is a level, minus the perplexity at
a decision's end, so its sum over a run goes by the number of decisions: who decides seldom would be punished seldom.
Here every training step has the reward of its decision, in units of k training steps: a decision of n gets n / k times
the reward below. The sum over a run is then total_steps / k times the mean over its training steps, whatever the
intervals, and a decision of k steps is rewarded as ever. n is what the decision comes to, also where the end of the run
cuts it; a decision in which training diverged counts as if it had come to its end.

A discount has to go by training steps as well, gamma^(n / k) for a decision of n (a semi-Markov decision problem:
Bradtke & Duff, NIPS 1994), or whoever decides seldom discounts less. The paper's DQN does so where it chooses
intervals; agents of Stable-Baselines3 discount each decision alike, so `--sb3-gamma 1` suits them.

Rewards that are differences (`ImprovementReward` below) add up to the same however a run is divided; they stay as they
are. `ShuffledReward` goes around: below, its rewards would tell the interval, and they are to tell nothing.

`info` has `interval` besides: the training steps after the last action, 0 after `reset`.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from tying_env.environment import check_whole
from tying_env.wrappers.base import AnyEnv, Step, check_vector_actions, layer_tying_env
from tying_env.wrappers.rewards import ImprovementReward, ShuffledReward


class IntervalWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """What the wrappers of intervals share: rewards per training step, and `info`.

    Args:
        env: a LayerTyingEnv, wrapped or not.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: it has other intervals than k already, or a ShuffledReward.
    """

    def __init__(self, env: AnyEnv) -> None:
        gym.Wrapper.__init__(self, env)
        self._below, name = layer_tying_env(env), type(self).__name__
        self._weighs = True
        for wrapper in _wrappers(env):
            if isinstance(wrapper, IntervalWrapper):
                raise ValueError(f"{name} needs decisions of k training steps below it, got {type(wrapper).__name__}")
            if isinstance(wrapper, ShuffledReward):
                raise ValueError(
                    f"{name} multiplies a reward by its training steps, which makes a shuffled one tell them: put "
                    "ShuffledReward around it, --wrappers ... shuffled"
                )
            self._weighs = self._weighs and not isinstance(wrapper, ImprovementReward)

    @property
    @abstractmethod
    def decisions_per_episode(self) -> int:
        """The most decisions that a whole episode can have."""

    @property
    def _steps_to_decide_on(self) -> int:
        """Training steps of an episode without those of the frozen start."""
        k, steps = self._below.config.k, self._below.total_steps
        return steps - min(k, steps - 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info | {"interval": 0}

    def _step(self, action: Any) -> Step:
        """Take a step with the interval in force; return its reward per training step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        below, reward = self._below, float(reward)
        done = due = below.train_step - below.tied_at
        if terminated:
            due = min(below.interval, below.total_steps - below.trial_steps - below.tied_at)
        if self._weighs:
            reward *= due / below.config.k
        return observation, reward, terminated, truncated, info | {"interval": done}


class ChooseInterval(IntervalWrapper):
    """Choose the training steps after a decision with it: one entry more in the action, an index of `intervals`.

    `MultiDiscrete([1, 2, ..., L, len(intervals)])`, where units are of one kind; around a wrapper of one-layer actions,
    `Discrete(n)`, it is `MultiDiscrete([n, len(intervals)])`. See `tying_env.wrappers.interval` for rewards and
    discounts. The frozen start has k training steps as ever, and the last decision is cut at `total_steps`.

    Example (4 layers, 20 training steps, k = 2):
        >>> env = ChooseInterval(make(), intervals=(1, 4))
        >>> env.action_space
        MultiDiscrete([1 2 3 4 2])
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step([0, 1, 1, 3, 1])
        >>> observation, info["interval"], info["train_step"]
        (array([0, 1, 1, 3]), 4, 6)
        >>> reward == -info["perplexity"] * 4 / 2
        True

    Args:
        env: a LayerTyingEnv, wrapped or not, whose actions are vectors or one number.
        intervals: the numbers of training steps to choose from, in the order of the entry's values.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: it has other actions, other intervals than k already, or a ShuffledReward; or `intervals` are not
            different whole numbers from 1 to `total_steps`.
    """

    def __init__(self, env: AnyEnv, intervals: Sequence[int] = (1, 5, 15, 50)) -> None:
        RecordConstructorArgs.__init__(self, intervals=intervals)
        IntervalWrapper.__init__(self, env)
        self.intervals = check_intervals(intervals, self._below.total_steps)
        space, self._one_number = env.action_space, isinstance(env.action_space, gym.spaces.Discrete)
        entries = [int(space.n)] if isinstance(space, gym.spaces.Discrete) else self._entries_of(env)
        self.action_space = gym.spaces.MultiDiscrete([*entries, len(self.intervals)])

    @property
    def decisions_per_episode(self) -> int:
        """The decisions of an episode in which all have the shortest interval; there are no more."""
        return math.ceil(self._steps_to_decide_on / min(self.intervals))

    def step(self, action: npt.ArrayLike) -> Step:
        """Tie, train for the interval chosen, measure.

        Raises:
            TypeError, ValueError: not a valid action, or another than that of a step that was stopped.
            gymnasium.error.ResetNeeded: no episode is running.
            tying_env.episode.Stopped: the environment was asked to stop; the same step continues later.
        """
        below, index = self._divided(action)
        self._below.set_interval(self.intervals[index])
        return self._step(below)

    def _divided(self, action: npt.ArrayLike) -> tuple[Any, int]:
        """Return the action for the environment below, and the index of the interval."""
        vector, shape = np.asarray(action), self.action_space.shape
        if vector.shape != shape or not np.issubdtype(vector.dtype, np.integer):
            raise ValueError(f"action must be whole numbers of the shape {shape}, got {action!r}")
        index = int(vector[-1])
        if not 0 <= index < len(self.intervals):
            raise ValueError(
                f"the action's last entry must be in 0..{len(self.intervals) - 1}, an index of the intervals "
                f"{list(self.intervals)}, got {index}"
            )
        return (int(vector[0]) if self._one_number else vector[:-1]), index

    def _entries_of(self, env: AnyEnv) -> list[int]:
        entries: list[int] = check_vector_actions(type(self).__name__, env).choices.tolist()
        return entries


class DoublingInterval(IntervalWrapper):
    """Double the training steps from one decision to the next: 1, 2, 4, ..., `most`, then `most` throughout.

    A curriculum that nobody learned: what a learned schedule of intervals has to beat. Actions stay as they are; see
    `tying_env.wrappers.interval` for rewards. It remembers nothing, for the interval follows from the number of the
    decision.

    Example (4 layers, 20 training steps, k = 2):
        >>> env = DoublingInterval(make(), most=8)
        >>> observation, info = env.reset(seed=0)
        >>> [env.step([0, 1, 1, 3])[4].get("interval") for _ in range(5)]  # after the frozen start's 2; the last is cut
        [1, 2, 4, 8, 3]

    Args:
        env: a LayerTyingEnv, wrapped or not.
        most: training steps of the longest interval.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: it has other intervals than k already, or a ShuffledReward; or `most` is not a whole number of at
            least 1.
    """

    def __init__(self, env: AnyEnv, most: int = 50) -> None:
        RecordConstructorArgs.__init__(self, most=most)
        IntervalWrapper.__init__(self, env)
        self._most = check_whole("most", most, 1)

    @property
    def decisions_per_episode(self) -> int:
        """Decisions in a whole episode, if nothing diverges."""
        left, decisions = self._steps_to_decide_on, 0
        while left > 0:
            left, decisions = left - self._interval(decisions), decisions + 1
        return decisions

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, with an interval of 1."""
        observation, info = super().reset(seed=seed, options=options)
        self._set()
        return observation, info

    def step(self, action: Any) -> Step:
        """Take a step, and double the interval for the next one: trials before it have that interval, too."""
        result = self._step(action)
        if not self._below.over:
            self._set()
        return result

    def _set(self) -> None:
        self._below.set_interval(self._interval(self._below.decisions))

    def _interval(self, decisions: int) -> int:
        return min(1 << min(decisions, 62), self._most)


def check_intervals(intervals: Sequence[int], total_steps: int) -> tuple[int, ...]:
    """Return the intervals to choose from.

    Raises:
        ValueError: there are none, or they are not different whole numbers from 1 to `total_steps`.
    """
    if not isinstance(intervals, Iterable):
        raise ValueError(f"intervals must be a sequence of numbers of training steps, got {intervals!r}")
    found = tuple(check_whole("intervals", steps, 1) for steps in intervals)
    if not found:
        raise ValueError("intervals must be at least one number of training steps, got none")
    if twice := [steps for i, steps in enumerate(found) if steps in found[:i]]:
        raise ValueError(f"intervals must be different numbers of training steps, got {twice[0]} twice")
    if max(found) > total_steps:
        raise ValueError(f"intervals must be at most the run's {total_steps} training steps, got {max(found)}")
    return found


def interval_wrapper(env: AnyEnv) -> IntervalWrapper | None:
    """Return the wrapper that gives decisions other intervals than k, if there is one around an environment."""
    return next((wrapper for wrapper in _wrappers(env) if isinstance(wrapper, IntervalWrapper)), None)


def _wrappers(env: AnyEnv) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
