"""Code as a user of the package writes it, in files outside of it, and the command line that is given it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tying_agents.commands import start

from tying_env import plugins

CONTROLLER = '''
from dataclasses import dataclass

import numpy as np
from tying_agents import Controller
from tying_env.seeding import capture_numpy, restore_numpy


class Mine(Controller):
    """Ties every layer to the one that has paid best, or to another one now and then."""

    @dataclass(frozen=True)
    class Settings:
        curiosity: float = 0.5
        """Probability of trying a layer."""
        patience: int = 2

    def __init__(self, settings, context):
        self.settings, self.n_units, self.rng = settings, context.n_units, context.rng()
        self.paid = [0.0] * context.n_units

    def act(self, observation):
        curious = self.rng.random() < self.settings.curiosity
        target = int(self.rng.integers(self.n_units)) if curious else int(np.argmax(self.paid))
        return np.minimum(np.arange(self.n_units), target)

    def update(self, transition):
        self.paid[int(transition.action.max())] = transition.reward

    def metrics(self):
        return {"patience_given": self.settings.patience}

    def state_dict(self):
        return {"paid": list(self.paid), "rng": capture_numpy(self.rng)}

    def load_state_dict(self, state):
        self.paid = list(state["paid"])
        restore_numpy(self.rng, state["rng"])
'''

REWARD = '''
import gymnasium as gym


class AgainstTheMean(gym.RewardWrapper):
    """The reward less the mean of those so far."""

    def __init__(self, env):
        super().__init__(env)
        self.total, self.count = 0.0, 0

    def reward(self, reward):
        self.total, self.count = self.total + reward, self.count + 1
        return reward - self.total / self.count

    def state_dict(self):
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state):
        self.total, self.count = state["total"], state["count"]
'''

CALLBACK = """
from tying_agents import Callback


class StopAtFour(Callback):
    def decision_made(self, loop, record):
        if record["decision"] == 4:
            loop.stop("four are enough")
"""

SMALL = (
    "--tokenizer bytes --n-layer 4 --n-embd 16 --n-head 2 --seq-len 16 --batch-size 4 --k 2 --total-steps 20 "
    "--validate-every 4 --validation-windows 8 --test-windows 4 --device cpu"
)


def small(text_folder: Path) -> list[str]:
    """Return options of a run of 9 decisions."""
    return [*SMALL.split(), "--dataset", str(text_folder)]


def write(folder: Path, name: str, source: str) -> Path:
    """Write a file of a user's own, new to this process."""
    path = folder / name
    path.write_text(source, encoding="utf-8")
    forget()
    return path


def marking(marker: Path, source: str = "") -> str:
    """Return code that leaves a file when it is imported."""
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n{source}"


def forget() -> None:
    """Forget all code that was loaded from files, as another process has not loaded it yet."""
    for path, module in plugins._loaded.items():
        sys.modules.pop(module.__name__, None)
        plugins._hashes.pop(path, None)
    plugins._loaded.clear()


def layer_tying(capsys: pytest.CaptureFixture[str], command: str, *words: Any) -> tuple[int, str]:
    """Return the exit code of a command and what it printed, with runs of white space as one space."""
    capsys.readouterr()
    try:
        code = start(command, [str(word) for word in words])
    except SystemExit as ended:  # tyro, after --help and wrong options
        code = int(ended.code or 0)
    return code, " ".join(capsys.readouterr().out.split())


def fails(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """Return what `layer-tying run` prints when it ends with the exit code 1."""
    code, out = layer_tying(capsys, "run", *words)
    assert code == 1, out
    assert "error:" in out
    return out
