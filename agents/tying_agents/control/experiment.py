"""Makes the runs of the positive control, one line of a file each, so that it can be stopped at any time.

The folder has runs.jsonl, a line for each run: who, on which task, and what it got at each mark; and table.json
and table.md, the means over seeds (`tying_agents.control.table`).
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from tying_agents.callbacks import Callback, Record
from tying_agents.control.arms import ARMS, ControlArm, find_arm
from tying_agents.loop import Loop
from tying_agents.running.agents import drive_agent
from tying_env.json_lines import append_line, read_lines
from tying_env.synthetic import KINDS, Kind

ENV_ID = "LayerTying-Synthetic-v0"
RUNS = "runs.jsonl"
LAST = 0.1  # share of the decisions before a mark whose mean value counts


@dataclass(frozen=True)
class ControlPlan:
    """Which runs to make: all that these can be combined to.

    Raises:
        ValueError: one of them is out of its range; the message names it.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    kinds: tuple[Kind, ...] = ("additive", "pairwise")
    layers: tuple[int, ...] = (6, 12, 48)
    marks: tuple[int, ...] = (59, 400)
    seeds: int = 20
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("layers", 2), ("marks", 1)):
            values = getattr(self, name)
            if not values or min(values) < least:
                raise ValueError(f"{name} must be whole numbers of at least {least}, got {values}")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"kinds must be among {', '.join(KINDS)}, got {unknown[0]!r}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise must be a finite number of at least 0, got {self.noise!r}")
        for arm in self.arms:
            find_arm(arm)


@dataclass(frozen=True)
class OneRun:
    """One run: an arm on one task.

    Attributes:
        arm: its name.
        kind, n_layer, noise: of the task; see `tying_env.synthetic`.
        seed: of the agent, the task and its noise.
        decisions: how many the agent makes.
    """

    arm: str
    kind: Kind
    n_layer: int
    noise: float
    seed: int
    decisions: int


class EndOfMark(Callback):
    """Takes the mean value, without noise, of the last tenth of the decisions before each mark."""

    def __init__(self, marks: tuple[int, ...]) -> None:
        self._ranges = {mark: range(mark - max(1, int(LAST * mark)), mark) for mark in marks}
        self._sums = dict.fromkeys(marks, 0.0)
        self.known: dict[str, float] = {}

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Note the value of a decision."""
        for mark, counted in self._ranges.items():
            if record["decision"] - 1 in counted:
                self._sums[mark] += record["value"]
        self.known = {name: float(record[name]) for name in ("best", "chance")}

    def values(self) -> dict[str, float]:
        """Return the mean of each mark."""
        return {str(mark): self._sums[mark] / len(counted) for mark, counted in self._ranges.items()}


def runs_of(plan: ControlPlan) -> Iterator[OneRun]:
    """Yield the runs of a plan, seed by seed: a plan broken off has about equally many seeds everywhere."""
    for seed, n_layer, kind, name in itertools.product(range(plan.seeds), plan.layers, plan.kinds, plan.arms):
        lengths = plan.marks if find_arm(name).goes_by_length else (max(plan.marks),)
        for decisions in lengths:
            yield OneRun(name, kind, n_layer, plan.noise, seed, decisions)


def make_one(run: OneRun, marks: tuple[int, ...]) -> dict[str, Any]:
    """Make a run and return its line: the run, the value at each mark, what is known of the task, CPU seconds."""
    arm: ControlArm = find_arm(run.arm)
    env: gym.Env[Any, Any] = gym.make(
        ENV_ID,
        n_layer=run.n_layer,
        kind=run.kind,
        noise=run.noise,
        decisions=run.decisions,
        instance=run.seed,
    )
    ends = EndOfMark((run.decisions,) if arm.goes_by_length else marks)
    started = time.process_time()
    drive_agent(arm.agent, env, [ends], settings=arm.chosen, seed=run.seed)
    seconds = round(time.process_time() - started, 3)
    return {**asdict(run), "values": ends.values(), **ends.known, "cpu_seconds": seconds}


def make_runs(plan: ControlPlan, folder: Path, on_run: Callable[[int, int, OneRun | None], None]) -> None:
    """Make the runs of a plan that are not there yet; each is kept as soon as it is over.

    Args:
        plan: the runs.
        folder: for the file of runs.
        on_run: is told (runs done, runs in all, the next run) before the first run and after each.

    Raises:
        ValueError: the file is damaged; the message names the line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there: dict[OneRun, set[str]] = {}
    for line in read_runs(folder):
        there.setdefault(_run_of(line), set()).update(line["values"])
    waiting, total = [], 0
    for run in runs_of(plan):
        marks = (run.decisions,) if find_arm(run.arm).goes_by_length else plan.marks
        total += 1
        if not {str(mark) for mark in marks} <= there.get(run, set()):
            waiting.append(run)
    done = total - len(waiting)
    for run in waiting:
        on_run(done, total, run)
        append_line(folder / RUNS, make_one(run, plan.marks))
        done += 1
    on_run(done, total, None)


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of all runs in a folder; one that was cut off while it was written is cut out of the file.

    Raises:
        ValueError: another line is damaged; the message names it.
    """
    return read_lines(folder / RUNS, _checked)


def _checked(line: Any) -> dict[str, Any]:
    found: dict[str, Any] = line
    _run_of(found)
    _ = [float(found[name]) for name in ("best", "chance", "cpu_seconds")]
    _ = [int(mark) + float(value) for mark, value in found["values"].items()]
    return found


def _run_of(line: dict[str, Any]) -> OneRun:
    return OneRun(**{name: line[name] for name in OneRun.__dataclass_fields__})
