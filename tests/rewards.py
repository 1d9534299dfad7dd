"""An environment that gives a list of rewards, and what of them comes out at the end."""

from typing import Any

import gymnasium as gym


class Rewards(gym.Env[int, int]):
    """Gives a list of rewards, one a step."""

    observation_space = gym.spaces.Discrete(1)
    action_space = gym.spaces.Discrete(1)

    def __init__(self, rewards: list[float]) -> None:
        self.rewards = rewards

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        if options:
            raise ValueError("no options here")
        self.given = iter(self.rewards)
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return 0, next(self.given), False, False, {}


def rewards_of(env: gym.Env[Any, Any], steps: int, seed: int | None = None) -> list[float]:
    env.reset(seed=seed)
    return [float(env.step(0)[1]) for _ in range(steps)]
