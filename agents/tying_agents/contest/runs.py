"""Makes the runs of a contest, a line of a file each, so that it can be stopped at any time.

<folder>/runs.jsonl has for every run: which agent, with which settings, on which task; the regret after so many
trainings; the tying found; and CPU seconds.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from tying_agents.contest.arms import ContestArm
from tying_agents.many.stoppable import call_until_stopped
from tying_env.differences import listed
from tying_env.files import to_json
from tying_env.json_lines import append_line, read_lines
from tying_env.table.objectives import Objective

ENV_ID = "LayerTying-Table-v0"
RUNS = "runs.jsonl"
MARKS = (5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Task:
    """What is to be found.

    Attributes:
        corpus: of the table.
        objective: see `tying_env.table.objectives`.
        trainings: that the budget pays for, whole ones.
        price: of the objective "priced".
        max_parameters: of "limited".
        table: the table's file; None for the package's own.
    """

    corpus: str = "sotu"
    objective: Objective = "perplexity"
    trainings: int = MARKS[-1]
    price: float = 1.0
    max_parameters: int | None = None
    table: Path | None = None

    def make(self, fidelities: bool = False) -> gym.Env[Any, Any]:
        """Return a new environment.

        Args:
            fidelities: whether actions say how long to train.

        Raises:
            ValueError, OSError: the table does not offer this; the message names what.
        """
        from tying_env.table import open_table

        if self.trainings < 1:
            raise ValueError(f"trainings must be at least 1, got {self.trainings}")
        settings = {name: value for name, value in vars(self).items() if name != "trainings"}
        budget = self.trainings * int(open_table(self.table).points[-1])
        return gym.make(ENV_ID, budget=budget, fidelities=fidelities, **settings)

    @property
    def marks(self) -> tuple[int, ...]:
        """Trainings after which the regret is looked at."""
        return tuple(sorted({mark for mark in MARKS if mark <= self.trainings} | {self.trainings}))

    def in_words(self) -> str:
        """Return what is to be found, as a sentence."""
        limit = "" if self.max_parameters is None else f" with at most {self.max_parameters:,} parameters"
        price = f" plus {self.price:g} for as many parameters as conventional training has"
        return f"To be found: the lowest perplexity{limit}{price if self.objective == 'priced' else ''}."

    def described(self) -> dict[str, Any]:
        """Return the task as runs have it: of the table the beginning of its corpus's digest, wherever the file lies.

        Raises:
            ValueError, OSError: the table cannot be opened.
        """
        from tying_env.table import open_table

        return {**vars(self), "table": open_table(self.table).sha256_of(self.corpus)[:16]}


@dataclass(frozen=True)
class Played:
    """A run.

    Attributes:
        arm: the agent's name.
        settings: of the agent.
        task: as `Task.described`.
        seed: of agent and environment.
        regret: mark -> regret of the best tying found by then; infinity where none was.
        decisions: that the agent made.
        seconds: of the CPU.
    """

    arm: str
    settings: dict[str, Any]
    task: dict[str, Any]
    seed: int
    regret: dict[int, float]
    decisions: int
    seconds: float


def play(arm: ContestArm, task: Task, seed: int) -> Played:
    """Let an agent search once.

    Raises:
        ValueError, OSError, ImportError: the agent or the table cannot be had.
        tying_env.plugins.ForeignCodeError: code of the user's own failed.
    """
    from tying_agents.running.agents import drive_agent

    env = task.make(arm.fidelities)
    inner: Any = env.unwrapped
    started = time.process_time()
    loop = drive_agent(arm.agent, env, settings=arm.settings, seed=seed)
    seconds = round(time.process_time() - started, 3)
    regret = {mark: inner.regret_after(mark * inner.steps_per_decision) for mark in task.marks}
    settings = dataclasses.asdict(arm.settings)
    return Played(arm.name, settings, task.described(), seed, regret, loop.decisions, seconds)


def make_runs(
    arms: Iterable[ContestArm],
    task: Task,
    seeds: int,
    folder: Path,
    on_run: Callable[[int, int, str], None],
    note: Callable[[str], None] = print,
    *,
    jobs: int = 1,
) -> list[Played]:
    """Make the runs that are not there yet; each is kept as soon as it is over. Seed by seed, each arm in turn.

    Args:
        arms: whom to let search.
        task: what for.
        seeds: of each, 0, 1, 2, ...
        folder: for the file of runs.
        on_run: is told (runs done, runs in all, whose is next) before the first run and after each.
        note: is told of a signal.
        jobs: runs at a time.

    Returns:
        All runs of these arms on this task.

    Raises:
        tying_agents.stopping.StoppedBySignal: there was a signal.
        ValueError: the file is damaged, or has runs of an arm of this name with other settings; the message says which.
        ValueError, OSError, ImportError, tying_env.plugins.ForeignCodeError: as `play`.
    """
    task.make().close()  # what is wrong with the task shows before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {arm.name: arm for arm in arms}
    there = _runs_there(chosen, task, seeds, folder)
    wanted = [(arm, seed) for seed in range(seeds) for arm in chosen.values()]
    waiting = [(arm, seed) for arm, seed in wanted if (arm.name, seed) not in there]
    first = len(wanted) - len(waiting)

    def tell(done: int) -> None:
        on_run(first + done, len(wanted), waiting[done][0].name if done < len(waiting) else "")

    tell(0)
    if waiting:
        calls = [(arm, task, seed, folder) for arm, seed in waiting]
        call_until_stopped(_make_run, calls, folder, tell, note, jobs=jobs)
    return list(_runs_there(chosen, task, seeds, folder).values())


def _make_run(arm: ContestArm, task: Task, seed: int, folder: Path) -> None:
    append_line(folder / RUNS, dataclasses.asdict(play(arm, task, seed)))


def _runs_there(
    chosen: Mapping[str, ContestArm], task: Task, seeds: int, folder: Path
) -> dict[tuple[str, int], Played]:
    described, there = task.described(), {}
    for run in read_runs(folder):
        if run.arm in chosen and run.task == described and run.seed < seeds:
            _check_same(run, chosen[run.arm], folder)
            there[run.arm, run.seed] = run
    return there


def read_runs(folder: Path) -> list[Played]:
    """Return the runs of a folder.

    Raises:
        ValueError: a line is damaged; the message names it.
    """
    return read_lines(folder / RUNS, _played)


def _played(line: Any) -> Played:
    regret = {int(mark): math.inf if value is None else float(value) for mark, value in line["regret"].items()}
    rest = {field.name: line[field.name] for field in dataclasses.fields(Played) if field.name != "regret"}
    return Played(**rest, regret=regret)


def _check_same(run: Played, arm: ContestArm, folder: Path) -> None:
    if differ := listed(run.settings, json.loads(to_json(dataclasses.asdict(arm.settings)))):
        raise ValueError(
            f"{folder / RUNS} has runs of {arm.name!r} with other settings: {'; '.join(differ)}: choose another --out"
        )
