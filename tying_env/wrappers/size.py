"""A limit on the bytes of a network: the objective of a file of so many bytes, as a reward.

What a network would take is computed from shapes and from who shares with whom, and nothing is compressed: every weight
once, matrices in `bits` bits with a scale of 2 bytes for each row, vectors in 2 bytes a number. That is what
`tying_env.compression` stores before it codes it, the description of the network aside.
"""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from tying_env.environment import check_whole
from tying_env.wrappers.base import AnyEnv, Step, check_finite, layer_tying_env


class MaxBytesReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Take off the reward what the network is larger than `max_bytes`: `weight` x the share of bytes beyond.

    Within the limit the reward stays as it is; a network of twice the bytes pays the whole weight. `info` has
    `packed_bytes` besides.

    Example (three of four layers with weights of their own are too large for 13,000 bytes, two are not):
        >>> env = MaxBytesReward(make(), max_bytes=13_000, weight=10.0)
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step([0, 1, 1, 1])
        >>> info["packed_bytes"], reward == -info["perplexity"]
        (12512, True)
        >>> observation, reward, terminated, truncated, info = env.step([0, 1, 2, 2])
        >>> info["packed_bytes"], reward == -info["perplexity"] - 10.0 * (info["packed_bytes"] / 13_000 - 1)
        (16288, True)

    Args:
        env: a LayerTyingEnv, wrapped or not.
        max_bytes: that the network may take.
        bits: of a weight in a matrix: 8, 6 or 4.
        weight: lambda, in units of the reward below.

    Raises:
        TypeError: it is not a LayerTyingEnv.
        ValueError: the network takes more with all its layers tied, and the message has the bytes that it takes; or a
            number is out of range.
    """

    def __init__(self, env: AnyEnv, max_bytes: int = 16_000_000, bits: int = 8, weight: float = 1.0) -> None:
        RecordConstructorArgs.__init__(self, max_bytes=max_bytes, bits=bits, weight=weight)
        gym.Wrapper.__init__(self, env)
        self._most = check_whole("max_bytes", max_bytes, 1)
        if bits not in (8, 6, 4):
            raise ValueError(f"bits must be one of 8, 6, 4, got {bits!r}")
        self._weight = check_finite("weight", weight)
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight!r}")
        self._below = layer_tying_env(env)
        self._outside, self._units = self._sizes(bits)
        kinds = self._below.kinds
        copied = self._below.config.replication == "copied"  # layers stay apart, whatever the tying
        least = self._bytes(range(kinds.n_units) if copied else np.unique(kinds.lowest))
        if least > self._most:
            why = "layers that are copied and not tied take" if copied else "with all layers tied the network takes"
            raise ValueError(f"max_bytes is {self._most:,}, and {why} {least:,} in {bits} bits")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; frozen layers hold initial weights of their own, which count."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info | {"packed_bytes": self.packed_bytes}

    def step(self, action: Any) -> Step:
        """Take the step, then take the penalty off its reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        size = self.packed_bytes
        beyond = max(0.0, size / self._most - 1)
        return observation, float(reward) - self._weight * beyond, terminated, truncated, info | {"packed_bytes": size}

    @property
    def packed_bytes(self) -> int:
        """What the network takes now.

        Raises:
            gymnasium.error.ResetNeeded: no episode is running.
        """
        return self._bytes(np.unique(self._below.trainer.tied.sources()))

    def _bytes(self, owners: Iterable[int]) -> int:
        return self._outside + sum(self._units[owner] for owner in owners)

    def _sizes(self, bits: int) -> tuple[int, list[int]]:
        """Return the bytes of what is never tied, and of what a tying takes from each unit, (L,)."""
        from tying_env.primary.rows import bytes_in  # here, because it imports torch
        from tying_env.slots import get, slots

        network, only = self._below.workload.skeleton(), self._below.config.tied_parameters
        found: list[int] = []
        tied: set[int] = set()
        for unit in network.units:
            own = {id(get(slot)): bytes_in(bits, slot[0], get(slot)) for slot in slots(unit, only).values()}
            found.append(sum(own.values()))
            tied |= own.keys()
        outside = sum(
            bytes_in(bits, network.model.get_submodule(name.rpartition(".")[0]), parameter)
            for name, parameter in network.model.named_parameters()
            if id(parameter) not in tied
        )
        return outside, found
