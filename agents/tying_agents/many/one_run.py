"""One run of many: made in a folder of a temporary name, resumed if it was stopped, never thrown away."""

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tying_agents.callbacks import Callback
from tying_agents.many.plan import unfinished_folder
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run
from tying_agents.running.saved import DamagedRun, NothingToResume, RunIsOver
from tying_agents.stopping import StopFile, at_work
from tying_env.files import set_aside
from tying_env.plugins import ForeignCodeError
from tying_env.reports.loading import UNFINISHED
from tying_env.runs import RunDirectory
from tying_env.runs.checkpoints import FOLDER as CHECKPOINTS
from tying_env.runs.run_directory import SUMMARY


def make_one_run(
    config: RunConfig, threads: int, stop: StopFile | None = None, callbacks: Sequence[Callback] = ()
) -> str:
    """Make one run in a folder of a temporary name, so that a run that was stopped is not taken for a finished one.

    A run that was stopped is resumed from its newest checkpoint. The checkpoints of a run that is over are removed:
    many runs would fill the disk with them.

    Args:
        config: its settings, with its folder.
        threads: CPU threads.
        stop: asks it to stop; signals to this process do by default.
        callbacks: are told how it goes, besides those that `config` names.

    Returns:
        How it ended; "waiting" if it was asked to stop before it began.

    Raises:
        ValueError, OSError: the run that is there cannot be resumed now, because its data are away or its
            settings are others, say; it is left as it is.
    """
    import torch

    torch.set_num_threads(threads)
    assert config.run_dir is not None
    unfinished = unfinished_folder(config)
    with at_work():
        if stop is not None and stop.should_stop():
            return "waiting"
        status = _resumed(config, unfinished, stop, callbacks)
        if status is None:
            _, status = run(dataclasses.replace(config, run_dir=unfinished), callbacks, stop)
        if status in ("finished", "diverged") or _was_stopped_by_a_callback(status, unfinished):
            give_its_name(config)
        return status


@contextlib.contextmanager
def saying_which(config: RunConfig, whose: str) -> Iterator[None]:
    """Let an error that comes out of this block say which run failed, and how the others continue.

    Args:
        config: settings of the run.
        whose: what it belongs to, "arm dqn".
    """
    told = f"the run of {whose}, seed {config.seed} ({config.run_dir}) failed"
    after = "finished runs stay: mend it and give the same command again"
    try:
        yield
    except ForeignCodeError as error:
        raise ForeignCodeError(f"{told}: {error}; {after}") from error.__cause__
    except Exception as error:
        for kind in (OSError, TypeError, ImportError, ValueError):  # what a command shows without a traceback
            if isinstance(error, kind):
                raise kind(f"{told}: {error}; {after}") from error
        error.add_note(f"{told}; {after}")
        raise


def give_its_name(config: RunConfig) -> None:
    """Give a run that is over its own name, and remove its checkpoints."""
    assert config.run_dir is not None
    unfinished = unfinished_folder(config)
    shutil.rmtree(unfinished / CHECKPOINTS, ignore_errors=True)
    unfinished.rename(config.run_dir)


def _was_stopped_by_a_callback(status: str, path: Path) -> bool:
    """Tell whether a run is over because one of its callbacks said so: there is nothing to wait for."""
    return status == "stopped" and RunDirectory(path).read_json(SUMMARY).get("stop_reason") is not None


def _resumed(config: RunConfig, unfinished: Path, stop: StopFile | None, callbacks: Sequence[Callback]) -> str | None:
    """Resume a run that was stopped, to its end; None where there is none, or only one that is damaged.

    A damaged one is kept under another name.
    """
    if not unfinished.exists():
        return None
    try:
        return resume(unfinished, callbacks, config, stop)[1]
    except RunIsOver as over:  # it was killed before it got its name
        return over.status
    except (NothingToResume, DamagedRun) as error:
        assert config.run_dir is not None
        aside = set_aside(unfinished, f"{config.run_dir.name}.damaged-{{}}{UNFINISHED}")
        print(f"{error}. It is kept as {aside}; the run starts over.", file=sys.stderr, flush=True)
        return None
