"""Drives one agent through one environment into one run directory, from the start or from a checkpoint."""

import contextlib
import dataclasses
import functools
import itertools
import os
import signal
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import gymnasium as gym

from tying_agents.callbacks import Callback, Callbacks, load_callbacks
from tying_agents.foreign_wrappers import Checked
from tying_agents.loop import Loop
from tying_agents.run_config import RunConfig
from tying_agents.running.agents import RunningAgent, make_agent
from tying_agents.running.collapse import CollapseWatch
from tying_agents.running.curves import TensorBoard
from tying_agents.running.description import describe, describe_machine, now, other_machine, other_masks
from tying_agents.running.longer import about_longer
from tying_agents.running.own_code import changed_code, in_words
from tying_agents.running.recorder import LOGS, Checkpointer, Recorder, restore
from tying_agents.running.results import conclude, measure_test
from tying_agents.running.resuming import Found, find, refuse_other_inputs, refuse_other_sizes
from tying_agents.running.saved import DamagedRun, NothingToResume
from tying_agents.stopping import StopFile, StopSignals
from tying_env.distributed import wait_for_all, world
from tying_env.episode import Stopped
from tying_env.plugins import foreign_code, is_import_string, load_object
from tying_env.primary.assembly import settled
from tying_env.runs import Checkpoints, RunDirectory
from tying_env.runs.checkpoints import FOLDER
from tying_env.runs.run_directory import CONFIG, JOURNAL, RESUMES, SUMMARY
from tying_env.wrappers import check_wrapper_states, wrap

Stop = StopFile | StopSignals

ENV_ID = "LayerTying-GPT2-v0"  # every setting is given to it, also which network it is

# The signal that stopped a run -> the run's status. The others are "finished", "diverged" and "stopped": by a callback,
# by something else that `stop` watches, or by a signal to another process of the run.
_STOPPED_BY = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def run(config: RunConfig, callbacks: Sequence[Callback] = (), stop: Stop | None = None) -> tuple[RunDirectory, str]:
    """Train one primary network under one agent, and leave a run directory.

    Ctrl-C or SIGTERM ends the run after the training step in progress, with a checkpoint that `resume` continues from.

    Args:
        config: its settings.
        callbacks: are told how it goes, besides those that `config` names.
        stop: is asked between training steps whether to stop; by default that is signals to this process.

    Returns:
        The run directory, and how the run ended: finished, diverged, interrupted, terminated or stopped.

    Raises:
        ValueError, TypeError: a setting is wrong; nothing has been written then.
        FileExistsError: the run directory exists.
        OSError: the disk is full, say; what was written before is whole.
        tying_env.plugins.ForeignCodeError: code of the user's own failed.
    """
    # Everything that can be wrong with the settings shows before anything is written.
    made = _Made.of(dataclasses.replace(config, env=settled(config.env)))
    inner: Any = made.env.unwrapped
    about, files = describe(made.config, made.env), inner.workload.files()
    directory = RunDirectory.create(config.run_dir or default_folder(config), about, files)
    with directory.lock():
        return directory, _complete(made, directory, callbacks, stop)


def resume(
    path: Path,
    callbacks: Sequence[Callback] = (),
    asked: RunConfig | None = None,
    stop: Stop | None = None,
) -> tuple[RunDirectory, str]:
    """Resume a run from its newest whole checkpoint; it ends with the same bits as if it had never stopped.

    Args:
        path: the run directory.
        callbacks: are told how it goes.
        asked: settings to resume with; where the results are kept and on which device may differ from the run's own.
            A run with code of a user's own is resumed only with settings that name it.
        stop: as for `run`.

    Returns:
        As `run`.

    Raises:
        tying_agents.running.saved.NothingToResume: there is no run, or it has no checkpoint. (A FileNotFoundError.)
        tying_agents.running.saved.RunIsOver: it finished or diverged. (A ValueError, as the next three.)
        tying_agents.config_files.NamesCode: it names code of a user's own that `asked` does not.
        tying_agents.running.saved.OtherSettings: the message lists the differences.
        tying_agents.running.saved.DamagedRun: no checkpoint can be used; the message says why.
        ValueError: a checkpoint is whole, but does not fit; nothing is changed then.
        BlockingIOError: another process is at work in the run directory.
        OSError: the disk is full, say; what was written before is whole.
    """
    if not os.path.lexists(path / CONFIG):
        raise NothingToResume(f"{path} is not a run directory: it has no {CONFIG}")
    if asked is not None:
        asked = dataclasses.replace(asked, env=settled(asked.env))
    directory, note = RunDirectory(path), Callbacks(callbacks).note
    try:
        directory.check_plain(LOGS, FOLDER)
    except ValueError as error:
        raise DamagedRun(str(error)) from error
    with directory.lock():
        found = find(directory, note, asked)
        env = make_env(found.config)
        inner: Any = env.unwrapped
        refuse_other_sizes(found, inner)
        made = _Made.around(env, found.config)
        refuse_other_inputs(found, inner)
        if differ := other_machine(found.about, inner):
            note(f"The last bits of numbers may differ from here on: {'; '.join(differ)}.")
        if differ := other_masks(found.about, inner):
            note(f"Compiled blocks draw other masks of dropout, so numbers differ from here on: {differ[0]}.")
        if changed := changed_code(found.about, found.config):
            note(f"{in_words(changed)}; results may differ from what they would have been.")
        return directory, _complete(made, directory, callbacks, stop, found)


def check(config: RunConfig) -> None:
    """Check that a run can be made with these settings: its environment and its agent are made and thrown away.

    Raises:
        ValueError, TypeError, OSError, ImportError, tying_env.plugins.ForeignCodeError: it cannot; nothing has been
            written.
    """
    _Made.of(config).env.close()


def make_env(config: RunConfig) -> gym.Env[Any, Any]:
    """Return the environment of a run, in its wrappers.

    Raises:
        ValueError, TypeError, OSError, ImportError, tying_env.plugins.ForeignCodeError: it cannot be made.
    """
    env: gym.Env[Any, Any] = gym.make(ENV_ID, **dataclasses.asdict(config.env))
    chosen: dict[str, dict[str, Any]] = {
        "parameter-penalty": {"weight": config.parameter_penalty},
        "max-bytes": {
            "max_bytes": config.max_bytes,
            "bits": config.max_bytes_bits,
            "weight": config.max_bytes_penalty,
        },
        "limit-changes": {"max_changes": config.max_changes},
        "settle": {"after": config.settle_after},
        "choose-interval": {"intervals": config.intervals},
        "interval-doubling": {"most": config.longest_interval},
    }
    for name in (*config.rewards, *config.wrappers):
        if is_import_string(name):
            wrapper = load_object(name, "a gymnasium.Wrapper class, or a function from an environment to a wrapped one")
            with foreign_code(name, "while it was put around the environment"):
                env = wrapper(env)
            if not isinstance(env, gym.Env):
                raise TypeError(f"{name} must return an environment, got {type(env).__name__}")
            env = Checked(env)
        else:
            env = wrap(env, [name], chosen)
    check_wrapper_states(env)
    return env


def default_folder(config: RunConfig) -> Path:
    """Return a run's folder when none was asked for: another one for each of two runs of the same second."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{config.name}-seed{config.seed}"
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a run consists of, made from its settings."""

    config: RunConfig
    env: gym.Env[Any, Any]
    agent: RunningAgent
    callbacks: list[Callback]

    @classmethod
    def of(cls, config: RunConfig) -> "_Made":
        return cls.around(make_env(config), config)

    @classmethod
    def around(cls, env: gym.Env[Any, Any], config: RunConfig) -> "_Made":
        if config.measure_test:
            try:
                env.unwrapped.windows("test", 1)  # type: ignore[attr-defined]
            except ValueError as error:  # of an own network: after the training is too late to say so
                raise ValueError(f"{error}, or leave the test split alone: --no-measure-test") from error
        # Of several processes the first one alone has callbacks of the user's own.
        return cls(config, env, make_agent(config, env), load_callbacks(config.callbacks if world().rank == 0 else ()))


def _complete(
    made: _Made,
    directory: RunDirectory,
    callbacks: Sequence[Callback],
    stop: Stop | None,
    found: Found | None = None,
) -> str:
    """Make a run, or what is left of one that was found, until it ends or is asked to stop; return how it ended."""
    config, env, agent = made.config, made.env, made.agent
    recorder = Recorder(directory)
    checkpoints = Checkpoints(directory, LOGS, config.keep_checkpoints)
    checkpointer = Checkpointer(checkpoints, config.checkpoint_every, recorder, agent.state_dict)
    ours = [recorder, TensorBoard(directory.path, resumed=found is not None), CollapseWatch(directory)]
    told = [*ours, *made.callbacks, *callbacks, checkpointer]
    foreign = dict(zip(range(len(ours), len(ours) + len(made.callbacks)), config.callbacks, strict=False))
    loop = Loop(env, Callbacks(told, foreign), episodes=config.episodes, seed=config.seed)
    loop.config, loop.directory = config, directory.path
    status = "failed"
    try:
        with stop or StopSignals(loop.callbacks.note) as signals:
            loop.inner.should_stop = functools.partial(_between_steps, loop, signals)
            if found is not None:
                _continue(loop, recorder, agent, found, checkpointer)
            loop.callbacks.run_begins(loop)
            with contextlib.suppress(Stopped):
                agent.run(loop, directory)
            if not loop.diverged:  # the last good checkpoint is from before
                checkpointer.write(loop)
            stopped = "stopped" if signals.asked is None else _STOPPED_BY[signals.asked]
            ended = conclude(loop, recorder, stopped, agent.chooses)
            wait_for_all()  # when a process has ended by a signal, torchrun soon ends the others
        if ended == "finished" and config.measure_test:
            if signals.asked is not None:  # too late to stop anything but the test
                ended = _STOPPED_BY[signals.asked]
            elif world().rank == 0:
                measure_test(loop, recorder, config.test_windows)  # here Ctrl-C ends at once: all else is written
        status = ended
    finally:
        try:
            loop.callbacks.run_ends(loop, status)
        finally:
            env.close()
    return status


def _between_steps(loop: Loop, signals: Stop) -> bool:
    """Tell the callbacks that a training step is due, and return whether to stop instead."""
    loop.callbacks.training_step(loop)
    return signals.should_stop()


def _continue(loop: Loop, recorder: Recorder, agent: RunningAgent, found: Found, checkpointer: Checkpointer) -> None:
    """Bring everything to where a checkpoint was taken, or (None) to the start.

    Raises:
        ValueError: the checkpoint does not fit; no file of the run is changed then.
    """
    directory, checkpoint, config = recorder.directory, found.checkpoint, found.config
    if checkpoint is None:
        loop.callbacks.note(f"{directory.path} was stopped before its first checkpoint: starting over.")
    else:
        try:
            restore(checkpoint.state, loop, recorder)
            agent.load_state_dict(checkpoint.state["controller"], loop, directory, checkpoint.logs[JOURNAL])
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(f"the checkpoint {checkpoint.folder} is damaged: {error!r}") from error
        except ValueError as error:
            raise ValueError(f"the checkpoint {checkpoint.folder} does not fit: {error}") from error
        loop.callbacks.note(f"Resuming from {checkpoint.folder} at training step {loop.train_step}.")
    directory.sweep()
    for name in LOGS:
        directory.shorten(name, 0 if checkpoint is None else checkpoint.logs[name])
    if checkpoint is not None:
        checkpoint.set_aside_damaged()
        checkpoint.restore_best(directory)
    resumed = {"at": now(), "from": checkpoint and checkpoint.folder.name, "checkpoint_every": config.checkpoint_every}
    directory.append_json(RESUMES, resumed | describe_machine(loop.inner.device))
    if found.longer:
        _lengthen(loop, checkpointer, found)


def _lengthen(loop: Loop, checkpointer: Checkpointer, found: Found) -> None:
    """Make a run longer that has just been resumed.

    Its checkpoints belong to its config.json. So one that belongs to the next one comes first, and a crash between any
    two of these steps leaves either the shorter run or the longer one.
    """
    directory = found.directory
    about = about_longer(directory.read_json(CONFIG), found.config)
    if found.checkpoint is not None:
        checkpointer.write(loop, about)
    directory.write_json(CONFIG, about)
    (directory.path / SUMMARY).unlink(missing_ok=True)  # of the shorter run
    loop.callbacks.note(f"The run is made longer: {found.config.env.total_steps} training steps.")
