"""Which arm a run belongs to, as in a comparison: runs of one label with other settings are not averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tying_env.reports.arms import group_into_arms, left_out_note
from tying_env.reports.loading import load_run


@dataclass(frozen=True)
class RunOfArm:
    """A run directory, its arm's label and its seed."""

    path: Path
    label: str
    seed: int


def in_arms(paths: Sequence[Path]) -> tuple[list[RunOfArm], list[str]]:
    """Return the runs that count, in their order, and notes of those in whose place a newer one does.

    Args:
        paths: run directories.

    Raises:
        FileNotFoundError, ValueError: one is no run, or damaged.
    """
    runs = [load_run(path) for path in paths]
    arms = group_into_arms(runs)
    labels = {id(run): arm.label for arm in arms for run in arm.runs}
    counted = [
        RunOfArm(path, labels[id(run)], run.seed) for path, run in zip(paths, runs, strict=True) if id(run) in labels
    ]
    return counted, [left_out_note(arm, run) for arm in arms for run in arm.left_out]
