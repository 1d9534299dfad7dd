"""Callbacks, which are called as a run goes on: progress bars, recorders, trackers, and whatever a user brings.

    class StopWhenFlat(Callback):
        def validation_measured(self, loop, record):
            if record["validation_perplexity"] < 10:
                loop.stop("good enough")

The project's own bar, TensorBoard curves, recorder and checkpoints are callbacks, too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tying_env.partition import IntVector
from tying_env.plugins import foreign_code, load_object

if TYPE_CHECKING:
    from tying_agents.loop import Loop

# One decision as it stands in metrics.jsonl: `Loop.complete` says what is in it.
Record = Mapping[str, Any]


class Callback:
    """Base class of callbacks. Each method is called at one moment of a run, and does nothing unless it is overridden.

    `loop.stop(reason)` ends the run after the decision in progress, with a checkpoint and a summary. What a callback
    raises ends the run; the checkpoints that are there stay.
    """

    def run_begins(self, loop: Loop) -> None:
        """A run begins or is resumed; `loop.decisions` were made before."""

    def episode_begins(self, loop: Loop, tying: IntVector | None) -> None:
        """An episode begins with this tying, shape (L,); None is the frozen start."""

    def training_step(self, loop: Loop) -> None:
        """A training step, or a measurement, is about to begin; `loop.steps_done` are done. This has to be quick."""

    def validation_measured(self, loop: Loop, record: Record) -> None:
        """The network was measured on the validation split at this decision; `decision_made` follows."""

    def decision_made(self, loop: Loop, record: Record) -> None:
        """A decision was made, and its training steps are done."""

    def note(self, text: str) -> None:
        """The run has a remark to show, one or more sentences."""

    def run_ends(self, loop: Loop, status: str) -> None:
        """The run ends: finished, diverged, interrupted, terminated, stopped, or failed.

        This is called once, also after an error.
        """


class Callbacks(Callback):
    """Several callbacks as one, told in their order.

    Args:
        callbacks: each is told of everything.
        foreign: import strings of those that are code of the user's own, by position.
    """

    def __init__(self, callbacks: Sequence[Callback], foreign: Mapping[int, str] | None = None) -> None:
        self._callbacks = list(callbacks)
        self._foreign = dict(foreign or {})

    def run_begins(self, loop: Loop) -> None:
        """Tell each."""
        self._tell("run_begins", lambda one: one.run_begins(loop))

    def episode_begins(self, loop: Loop, tying: IntVector | None) -> None:
        """Tell each."""
        self._tell("episode_begins", lambda one: one.episode_begins(loop, tying))

    def training_step(self, loop: Loop) -> None:
        """Tell each."""
        self._tell("training_step", lambda one: one.training_step(loop))

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Tell each."""
        self._tell("decision_made", lambda one: one.decision_made(loop, record))

    def validation_measured(self, loop: Loop, record: Record) -> None:
        """Tell each."""
        self._tell("validation_measured", lambda one: one.validation_measured(loop, record))

    def note(self, text: str) -> None:
        """Tell each."""
        self._tell("note", lambda one: one.note(text))

    def run_ends(self, loop: Loop, status: str) -> None:
        """Tell each, also after one has raised."""
        with contextlib.ExitStack() as stack:
            for number, one in reversed(list(enumerate(self._callbacks))):
                stack.callback(self._call, number, "run_ends", functools.partial(one.run_ends, loop, status))

    def _tell(self, moment: str, call: Callable[[Callback], None]) -> None:
        for number, one in enumerate(self._callbacks):
            self._call(number, moment, functools.partial(call, one))

    def _call(self, number: int, moment: str, call: Callable[[], None]) -> None:
        spec = self._foreign.get(number)
        with foreign_code(spec, f"in {moment}()") if spec else contextlib.nullcontext():
            call()


def conduct(loop: Loop, decide: Callable[[], None]) -> None:
    """Make the decisions of a loop, and tell its callbacks of the beginning and the end.

    Args:
        loop: not begun yet.
        decide: makes the decisions.
    """
    status = "failed"
    try:
        loop.callbacks.run_begins(loop)
        decide()
        status = "diverged" if loop.diverged else "finished" if loop.finished else "stopped"
    finally:
        loop.callbacks.run_ends(loop, status)


def load_callbacks(specs: Sequence[str]) -> list[Callback]:
    """Return the callbacks that import strings name: classes that are called without arguments, or ready objects.

    Raises:
        ValueError, FileNotFoundError, ImportError, TypeError: there is no callback of that name.
        tying_env.plugins.ForeignCodeError: its code failed.
    """
    return [_load(spec) for spec in specs]


def _load(spec: str) -> Callback:
    expected = "a tying_agents.Callback: a class that is called without arguments, or an object"
    found = load_object(spec, expected, lambda one: isinstance(one, Callback) or callable(one))
    if isinstance(found, Callback):
        return found
    ours = spec.startswith("tying_agents.")  # a tracker, say, whose library is not installed
    with contextlib.nullcontext() if ours else foreign_code(spec, "while the callback was made"):
        made = found()
    if not isinstance(made, Callback):
        raise TypeError(f"{spec} must make {expected}, got {type(made).__name__}")
    return made
