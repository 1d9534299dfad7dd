"""Traces: which tying was in force when, as text that a person can read and `diff` can compare.

    # tying trace, 12 layers
    start frozen
    5 0 0 2 3 0 0 1 0 0 0 2 0

The first number of a line is the training step at which the tying was applied, the others are the tying.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.base import Controller
from tying_env import partition
from tying_env.partition import IntVector

TRACE = "trace.txt"


@dataclass(frozen=True)
class Trace:
    """What a run applied: the tying it began with (None: the frozen start) and one tying per decision."""

    n_layer: int
    start: IntVector | None
    tyings: Sequence[IntVector]  # (L,) each


def header(n_layer: int, start: IntVector | None) -> str:
    """Return the first two lines of a trace."""
    begin = "frozen" if start is None else " ".join(map(str, start.tolist()))
    return f"# tying trace, {n_layer} layers\nstart {begin}\n"


def line(train_step: int, tying: IntVector) -> str:
    """Return the line of a tying applied after `train_step` training steps."""
    return f"{train_step} {' '.join(map(str, tying.tolist()))}\n"


def read_trace(path: Path) -> Trace:
    """Read the trace of a run directory, or a trace file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged; the message names the file, the line and what is wrong.
    """
    file = path / TRACE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no trace at {file}")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a tying trace: it is not UTF-8 text ({error})") from error
    if len(lines) < 2 or not lines[0].startswith("# tying trace, ") or not lines[1].startswith("start "):
        raise ValueError(f"{file} is not a tying trace: it must begin with '# tying trace, N layers' and 'start ...'")
    try:
        n_layer = int(lines[0].split()[3])
    except (IndexError, ValueError):
        raise ValueError(f"{file} line 1 must read '# tying trace, N layers', got {lines[0]!r}") from None
    begin = lines[1].removeprefix("start ")
    start = None if begin == "frozen" else _tying(begin.split(), n_layer, file, 2)
    tyings = [_tying(text.split()[1:], n_layer, file, number) for number, text in enumerate(lines[2:], 3)]
    if not tyings:
        raise ValueError(f"{file} holds no decision")
    return Trace(n_layer, start, tyings)


def _tying(words: list[str], n_layer: int, file: Path, number: int) -> IntVector:
    try:
        tying = partition.validate_action([int(word) for word in words], n_layer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} line {number} is damaged: {error}") from error
    if not partition.is_tying(tying):
        raise ValueError(f"{file} line {number} is damaged: {tying.tolist()} is not a tying in canonical form")
    return tying


class ReplayController(Controller):
    """Applies a recorded trace, decision by decision (paper, ablation iv); after its end, its last tying.

    Args:
        trace: what to replay.
        n_layer: L of the environment.
        order: a permutation of the layers, shape (L,): layer `order[i]` does what layer i did (ablation iii).

    Raises:
        ValueError: the trace is of another number of layers.
    """

    def __init__(self, trace: Trace, n_layer: int, order: IntVector | None = None) -> None:
        if trace.n_layer != n_layer:
            raise ValueError(f"the trace is of {trace.n_layer} layers, the environment has {n_layer}")
        order = np.arange(n_layer) if order is None else order
        self._start = None if trace.start is None else partition.permute(trace.start, order)
        self._tyings = [partition.permute(tying, order) for tying in trace.tyings]
        self._next = 0

    def begin(self) -> None:
        """Go back to the first decision."""
        self._next = 0

    def initial_tying(self) -> IntVector | None:
        """Return what the recorded run began with."""
        return self._start

    def act(self, observation: IntVector) -> IntVector:
        """Return the next tying of the trace."""
        tying = self._tyings[min(self._next, len(self._tyings) - 1)]
        self._next += 1
        return tying.copy()

    def state_dict(self) -> dict[str, int]:
        """Return the position in the trace."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position in the trace."""
        self._next = state["next"]
