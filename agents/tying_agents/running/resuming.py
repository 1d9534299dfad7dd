"""Whether a run can be resumed, and from where: everything is looked at before anything is changed."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tying_agents.config_files import NamesCode, differences, saved_config
from tying_agents.run_config import RunConfig
from tying_agents.running.description import describe_inputs
from tying_agents.running.recorder import LOGS
from tying_env import partition
from tying_env.differences import listed
from tying_env.env import LayerTyingEnv
from tying_env.files import to_json
from tying_env.primary.owned import check_owned
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory
from tying_env.runs.run_directory import CONFIG, RESUMES, SUMMARY


class NothingToResume(FileNotFoundError):
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
    """A run that can be resumed.

    Attributes:
        about: its config.json.
        config: its settings, in the folder where it is now.
        checkpoints: all it has.
        checkpoint: where it is resumed from; None: it was stopped before its first one, and begins anew.
    """

    about: dict[str, Any]
    config: RunConfig
    checkpoints: Checkpoints
    checkpoint: Checkpoint | None


def find(directory: RunDirectory, note: Callable[[str], None], asked: RunConfig | None) -> Found:
    """Read what is there of a run; nothing is changed.

    Raises:
        NothingToResume, RunIsOver, OtherSettings, DamagedRun: what the names say.
    """
    path = directory.path
    try:
        about = directory.read_json(CONFIG)
        if asked is not None:
            about["callbacks"] = []  # those asked for are in their place
        saved = saved_config(about, [spec for _, spec in asked.foreign()] if asked else ())
    except NamesCode:
        raise
    except ValueError as error:
        raise DamagedRun(f"{path / CONFIG} is damaged: {error}") from error
    config = dataclasses.replace(asked or saved, run_dir=path)
    if config.label is None:
        config = dataclasses.replace(config, label=saved.label)
    if differ := differences(saved, config):
        raise OtherSettings(f"{path} is a run with other settings: {'; '.join(differ)}")
    _refuse_what_is_over(directory, config)
    checkpoints = Checkpoints(directory, LOGS, config.keep_checkpoints)
    try:
        checkpoint = checkpoints.newest(note)
    except ValueError as error:
        raise DamagedRun(str(error)) from error
    every = _checkpoint_every(directory, saved)
    if checkpoint is None and every and len(directory.read_metrics()) > every:
        raise NothingToResume(f"{path} has no checkpoint to resume from, though it was past its first one")
    return Found(about, config, checkpoints, checkpoint)


def refuse_other_sizes(found: Found, env: LayerTyingEnv) -> None:
    """Refuse a network of other sizes than the checkpoint's before any memory is taken for it.

    Raises:
        DamagedRun: config.json says other sizes.
    """
    if found.checkpoint is None:
        return
    try:
        saved = found.checkpoint.state["env"]["trainer"]
        shapes = {name: tuple(tensor.shape) for name, tensor in saved["weights"].items()}
        partition.validate_action(saved["sources"], found.config.env.n_units)
        check_owned(env.workload.skeleton(), saved["sources"], shapes)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise DamagedRun(f"the checkpoint {found.checkpoint.folder} does not fit: {error}") from error


def refuse_other_inputs(found: Found, env: LayerTyingEnv) -> None:
    """Refuse to resume with other data, or another trace or pattern, than the run was begun with.

    Raises:
        OtherSettings: they have changed; the message says in what.
    """
    now = json.loads(to_json(describe_inputs(found.config, env)))
    # Code of the user's own may change: that is said, see `other_code`.
    if differ := listed({name: found.about.get(name) for name in now}, now, ["data.code.sha256"]):
        raise OtherSettings(f"{found.config.run_dir} was begun with other data: {'; '.join(differ)}")


def _checkpoint_every(directory: RunDirectory, saved: RunConfig) -> int:
    """Return how often the run wrote checkpoints when it last was at work."""
    try:
        *_, last = (directory.path / RESUMES).read_text(encoding="utf-8").splitlines()
        return int(json.loads(last)["checkpoint_every"])
    except (OSError, ValueError, KeyError, TypeError):
        return saved.checkpoint_every


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
        raise RunIsOver(f"{where}; there is nothing to resume", status)
    if status == "finished" and (measured or not config.measure_test):
        raise RunIsOver(f"{directory.path} is finished: there is nothing to resume", status)
