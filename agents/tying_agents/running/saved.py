"""Whether a run can be resumed, as far as its settings and its summary tell: no torch here, a refusal comes at once."""

import dataclasses
from typing import Any

from tying_agents.config_files import NamesCode, as_named, differences, saved_config
from tying_agents.run_config import RunConfig
from tying_agents.running.longer import LengthIsFixed, same_but_longer
from tying_env.runs.run_directory import CONFIG, SUMMARY, RunDirectory


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


def settings_to_resume(directory: RunDirectory, asked: RunConfig | None) -> tuple[dict[str, Any], RunConfig, RunConfig]:
    """Read the settings of a run that is to be resumed; nothing is changed.

    Args:
        directory: of the run.
        asked: settings to resume with; None for the run's own. More `total_steps` make the run longer.

    Returns:
        Its config.json, the settings it has, and those it is resumed with: in the folder where it is now.

    Raises:
        NamesCode, OtherSettings, DamagedRun, RunIsOver: what the names say.
    """
    path = directory.path
    try:
        named = [spec for _, spec in asked.foreign()] if asked else []
        about = as_named(directory.read_json(CONFIG), named)
        if asked is not None:
            _replace_callbacks(about, asked)
        saved = saved_config(about, named)
    except NamesCode:
        raise
    except ValueError as error:
        raise DamagedRun(f"{path / CONFIG} is damaged: {error}") from error
    config = dataclasses.replace(asked or saved, run_dir=path)
    if config.label is None:
        config = dataclasses.replace(config, label=saved.label)
    same = saved
    if saved.env.total_steps != config.env.total_steps:
        try:
            same = same_but_longer(saved, config)
        except LengthIsFixed as error:
            raise OtherSettings(f"{path} is a run with other settings: {error}") from error
        if config.env.warmup_steps is None:
            config = dataclasses.replace(
                config, env=dataclasses.replace(config.env, warmup_steps=same.env.warmup_steps)
            )
    if differ := differences(same, config):
        raise OtherSettings(f"{path} is a run with other settings: {'; '.join(differ)}")
    _refuse_what_is_over(directory, config)
    return about, saved, config


def _replace_callbacks(about: dict[str, Any], asked: RunConfig) -> None:
    """Leave a run's callbacks out of its config.json, and their code: those asked for are in their place."""
    before, code = about.get("callbacks"), about.get("code")
    about["callbacks"] = []
    if isinstance(before, list) and isinstance(code, dict):
        about["code"] = {spec: each for spec, each in code.items() if spec not in before or spec in asked.callbacks}


def _refuse_what_is_over(directory: RunDirectory, config: RunConfig) -> None:
    """Refuse a run that has come to its end, the measurement on the test split included.

    Raises:
        RunIsOver: it has.
    """
    try:
        summary = directory.read_json(SUMMARY)
        status, step, measured = summary["status"], int(summary["train_step"]), summary["test"] is not None
        spent = step + int(summary.get("trial_steps", 0))  # a run of an earlier version paid for none
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # it is written again at the end
    if status == "diverged":
        where = f"{directory.path}: the run diverged at training step {step}"
        raise RunIsOver(f"{where}; there is nothing to resume", status)
    if status == "finished" and spent >= config.env.total_steps and (measured or not config.measure_test):
        raise RunIsOver(f"{directory.path} is finished: there is nothing to resume", status)
