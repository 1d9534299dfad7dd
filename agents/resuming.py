"""Whether a run can be gone on with, and from where: everything is looked at before anything is changed."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.recorder import LOGS
from agents.run_config import RunConfig, differences, saved_config
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory
from tying_env.runs.run_directory import CONFIG, SUMMARY


class NothingToGoOnWith(FileNotFoundError):
    """There is no run, or it has no checkpoint where there should be one."""


class RunIsOver(ValueError):
    """The run has come to its end; `status` says how: finished or diverged."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


class OtherSettings(ValueError):
    """What is asked for now differs from what the run was begun with; the message lists the differences."""


class DamagedRun(ValueError):
    """The files of the run do not hold, and there is no checkpoint that can be used."""


@dataclass(frozen=True)
class Found:
    """A run that can be gone on with.

    Attributes:
        config: its settings, in the folder where it is now.
        checkpoints: all it has.
        checkpoint: where it goes on; None: it was stopped before its first one, and begins anew.
    """

    config: RunConfig
    checkpoints: Checkpoints
    checkpoint: Checkpoint | None


def find(directory: RunDirectory, observer: Any, asked: RunConfig | None) -> Found:
    """Read what is there of a run; nothing is changed.

    Raises:
        NothingToGoOnWith, RunIsOver, OtherSettings, DamagedRun: what the names say.
    """
    path = directory.path
    try:
        saved = saved_config(directory.read_json(CONFIG))
    except ValueError as error:
        raise DamagedRun(f"{path / CONFIG} is damaged: {error}") from error
    config = dataclasses.replace(asked or saved, run_dir=path, label=saved.label)
    if differ := differences(saved, config):
        raise OtherSettings(f"{path} is a run with other settings: {'; '.join(differ)}")
    _refuse_what_is_over(directory, config)
    checkpoints = Checkpoints(directory, LOGS, config.keep_checkpoints)
    try:
        checkpoint = checkpoints.newest(observer.note)
    except ValueError as error:
        raise DamagedRun(str(error)) from error
    if checkpoint is None and len(directory.read_metrics()) > config.checkpoint_every:
        raise NothingToGoOnWith(f"{path} has no checkpoint to go on from, though it was past its first one")
    return Found(config, checkpoints, checkpoint)


def _refuse_what_is_over(directory: RunDirectory, config: RunConfig) -> None:
    """Refuse a run that has come to its end, the measurement on the test split included.

    Raises:
        RunIsOver: it has.
    """
    try:
        summary = directory.read_json(SUMMARY)
        status, step, measured = summary["status"], summary["train_step"], summary["test"] is not None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # it is written again at the end
    if status == "diverged":
        where = f"{directory.path}: the run diverged at training step {step}"
        raise RunIsOver(f"{where}; there is nothing to go on with", status)
    if status == "finished" and (measured or not config.measure_test):
        raise RunIsOver(f"{directory.path} is finished: there is nothing to go on with", status)


def set_aside(folder: Path, name: str) -> Path:
    """Give a folder that cannot be used another name beside it, which `name` makes of a number, and return that."""
    number = 1
    while (aside := folder.with_name(name.format(number))).exists():
        number += 1
    folder.rename(aside)
    return aside
