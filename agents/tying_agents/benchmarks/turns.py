"""Timing of things that are compared: they take turns, and ratios are taken turn by turn."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from tying_agents.benchmarks.settings import Clock

CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


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
        ratio = None if base is None else statistics.median(a / b for a, b in zip(own, base, strict=True))
        beside = None if base is None else against
        wanted = (required or {}).get(name)
        rows.append(TableRow(name, statistics.median(own), min(own), max(own), unit, ratio, beside, wanted))
    return rows


def milliseconds(seconds: Mapping[str, Sequence[float]], count: int = 1) -> dict[str, list[float]]:
    """Return milliseconds for one of `count` things."""
    return {name: [1e3 * s / count for s in turns] for name, turns in seconds.items()}


def per_second(seconds: Mapping[str, Sequence[float]], count: int) -> dict[str, list[float]]:
    """Return how many of `count` things are done in a second."""
    return {name: [count / s for s in turns] for name, turns in seconds.items()}
