"""Weights & Biases (https://docs.wandb.ai/ref/python/)."""

from __future__ import annotations

import os
from typing import Any

from tying_agents.loop import Loop
from tying_agents.trackers.base import PROJECT, Tracker, import_library


class WandbTracker(Tracker):
    """Logs a run to Weights & Biases.

    Its environment variables decide: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and the others. Without
    WANDB_MODE and WANDB_API_KEY it is offline: the record is kept in the run directory, in `wandb/`, and
    `wandb sync RUN/wandb/offline-run-*` uploads it later.

    Args:
        settings: keywords of `wandb.init`, such as project, group, tags; they go before the environment variables.

    Raises:
        ImportError: wandb is not installed.
    """

    kind = "wandb"

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._wandb = import_library("wandb", "wandb")
        self._settings = settings
        self._run: Any = None

    def begin(self, loop: Loop, name: str, settings: dict[str, Any], saved: str | None) -> tuple[str, int]:
        """Begin a record, or continue one: offline that is another part of it, which is uploaded to the same run."""
        usual: dict[str, Any] = {"name": name}
        if "WANDB_PROJECT" not in os.environ:
            usual["project"] = PROJECT
        if not {"WANDB_MODE", "WANDB_API_KEY"} & set(os.environ):
            usual["mode"] = "offline"
        if "WANDB_DIR" not in os.environ and loop.directory is not None:
            usual["dir"] = str(loop.directory)
        chosen = usual | self._settings
        if saved is not None:
            chosen |= {"id": saved}
            if chosen.get("mode", os.environ.get("WANDB_MODE")) != "offline":
                chosen |= {"resume": "allow"}
        self._run = self._wandb.init(config=settings, reinit="create_new", **chosen)
        # wandb counts from the step after the last one; a record that begins does so at 0.
        return self._run.id, self._run.step - 1 if self._run.resumed else -1

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Add a row to the history."""
        self._run.log(numbers, step=step)

    def finish(self, status: str, summary: dict[str, Any], step: int) -> None:
        """Fill the summary; a run that failed or diverged is marked as failed."""
        if self._run is None:
            return
        self._run.summary.update({"status": status, **summary})
        self._run.finish(exit_code=1 if status in ("failed", "diverged") else 0)
