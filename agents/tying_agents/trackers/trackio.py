"""Trackio (https://huggingface.co/docs/trackio)."""

from __future__ import annotations

import uuid
from typing import Any

from tying_agents.loop import Loop
from tying_agents.trackers.base import PROJECT, Tracker, finite_numbers, import_library


class TrackioTracker(Tracker):
    """Logs a run to Trackio: SQLite files on this machine, shown by `trackio show`.

    Its environment variables decide: TRACKIO_DIR (where), TRACKIO_SPACE_ID, TRACKIO_SERVER_URL (to a server instead).
    It has no status of a run: that is in the last row, beside the numbers of the summary.

    Args:
        project: in which the run is shown.
        settings: other keywords of `trackio.init`, such as group or auto_log_cpu.

    Raises:
        ImportError: Trackio is not installed.
    """

    kind = "trackio"

    def __init__(self, project: str = PROJECT, **settings: Any) -> None:
        super().__init__()
        self._trackio = import_library("trackio", "trackio")
        self._settings = {"project": project, "embed": False, **settings}
        self._run: Any = None

    def begin(self, loop: Loop, name: str, settings: dict[str, Any], saved: str | None) -> tuple[str, int]:
        """Begin a run under a name that no other has, or continue it."""
        unique = saved or f"{name}-{uuid.uuid4().hex[:6]}"
        resume = "never" if saved is None else "allow"
        self._run = self._trackio.init(name=unique, config=settings, resume=resume, **self._settings)
        return unique, -1  # its interface does not tell what it has: rows from before a crash come twice, and equal

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Add a row."""
        self._run.log(numbers, step=step)

    def finish(self, status: str, summary: dict[str, Any], step: int) -> None:
        """Add status and summary as a last row."""
        if self._run is None:
            return
        numbers = {f"summary/{name}": value for name, value in finite_numbers(summary).items()}
        self._run.log({"status": status, **numbers}, step=step)
        self._run.finish()
