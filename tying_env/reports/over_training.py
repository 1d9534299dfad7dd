"""Means over a run's training of what its decisions recorded."""

from collections.abc import Mapping, Sequence
from typing import Any


def mean_over_training(values: Sequence[float], records: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of a value of each decision; where decisions differ in length, each counts by its training steps.

    Args:
        values: one for each record.
        records: of one run's decisions, or of several runs'.
    """
    steps = [record.get("interval") or 1 for record in records]
    return sum(value * n for value, n in zip(values, steps, strict=True)) / sum(steps)
