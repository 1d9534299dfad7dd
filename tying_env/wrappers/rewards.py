"""Other rewards than the negative perplexity.

A wrapper changes the reward of the environment below it, so they can be stacked. `info` stays as it is, and keeps the
promise of equal keys at every call; the perplexity behind the environment's own reward is in `info["perplexity"]`.
"""

import math
from collections import deque
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from tying_env.environment import check_whole
from tying_env.seeding import capture_numpy, check_seed, numpy_stream, restore_numpy
from tying_env.wrappers.base import AnyEnv, Step, check_finite, layer_tying_env


class LogPerplexityReward(gym.RewardWrapper[Any, Any], RecordConstructorArgs):
    """Reward minus the logarithm of the perplexity: minus the mean loss in nats per token.

    The environment's reward is at least -e^20, so this one is at least -20, also when training diverged.

    Example:
        >>> env = LogPerplexityReward(make())
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step([0, 1, 1, 3])
        >>> reward == -math.log(info["perplexity"])
        True

    Args:
        env: an environment whose reward is minus a perplexity.
    """

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.RewardWrapper.__init__(self, env)

    def reward(self, reward: SupportsFloat) -> float:
        """Return minus the logarithm of minus the reward.

        Raises:
            ValueError: the reward is not below 0, so it is not minus a perplexity.
        """
        if not float(reward) < 0:
            raise ValueError(f"LogPerplexityReward needs minus a perplexity below it, got the reward {reward!r}")
        return -math.log(-float(reward))


class ImprovementReward(gym.RewardWrapper[Any, Any], RecordConstructorArgs):
    """Reward by how much the reward has grown since the last decision; the first of an episode gets 0.

    Example:
        >>> env = ImprovementReward(make())
        >>> observation, info = env.reset(seed=0)
        >>> env.step([0, 1, 1, 3])[1], env.step([0, 1, 1, 3])[1] == 0
        (0.0, False)

    Args:
        env: the environment to wrap.
    """

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.RewardWrapper.__init__(self, env)
        self._last: float | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with no last decision."""
        result = self.env.reset(seed=seed, options=options)
        self._last = None
        return result

    def reward(self, reward: SupportsFloat) -> float:
        """Return the reward less the one before."""
        now = float(reward)
        before, self._last = now if self._last is None else self._last, now
        return now - before

    def state_dict(self) -> dict[str, Any]:
        """Return the last reward, ready for JSON."""
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            ValueError: the last reward is neither None nor a finite number.
        """
        self._last = None if state["last"] is None else check_finite("last", state["last"])


class ClippedReward(gym.RewardWrapper[Any, Any], RecordConstructorArgs):
    """Clip the reward to [low, high].

    The published code clips -perplexity to [-10, 10]: a constant -10 for as long as the perplexity is above 10.

    Example:
        >>> env = ClippedReward(make(), low=-10, high=10)
        >>> observation, info = env.reset(seed=0)
        >>> env.step([0, 1, 1, 3])[1]
        -10.0

    Args:
        env: the environment to wrap.
        low: least reward.
        high: greatest reward.

    Raises:
        ValueError: a bound is not finite, or low is not below high.
    """

    def __init__(self, env: AnyEnv, low: float = -10.0, high: float = 10.0) -> None:
        RecordConstructorArgs.__init__(self, low=low, high=high)
        gym.RewardWrapper.__init__(self, env)
        self._low, self._high = check_finite("low", low), check_finite("high", high)
        if not low < high:
            raise ValueError(f"low must be below high, got low={low!r} and high={high!r}")

    def reward(self, reward: SupportsFloat) -> float:
        """Return the reward, or the bound that it is beyond."""
        return min(max(float(reward), self._low), self._high)


class ProbeBatchReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Reward minus the perplexity on one fixed batch of the training split, in place of the reward below.

    The batch never changes, in an episode or between seeds, so the reward lacks the noise of fresh batches. It is
    measured at the end of the step, whatever `reward_timing` says, and costs its forward passes on top of the step.
    When training diverged it is -e^20, as the environment's is.

    Example:
        >>> env = ProbeBatchReward(make(), windows=8)
        >>> observation, info = env.reset(seed=0)
        >>> env.step([0, 1, 1, 3])[1] == -env.unwrapped.evaluate("train", 8).perplexity
        True

    Args:
        env: a LayerTyingEnv, wrapped or not.
        windows: sequences of `seq_len` tokens in the batch, spread evenly over the split.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: windows is not a whole number of at least 1.
    """

    def __init__(self, env: AnyEnv, windows: int = 16) -> None:
        from tying_env.primary.evaluation import MAX_MEAN_LOSS  # here, because it imports torch

        RecordConstructorArgs.__init__(self, windows=windows)
        gym.Wrapper.__init__(self, env)
        self._worst = math.exp(MAX_MEAN_LOSS)
        self._windows = check_whole("windows", windows, 1)
        self._below = layer_tying_env(env)

    def step(self, action: Any) -> Step:
        """Take the step, then measure the network on the fixed batch."""
        observation, _, terminated, truncated, info = self.env.step(action)
        # Divergence by a loss or gradient leaves finite weights behind, which would get an ordinary reward here.
        measured = math.inf if terminated else self._below.evaluate("train", self._windows).perplexity
        return observation, -min(measured, self._worst), terminated, truncated, info


class ParameterPenaltyReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Take off the reward what the network costs: `weight` x trainable parameters / those of conventional training.

    Example (all layers independent is conventional training, which pays the whole weight):
        >>> env = ParameterPenaltyReward(make(), weight=3.0)
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step([0, 1, 2, 3])
        >>> reward == -info["perplexity"] - 3.0
        True

    Args:
        env: a LayerTyingEnv, wrapped or not.
        weight: lambda, in units of the reward below.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: weight is not a finite number of at least 0.
    """

    def __init__(self, env: AnyEnv, weight: float = 1.0) -> None:
        RecordConstructorArgs.__init__(self, weight=weight)
        gym.Wrapper.__init__(self, env)
        self._weight = check_finite("weight", weight)
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight!r}")
        self._below = layer_tying_env(env)

    def step(self, action: Any) -> Step:
        """Take the step, then take the penalty off its reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        share = info["trainable_parameters"] / self._below.trainer.count_conventional()
        return observation, float(reward) - self._weight * share, terminated, truncated, info


class ShuffledReward(gym.RewardWrapper[Any, Any], RecordConstructorArgs):
    """Reward what some earlier decision of the episode earned: a control whose rewards say nothing about the action.

    Each step returns one of the rewards of the steps before it, drawn uniformly with replacement; its own joins them
    afterwards. Only the first step of an episode has nothing to draw from and returns its own. A learner that does as
    well under this wrapper as without it has not learned from its rewards.

    Rewards grow while the network trains. Draws from the whole episode lag far behind that trend; draws from the last
    `window` rewards follow it, at the price that one of them is more often the last action's own.

    Example:
        >>> env = ShuffledReward(make(), seed=0)
        >>> observation, info = env.reset(seed=0)
        >>> first, second = env.step([0, 1, 1, 3])[1], env.step([0, 0, 0, 0])[1]
        >>> first == second
        True

    Args:
        env: the environment to wrap.
        seed: tells shuffles of one and the same training run apart. `reset(seed=n)` restarts the stream of draws from
            this seed and n; a reset without a seed continues it.
        window: draw from so many last rewards; None for all of the episode.

    Raises:
        ValueError: seed is not a whole number of at least 0, or window not one of at least 1.
    """

    def __init__(self, env: AnyEnv, seed: int = 0, window: int | None = None) -> None:
        RecordConstructorArgs.__init__(self, seed=seed, window=window)
        gym.RewardWrapper.__init__(self, env)
        self._name = f"shuffled rewards {check_seed(seed)}"
        self._rng = numpy_stream(0, self._name)
        self._seen: deque[float] = deque(maxlen=None if window is None else check_whole("window", window, 1))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with no rewards seen; with a seed, restart the stream of draws."""
        result = self.env.reset(seed=seed, options=options)
        self._seen.clear()
        if seed is not None:
            self._rng = numpy_stream(seed, self._name)
        return result

    def reward(self, reward: SupportsFloat) -> float:
        """Return one of the rewards seen before, then remember this one."""
        drawn = self._seen[int(self._rng.integers(len(self._seen)))] if self._seen else float(reward)
        self._seen.append(float(reward))
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return the rewards seen and where the stream of draws is, ready for JSON."""
        return {"seen": list(self._seen), "rng": capture_numpy(self._rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            ValueError: the state does not fit; this wrapper is as before then.
        """
        seen = [check_finite("a reward seen", reward) for reward in state["seen"]]
        restore_numpy(self._rng, state["rng"])
        self._seen = deque(seen, maxlen=self._seen.maxlen)
