"""One run of many: made in a folder of a temporary name, gone on with if it was stopped, never thrown away."""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

from tying_agents.running.resuming import DamagedRun, NothingToGoOnWith, RunIsOver
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run
from tying_agents.stop_file import StopFile, at_work
from tying_env.files import set_aside
from tying_env.reports.loading import UNFINISHED
from tying_env.runs.checkpoints import FOLDER as CHECKPOINTS


class Quiet:
    """An observer that says nothing: many runs at once would talk all at the same time."""

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def carry_out_run(config: RunConfig, threads: int, stop: StopFile | None = None) -> str:
    """Make one run in a folder of a temporary name, so that a run that was stopped is not taken for a finished one.

    A run that was stopped goes on from its newest checkpoint. The checkpoints of a run that is over are removed: many
    runs would fill the disk with them.

    Args:
        config: its settings, with its folder.
        threads: CPU threads.
        stop: asks it to stop; signals to this process do by default.

    Returns:
        How it ended; "waiting" if it was asked to stop before it began.

    Raises:
        ValueError, OSError: the run that is there cannot be gone on with now, because its data are away or its
            settings are others, say; it is left as it is.
    """
    import torch

    torch.set_num_threads(threads)
    assert config.run_dir is not None
    unfinished = unfinished_folder(config)
    with at_work():
        if stop is not None and stop.should_stop():
            return "waiting"
        status = _go_on(config, unfinished, stop)
        if status is None:
            _, status = run(dataclasses.replace(config, run_dir=unfinished), Quiet(), stop)
        if status in ("finished", "diverged"):
            shutil.rmtree(unfinished / CHECKPOINTS, ignore_errors=True)
            unfinished.rename(config.run_dir)
        return status


def unfinished_folder(config: RunConfig) -> Path:
    """Return the folder of a run that is not over."""
    assert config.run_dir is not None
    return config.run_dir.with_name(config.run_dir.name + UNFINISHED)


def _go_on(config: RunConfig, unfinished: Path, stop: StopFile | None) -> str | None:
    """Go on with a run that was stopped, to its end; None where there is none, or only one that is damaged.

    A damaged one is kept under another name.
    """
    if not unfinished.exists():
        return None
    try:
        return resume(unfinished, Quiet(), config, stop)[1]
    except RunIsOver as over:  # it was killed before it got its name
        return over.status
    except (NothingToGoOnWith, DamagedRun) as error:
        assert config.run_dir is not None
        aside = set_aside(unfinished, f"{config.run_dir.name}.damaged-{{}}{UNFINISHED}")
        print(f"{error}. It is kept as {aside}; the run begins anew.", file=sys.stderr, flush=True)
        return None
