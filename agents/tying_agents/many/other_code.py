"""Runs that were made by other code of the user's own than is there now, in words. No torch here."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tying_agents.many.plan import ArmSpec, RunPlan, planned_run, tuning_runs, unfinished_folder
from tying_agents.run_config import RunConfig
from tying_agents.running.own_code import changed_code
from tying_env.reports.loading import UNFINISHED
from tying_env.runs.run_directory import CONFIG, RunDirectory


def arms_of_other_code(arms: Sequence[ArmSpec], plan: RunPlan) -> list[str]:
    """Return in words which runs of a comparison were made by other code, a line each.

    Arms that need the runs of others are passed over: their settings are not known yet.
    """
    found: list[tuple[str, str, str]] = []
    for arm in arms:
        if not arm.after:
            for config in (*tuning_runs(arm, plan), *(planned_run(arm, plan, seed) for seed in plan.seeds)):
                assert config.run_dir is not None
                changed = _changed((config.run_dir, unfinished_folder(config)), config)
                found += [(where, kind, arm.label) for where, kind in changed]
    return _in_words(found)


def trials_of_other_code(folder: Path, base: RunConfig) -> list[str]:
    """Return in words whether runs of a sweep were made by other code, a line each.

    Args:
        folder: of the trials.
        base: settings of all of them.
    """
    changed = _changed(sorted(folder.glob("*/seed*")), base)
    return _in_words([(where, kind, "earlier trials") for where, kind in changed])


def _changed(folders: Iterable[Path], config: RunConfig) -> list[tuple[str, str]]:
    """Return (file, "finished" or "unfinished") for the code of runs that are there and not made by what it is now."""
    found = []
    for folder in folders:
        try:
            about = RunDirectory.open(folder).read_json(CONFIG)
        except (FileNotFoundError, ValueError):  # a damaged one is made anew, or refused elsewhere
            continue
        kind = "unfinished" if folder.name.endswith(UNFINISHED) else "finished"
        found += [(where, kind) for where in changed_code(about, config)]
    return found


def _in_words(found: Sequence[tuple[str, str, str]]) -> list[str]:
    by_code: dict[tuple[str, str], dict[str, None]] = {}
    for where, kind, label in found:
        by_code.setdefault((where, kind), {})[label] = None
    made = {"finished": "were made", "unfinished": "were begun"}
    return [
        f"{where} has changed: the {kind} runs of {', '.join(labels)} {made[kind]} by other code"
        for (where, kind), labels in by_code.items()
    ]
