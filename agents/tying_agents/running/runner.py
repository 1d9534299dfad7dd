"""Drives one agent through one environment into one run directory, from the start or from a checkpoint."""

import contextlib
import dataclasses
import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym

from tying_agents.controllers.base import Controller, Transition
from tying_agents.controllers_by_name import make_controller
from tying_agents.running.description import describe, describe_machine, now, other_machine
from tying_agents.running.recorder import LOGS, Observer, Recorder
from tying_agents.running.resuming import DamagedRun, NothingToGoOnWith, find, refuse_other_inputs, refuse_other_sizes
from tying_agents.run_config import RunConfig
from tying_agents.sb3.agent import SB3Name, check_journal, train_sb3
from tying_agents.stop_file import StopFile
from tying_agents.stop_signals import StopSignals
from tying_env.distributed import wait_for_all, world
from tying_env.episode import Stopped
from tying_env.runs import Checkpoint, Checkpoints, RunDirectory
from tying_env.runs.checkpoints import FOLDER
from tying_env.runs.run_directory import CONFIG, JOURNAL, RESUMES
from tying_env.runs.tensorboard import Curves
from tying_env.wrappers import wrap

Stop = StopFile | StopSignals

ENV_ID = "LayerTying-GPT2-v0"  # every setting is given to it, also which network it is

# The signal that stopped a run -> the run's status. The others are "finished", "diverged" and "stopped": by
# something else that `stop` watches, or by a signal to another process of the run.
_STOPPED_BY = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def run(config: RunConfig, observer: Observer, stop: Stop | None = None) -> tuple[RunDirectory, str]:
    """Train one primary network under one agent, and leave a run directory.

    Ctrl-C or SIGTERM ends the run after the training step in progress, with a checkpoint that `resume` goes on from.

    Args:
        config: its settings.
        observer: is told how it goes.
        stop: is asked between training steps whether to stop; by default that is signals to this process.

    Returns:
        The run directory, and how the run ended: finished, diverged, interrupted, terminated or stopped.

    Raises:
        ValueError, TypeError: a setting is wrong; nothing has been written then.
        FileExistsError: the run directory exists.
        OSError: the disk is full, say; what was written before is whole.
    """
    # Everything that can be wrong with the settings shows before anything is written.
    env, controller = _make(config)
    about = describe(config, env)
    directory = RunDirectory.create(config.run_dir or Path("runs") / default_name(config), about)
    with directory.lock():
        return directory, _carry_out(config, env, controller, directory, observer, stop, None, resumed=False)


def resume(
    path: Path,
    observer: Observer,
    asked: RunConfig | None = None,
    stop: Stop | None = None,
) -> tuple[RunDirectory, str]:
    """Go on with a run from its newest whole checkpoint; it ends with the same bits as if it had never stopped.

    Args:
        path: the run directory.
        observer: is told how it goes.
        asked: settings to go on with; where the results are kept and on which device may differ from the run's own.
        stop: as for `run`.

    Returns:
        As `run`.

    Raises:
        tying_agents.running.resuming.NothingToGoOnWith: there is no run, or it has no checkpoint. (A FileNotFoundError.)
        tying_agents.running.resuming.RunIsOver: it finished or diverged. (A ValueError, as the next two.)
        tying_agents.running.resuming.OtherSettings: the message lists the differences.
        tying_agents.running.resuming.DamagedRun: no checkpoint can be used; the message says why.
        ValueError: a checkpoint is whole, but does not fit; nothing is changed then.
        BlockingIOError: another process is at work in the run directory.
        OSError: the disk is full, say; what was written before is whole.
    """
    if not os.path.lexists(path / CONFIG):
        raise NothingToGoOnWith(f"{path} is not a run directory: it has no {CONFIG}")
    directory = RunDirectory(path)
    try:
        directory.check_plain(LOGS, FOLDER)
    except ValueError as error:
        raise DamagedRun(str(error)) from error
    with directory.lock():
        found = find(directory, observer, asked)
        env = _make_env(found.config)
        layer_tying: Any = env.unwrapped
        refuse_other_sizes(found, layer_tying)
        controller = _make_controller(found.config)
        refuse_other_inputs(found, layer_tying)
        if differ := other_machine(found.about, layer_tying):
            observer.note(f"The last bits of numbers may differ from here on: {'; '.join(differ)}.")
        return directory, _carry_out(
            found.config, env, controller, directory, observer, stop, found.checkpoint, resumed=True
        )


def _make(config: RunConfig) -> tuple[gym.Env[Any, Any], Controller | None]:
    """Make the environment and the controller."""
    return _make_env(config), _make_controller(config)


def _make_env(config: RunConfig) -> gym.Env[Any, Any]:
    rewards = {"parameter-penalty": {"weight": config.parameter_penalty}}
    return wrap(gym.make(ENV_ID, **dataclasses.asdict(config.env)), config.rewards, rewards)


def _make_controller(config: RunConfig) -> Controller | None:
    """Make the controller unless the agent is one of Stable-Baselines3's."""
    if config.agent in get_args(SB3Name):
        return None
    name: Any = config.agent
    return make_controller(
        name, config.env.n_units, config.seed, config.dqn, config.search, config.pattern, config.env.k
    )


def check(config: RunConfig) -> None:
    """Check that a run can be made with these settings: its environment and its agent are made and thrown away.

    Raises:
        ValueError, TypeError, OSError, ImportError: it cannot; nothing has been written.
    """
    _make(config)[0].close()


def _carry_out(
    config: RunConfig,
    env: gym.Env[Any, Any],
    controller: Controller | None,
    directory: RunDirectory,
    observer: Observer,
    stop: Stop | None,
    checkpoint: Checkpoint | None,
    resumed: bool,
) -> str:
    """Run, or go on with a run, to its end or until it is asked to stop; return how it ended."""
    try:
        with stop or StopSignals(observer.note) as signals:
            recorder = Recorder(
                env,
                directory,
                observer,
                seed=config.seed,
                episodes=config.episodes,
                test_windows=config.test_windows if config.measure_test and world().rank == 0 else None,
                checkpoints=Checkpoints(directory, LOGS, config.keep_checkpoints),
                checkpoint_every=config.checkpoint_every,
            )
            recorder.layer_tying.should_stop = signals.should_stop
            if resumed:
                _go_on(config, recorder, controller, checkpoint)
            with Curves(directory.path, config.env, recorder.train_step if resumed else None) as curves:
                recorder.curves = curves
                with contextlib.suppress(Stopped):
                    if controller is None:
                        agent: Any = config.agent
                        train_sb3(agent, config.sb3, recorder, config.seed)
                    else:
                        drive(controller, recorder)
                if not recorder.diverged:  # the last good checkpoint is from before
                    recorder.checkpoint({} if controller is None else controller.state_dict())
                status = recorder.conclude("stopped" if signals.asked is None else _STOPPED_BY[signals.asked])
                wait_for_all()  # when a process has ended by a signal, torchrun soon ends the others
        if status == "finished" and config.measure_test:
            if signals.asked is not None:  # too late to stop anything but the test
                return _STOPPED_BY[signals.asked]
            recorder.measure_test()  # here Ctrl-C ends at once: all but the test is written
    finally:
        env.close()
    return status


def _go_on(config: RunConfig, recorder: Recorder, controller: Controller | None, checkpoint: Checkpoint | None) -> None:
    """Bring everything to where a checkpoint was taken, or (None) to the start.

    Raises:
        ValueError: the checkpoint does not fit; no file of the run is changed then.
    """
    directory = recorder.directory
    if checkpoint is None:
        recorder.observer.note(f"{directory.path} was stopped before its first checkpoint: beginning anew.")
    else:
        try:
            recorder.load_state_dict(checkpoint.state)
            if controller is not None:
                controller.load_state_dict(checkpoint.state["controller"])
            else:
                agent: Any = config.agent
                check_journal(agent, recorder, checkpoint.logs[JOURNAL])
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(f"the checkpoint {checkpoint.folder} is damaged: {error!r}") from error
        except ValueError as error:
            raise ValueError(f"the checkpoint {checkpoint.folder} does not fit: {error}") from error
        where = f"{checkpoint.folder} at training step {recorder.train_step}"
        recorder.observer.note(f"Going on from {where}.")
    directory.sweep()
    for name in LOGS:
        directory.shorten(name, 0 if checkpoint is None else checkpoint.logs[name])
    if checkpoint is not None:
        checkpoint.set_aside_damaged()
        checkpoint.restore_best(directory)
    resumed = {"at": now(), "from": checkpoint and checkpoint.folder.name, "checkpoint_every": config.checkpoint_every}
    directory.append_json(RESUMES, resumed | describe_machine(recorder.layer_tying))


def drive(controller: Controller, recorder: Recorder) -> None:
    """Let a controller decide until its episodes are over.

    Raises:
        tying_env.episode.Stopped: the environment was asked to stop; `recorder` and controller can be saved then.
    """
    controller.bind(recorder.layer_tying)
    for text in controller.notes():
        recorder.observer.note(text)
    while not recorder.finished:
        if recorder.over:
            controller.begin()
            recorder.reset(controller.initial_tying())
        observation = recorder.observation
        # 1. Decide, tie, train, measure. (A step that was stopped has its action already.)
        if recorder.action is None:
            recorder.action = controller.act(observation)
        following, reward, terminated, _, _ = recorder.step(recorder.action)
        # 2. Learn.
        controller.update(Transition(observation, recorder.action, reward, following, terminated))
        # 3. Record.
        recorder.record(controller.metrics())
        recorder.checkpoint_if_due(controller.state_dict)


def default_name(config: RunConfig) -> str:
    """Return the name of a run's folder when none was asked for."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{config.agent}-seed{config.seed}"
