"""Whether a run can be resumed, and from where: everything is looked at before anything is changed."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tying_agents.run_config import RunConfig
from tying_agents.running.description import describe_inputs
from tying_agents.running.longer import LengthIsFixed, lengthened
from tying_agents.running.recorder import LOGS
from tying_agents.running.saved import DamagedRun, NothingToResume, OtherSettings, settings_to_resume
from tying_env import partition
from tying_env.differences import listed
from tying_env.env import LayerTyingEnv
from tying_env.files import to_json
from tying_env.primary.owned import check_owned
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory
from tying_env.runs.run_directory import RESUMES


@dataclass(frozen=True)
class Found:
    """A run that can be resumed.

    Attributes:
        directory: of the run.
        about: its config.json.
        config: its settings, in the folder where it is now.
        checkpoints: all it has.
        checkpoint: where it is resumed from; None: it was stopped before its first one, and starts over.
        longer: whether the run is made longer than it was begun.
    """

    directory: RunDirectory
    about: dict[str, Any]
    config: RunConfig
    checkpoints: Checkpoints
    checkpoint: Checkpoint | None
    longer: bool = False


def find(directory: RunDirectory, note: Callable[[str], None], asked: RunConfig | None) -> Found:
    """Read what is there of a run; nothing is changed.

    Raises:
        NamesCode, NothingToResume, RunIsOver, OtherSettings, DamagedRun: what the names say.
    """
    path = directory.path
    about, saved, config = settings_to_resume(directory, asked)
    checkpoints = Checkpoints(directory, LOGS, config.keep_checkpoints)
    try:
        checkpoint = checkpoints.newest(note)
    except ValueError as error:
        raise DamagedRun(str(error)) from error
    longer = saved.env.total_steps != config.env.total_steps
    if longer and checkpoint is not None:
        try:
            checkpoint = dataclasses.replace(checkpoint, state=lengthened(checkpoint.state, config))
        except LengthIsFixed as error:
            raise OtherSettings(f"{path} cannot be made longer: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(f"the checkpoint {checkpoint.folder} is damaged: {error!r}") from error
    every = _checkpoint_every(directory, saved)
    if checkpoint is None and every and len(directory.read_metrics()) > every:
        raise NothingToResume(f"{path} has no checkpoint to resume from, though it was past its first one")
    return Found(directory, about, config, checkpoints, checkpoint, longer)


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
        check_owned(env.workload.skeleton(), saved["sources"], shapes, found.config.env.tied_parameters)
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
