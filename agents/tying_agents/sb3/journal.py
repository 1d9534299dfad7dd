"""What went between a Stable-Baselines3 agent and its environment, written down so that both can be brought back.

SB3 keeps weights, optimizers, buffers, counters and generators in many places, and its own files leave out some of them
and pickle the others. So a run does not save an SB3 agent: it writes down every observation, action and reward. To go
on, a new agent with the same seed lives through all of that again. It takes the same decisions from the same
observations, and so comes to the same weights, buffers and generators; the environment meanwhile does nothing, for its
own state comes from the checkpoint. Reliving costs the agent's updates, no training step of the primary network.
"""

import json
import math
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import JOURNAL


class Journal(gym.Wrapper[Any, Any, Any, Any]):
    """Writes down what an agent does and is told; first lets it relive what was written down before.

    Args:
        env: the environment as the agent sees it.
        directory: the run directory; its journal holds what is to be relived.

    Raises:
        ValueError: the journal is damaged.
    """

    def __init__(self, env: gym.Env[Any, Any], directory: RunDirectory) -> None:
        super().__init__(env)
        self._directory = directory
        self._past = read_journal(env, directory)
        self._next = 0
        self._masks: npt.NDArray[np.bool_] | None = None

    @property
    def reliving(self) -> bool:
        """Whether what comes next was written down before."""
        return self._next < len(self._past)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, or relive its beginning."""
        if self.reliving:
            return self._observation(self._relive("reset", None)), {}
        observation, info = self.env.reset(seed=seed, options=options)
        self._write({"reset": None, "observation": observation})
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, or relive a step.

        Raises:
            ValueError: the agent decides otherwise than it did; it cannot be brought back then.
        """
        if self.reliving:
            line = self._relive("action", np.asarray(action).tolist())
            return self._observation(line), float(line["reward"]), line["terminated"], line["truncated"], {}
        observation, reward, terminated, truncated, info = self.env.step(action)
        done = {"terminated": terminated, "truncated": truncated}
        self._write({"action": action, "observation": observation, "reward": reward, **done})
        return observation, float(reward), terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are valid, for environments that say so."""
        assert self._masks is not None, "action_masks() follows reset()"
        return self._masks

    def _write(self, line: dict[str, Any]) -> None:
        if hasattr(self.env, "action_masks"):
            self._masks = self.env.action_masks()
            line["masks"] = self._masks
        self._directory.append_json(JOURNAL, line)

    def _relive(self, verb: str, value: Any) -> dict[str, Any]:
        line = self._past[self._next]
        if verb not in line or line[verb] != value:
            was = line.get("action", "a new episode")
            raise ValueError(
                f"this agent cannot be brought back: at line {self._next + 1} of its journal it did {was}, "
                f"and now does {'a new episode' if verb == 'reset' else value}; "
                "were torch or stable-baselines3 of other versions?"
            )
        self._next += 1
        self._masks = np.array(line["masks"], dtype=np.bool_) if "masks" in line else None
        return line

    def _observation(self, line: dict[str, Any]) -> Any:
        return _as_observed(self, line["observation"])


def read_journal(env: gym.Env[Any, Any], directory: RunDirectory, n_bytes: int | None = None) -> list[dict[str, Any]]:
    """Read and check the journal of a run.

    Args:
        env: the environment as the agent sees it.
        directory: the run directory.
        n_bytes: how much of it counts; all by default.

    Raises:
        ValueError: a line is damaged, or does not come from this environment; the message names it.
    """
    path = directory.path / JOURNAL
    if not path.exists():
        return []
    with open(path, "rb") as file:
        lines = file.read(n_bytes).splitlines()
    return [_read_line(env, line, f"{path} line {number}") for number, line in enumerate(lines, 1)]


def _read_line(env: gym.Env[Any, Any], text: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: {error}") from error
    if not isinstance(line, dict):
        raise ValueError(f"{where} is damaged: it must hold an object, got {text[:40]!r}")
    needed = {"observation"} | ({"reset"} if "reset" in line else {"action", "reward", "terminated", "truncated"})
    if not needed <= set(line):
        raise ValueError(f"{where} is damaged: it must have {', '.join(sorted(needed))}")
    try:
        observed = env.observation_space.contains(_as_observed(env, line["observation"]))
    except (TypeError, ValueError, OverflowError):
        observed = False
    if not observed:
        raise ValueError(f"{where} is damaged: {line['observation']!r} is no observation of {env.observation_space}")
    if "reset" not in line:
        if type(line["reward"]) not in (int, float) or not abs(line["reward"]) < math.inf:
            raise ValueError(f"{where} is damaged: its reward must be a finite number, got {line['reward']!r}")
        if any(type(line[name]) is not bool for name in ("terminated", "truncated")):
            raise ValueError(f"{where} is damaged: terminated and truncated must be true or false")
    masks, space = line.get("masks", []), env.action_space
    size = space.n if isinstance(space, gym.spaces.Discrete) else None
    if "masks" in line and not (
        isinstance(masks, list) and len(masks) == size and all(type(mask) is bool for mask in masks)
    ):
        raise ValueError(f"{where} is damaged: masks must be {size} times true or false")
    return line


def _as_observed(env: gym.Env[Any, Any], observation: Any) -> Any:
    return np.asarray(observation, dtype=env.observation_space.dtype)
