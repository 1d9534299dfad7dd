"""What went between a Stable-Baselines3 agent and its environment, written down so that both can be brought back.

SB3 keeps weights, optimizers, buffers, counters and generators in many places, and its own files leave out some of them
and pickle the others. So a run does not save an SB3 agent: it writes down every observation, action and reward. To go
on, a new agent with the same seed lives through all of that again. It takes the same decisions from the same
observations, and so comes to the same weights, buffers and generators; the environment meanwhile does nothing, for its
own state comes from the checkpoint. Reliving costs the agent's updates, no training step of the primary network.
"""

import json
from collections.abc import Sequence
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
        self._past = _read(directory)
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
        return np.asarray(line["observation"], dtype=self.observation_space.dtype)


def _read(directory: RunDirectory) -> Sequence[dict[str, Any]]:
    path = directory.path / JOURNAL
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is damaged: {error}") from error
        needed = {"observation"} | ({"reset"} if "reset" in line else {"action", "reward", "terminated", "truncated"})
        if not isinstance(line, dict) or not needed <= set(line):
            raise ValueError(f"{path} line {number} is damaged: it must have {', '.join(sorted(needed))}")
        lines.append(line)
    return lines
