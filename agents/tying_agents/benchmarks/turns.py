"""Timing of things that are compared: they take turns, and ratios are taken turn by turn."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from tying_agents.benchmarks.settings import Clock

MOST_SPREAD = 0.1  # a ratio whose turns vary by more of it is not shown
RATIO = "x"  # the unit of a row that is a ratio itself

CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

Note = Callable[[str], None]  # is told how far a long measurement is


class TableRow(NamedTuple):
    """One number of the result."""

    name: str
    median: float
    min: float
    max: float
    unit: str
    ratio: float | None  # to the row named `against`
    against: str | None
    required: str | None  # what the ratio or the median is meant to be
    ratio_min: float | None = None  # over the turns; None as the ratio, and in files of before
    ratio_max: float | None = None


class Contender(NamedTuple):
    """One of the things that are compared."""

    name: str
    work: Callable[[], object]
    prepare: Callable[[], object] = lambda: None  # before each turn, not timed
    steps: int = 1  # the same thing so many times in one turn


def take_turns(
    arms: Sequence[Contender], repeats: int, device: torch.device, clock: Clock = "wall"
) -> dict[str, list[float]]:
    """Return the seconds of every turn of every arm, for one of its steps; every other round goes backwards."""
    read = CLOCKS[clock]
    synchronise: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    gc.collect()
    for repeat in range(-1, repeats):  # round -1 warms up
        for arm in arms if repeat % 2 else reversed(arms):
            arm.prepare()
            synchronise()
            begin = read()
            arm.work()
            synchronise()
            if repeat >= 0:
                seconds[arm.name].append((read() - begin) / arm.steps)
    return seconds


def to_rows(
    values: Mapping[str, Sequence[float]],
    unit: str,
    against: str | None = None,
    required: Mapping[str, str] | None = None,
) -> list[TableRow]:
    """Sum up the values of each arm; the ratios are those of the same turn."""
    rows = []
    for name, own in values.items():
        base = None if against is None or name == against else values[against]
        row = TableRow(name, statistics.median(own), min(own), max(own), unit, None, None, (required or {}).get(name))
        if base is not None:
            ratios = [a / b for a, b in zip(own, base, strict=True)]
            least, most = min(ratios), max(ratios)
            row = row._replace(ratio=statistics.median(ratios), against=against, ratio_min=least, ratio_max=most)
        rows.append(row)
    return rows


def tell_ratio(median: float, least: float, most: float) -> str:
    """Return a ratio as it is shown, or by how much its turns vary, if that is so much that it says nothing."""
    if most - least <= MOST_SPREAD * median:
        return f"{median:.4g}"
    return f"varies by {100 * (most - least) / median if median else math.inf:.0f} %"


def milliseconds(seconds: Mapping[str, Sequence[float]], count: int = 1) -> dict[str, list[float]]:
    """Return milliseconds for one of `count` things."""
    return {name: [1e3 * s / count for s in turns] for name, turns in seconds.items()}


def per_second(seconds: Mapping[str, Sequence[float]], count: int) -> dict[str, list[float]]:
    """Return how many of `count` things are done in a second."""
    return {name: [count / s for s in turns] for name, turns in seconds.items()}
