"""What all trackers share: what is logged, when, and how a resumed run finds its own record again."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop
from tying_env.differences import flat
from tying_env.files import to_json
from tying_env.partition import IntVector
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import SUMMARY

PROJECT = "layer-tying"  # or experiment, where nobody has named one

# Measured now and then; a record holds the last values in between.
_MEASURED = "validation_"


class Tracker(Callback):
    """Hands settings, decisions and summary of a run to an experiment tracker.

    - Settings: all of the run, nested as in config.json.
    - Every decision: the numbers of its line in metrics.jsonl, under the same names, and tokens_per_second, at the
      training step; the measurements on validation only at the decisions at which they were made. What is not finite
      is left out.
    - At the end: how the run ended, and the numbers of summary.json.

    The tracker's name for the run stands in the run directory, in `<kind>.json`. A resumed run continues that record;
    steps that the record has already, from before a crash, are not logged again: they come out with the same bits.

    A subclass has `begin`, `log` and `finish`, and imports its library in `__init__` with `import_library`, so that a
    run without it is refused before anything is written.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self._begun = False
        self._last_step = -1
        self._measured = False

    @abstractmethod
    def begin(self, loop: Loop, name: str, settings: dict[str, Any], saved: str | None) -> tuple[str, int]:
        """Begin a record, or continue one.

        Args:
            loop: the run.
            name: for people; the run directory's, or the agent's.
            settings: nested, ready for JSON.
            saved: what this method returned when the run began; None for a new run.

        Returns:
            The tracker's own name of the record, by which it is found again; and the last training step that is in it,
            -1 where there is none or nobody can tell.
        """

    @abstractmethod
    def log(self, numbers: dict[str, float], step: int) -> None:
        """Add finite numbers at a training step."""

    @abstractmethod
    def finish(self, status: str, summary: dict[str, Any], step: int) -> None:
        """Add the summary and close the record.

        Args:
            status: finished, diverged, interrupted, terminated, stopped or failed.
            summary: numbers and texts by name; empty where the run has none.
            step: the last training step.
        """

    def run_begins(self, loop: Loop) -> None:
        """Begin a record; or continue that of the run that is resumed."""
        directory = None if loop.directory is None else RunDirectory(loop.directory)
        settings = loop.inner.config if loop.config is None else loop.config
        saved = None
        if directory is not None and (directory.path / self._file).is_file() and loop.decisions:
            saved = directory.read_json(self._file)["id"]
        name = type(loop.inner).__name__ if directory is None else directory.path.name
        plain = json.loads(to_json(dataclasses.asdict(settings)))
        self._begun = True
        identity, self._last_step = self.begin(loop, name, plain, saved)
        if directory is not None and saved is None:
            directory.write_json(self._file, {"id": identity})

    def episode_begins(self, loop: Loop, tying: IntVector | None) -> None:
        """Forget the measurement of the episode before."""
        self._measured = False

    def validation_measured(self, loop: Loop, record: Record) -> None:
        """Log the measurement with the decision."""
        self._measured = True

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Log a decision at its training step."""
        fresh, self._measured = self._measured, False
        if loop.train_step <= self._last_step:
            return
        shown = {name: value for name, value in record.items() if fresh or not name.startswith(_MEASURED)}
        self.log(finite_numbers({**shown, "tokens_per_second": loop.tokens_per_second}), loop.train_step)

    def run_ends(self, loop: Loop, status: str) -> None:
        """Log the summary, and close the record; also of a run that failed."""
        if not self._begun:
            return
        self._begun = False
        summary: dict[str, Any] = {}
        if status != "failed" and loop.directory is not None and (loop.directory / SUMMARY).is_file():
            summary = flat(RunDirectory(loop.directory).read_json(SUMMARY))
        known = {name: value for name, value in summary.items() if value is not None and name != "status"}
        # A run that was stopped and then resumed to its end has no reason any more.
        self.finish(status, {"stop_reason": "", **known}, loop.train_step)

    @property
    def _file(self) -> str:
        return f"{self.kind}.json"


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers among some values; true and false are 1 and 0."""
    numbers = {name: value for name, value in values.items() if isinstance(value, (Real, np.bool_))}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def import_library(name: str, extra: str) -> Any:
    """Return a tracker's library.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(f"this tracker needs {error.name}: pip install 'tying-env[{extra}]'") from error
