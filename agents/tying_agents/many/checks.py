"""What many runs are refused for before any is made. No torch here: a refusal comes at once."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tying_agents.config_files import differences_to_config, saved_config
from tying_agents.many.plan import ArmSpec, RunPlan, planned_run, tuning_runs, unfinished_folder
from tying_agents.run_config import RunConfig
from tying_agents.running.checks import check_early
from tying_env.config import EnvConfig
from tying_env.config.network import is_own
from tying_env.files import is_new_folder
from tying_env.reports.loading import COMPARISON
from tying_env.runs.run_directory import CONFIG, RunDirectory


def check_comparison(arms: Sequence[ArmSpec], plan: RunPlan) -> list[str]:
    """Check arms, settings and folder of a comparison, as far as that can be known at once.

    Returns:
        The arms that are in the folder already.

    Raises:
        ValueError: arms do not fit each other, or the folder holds runs with other settings, or something else.
        TypeError, OSError, ImportError, tying_env.plugins.ForeignCodeError: an agent or the data cannot be had.
    """
    labels = [arm.label for arm in arms]
    for i, arm in enumerate(arms):
        if not arm.label.strip() or set(arm.label) & set("/\\") or arm.label in (".", ".."):
            raise ValueError(f"the arm {arm.label!r} cannot be a folder; choose another name")
        if arm.label in labels[:i]:
            raise ValueError(f"the arm {arm.label!r} is there twice")
        if missing := set(arm.after) - set(labels[:i]):
            raise ValueError(f"the arm {arm.label!r} needs the arm {sorted(missing)[0]!r} before it")
    before = _arms_before(plan.folder)
    for arm in arms:
        if not arm.after:
            for config in tuning_runs(arm, plan):
                refuse_changes(config)
            for seed in plan.seeds:  # their learning rates may still have to be chosen
                refuse_changes(planned_run(arm, plan, seed), but=("env.learning_rate",) if plan.learning_rates else ())
            check_early(arm.configure(plan.folder / "runs", plan.seeds[0]))
    return before


def refuse_changes(config: RunConfig, but: tuple[str, ...] = ()) -> None:
    """Check that a run which is there, finished or not, was begun with these settings.

    Raises:
        ValueError: it was not; the message names the settings.
    """
    assert config.run_dir is not None
    for folder, kind in ((config.run_dir, "a finished"), (unfinished_folder(config), "an unfinished")):
        try:
            about = RunDirectory.open(folder).read_json(CONFIG)
            if kind == "an unfinished":
                saved_config(about, [spec for _, spec in config.foreign()])
        except FileNotFoundError:
            continue
        except ValueError:
            if kind == "a finished":
                raise
            continue  # it is damaged: see tying_agents.many.one_run
        asked = dataclasses.replace(config, env=_settled(config.env))
        if differ := differences_to_config(about, asked, but):
            raise ValueError(f"{folder} is {kind} run with other settings: {'; '.join(differ)}. Choose another --out")


def _settled(env: EnvConfig) -> EnvConfig:
    if not is_own(env.model):
        return env
    from tying_env.primary.assembly import settled  # imports torch, and so does the user's network

    return settled(env)


def _arms_before(folder: Path) -> list[str]:
    """Return the arms of the comparison that a folder holds; none if it is new.

    Raises:
        ValueError: it holds something else.
    """
    if is_new_folder(folder, COMPARISON):
        return []
    if not (folder / COMPARISON).is_file():
        raise ValueError(f"{folder} exists already and is no comparison; choose another folder")
    return [str(label) for label in RunDirectory(folder).read_json(COMPARISON).get("arms", [])]
