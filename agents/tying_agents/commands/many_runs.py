"""What scripts that make many runs have in common: their options, the runs with a progress bar, the report."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tying_agents.commands import guard
import tyro
from tying_agents.commands.report import print_comparison
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tying_agents.many.cluster import Backend
from tying_agents.many.comparison import Arm, Plan, chosen_learning_rate, compare
from tying_agents.run_config import AgentName, RunConfig
from tying_agents.stop_file import StoppedBySignal
from tying_agents.stop_signals import EXIT_CODES
from tying_env.config import Size
from tying_env.files import to_json
from tying_env.reports.comparison import load_comparison
from tying_env.reports.html import make_report, write_report

# Tuning runs must not see a seed of the comparison: theirs begin here.
FIRST_TUNING_SEED = 1000


@dataclass(frozen=True)
class ArmRun(RunConfig):
    """One run: which agent, on which environment."""

    # A comparison decides these itself.
    seed: tyro.conf.Suppress[int] = 0
    run_dir: tyro.conf.Suppress[Path | None] = None
    label: tyro.conf.Suppress[str | None] = None


@dataclass(frozen=True)
class ComparedRun(ArmRun):
    """What all runs have in common."""

    agent: tyro.conf.Suppress[AgentName] = "dqn"


@dataclass(frozen=True)
class ManyRuns:
    """Which runs to make, and where."""

    preset: Size = "small"
    """Where the defaults of the network (--model) come from: minutes on two CPU cores, or the paper's (a large GPU)."""
    seeds: int = 5
    """Seeds per arm: 0, 1, 2, ..."""
    learning_rates: tuple[float, ...] = ()
    """Grid of learning rates; each arm gets its own best by validation perplexity. Empty: --learning-rate for all."""
    tuning_seeds: int = 1
    """Seeds for each learning rate of the grid, other ones than those of the comparison."""
    out: Path = Path("comparisons/latest")
    """Folder of all runs and the report."""
    jobs: int = 2
    """Runs at a time."""
    threads: int = 1
    """CPU threads of each run."""
    backend: Backend = "loky"
    """joblib's: local processes, or an existing Dask or Ray cluster (Ray's was tried by hand alone)."""
    address: str | None = None
    """Of the cluster's scheduler; the default is what RAY_ADDRESS or DASK_SCHEDULER_ADDRESS says."""
    run: ComparedRun = field(default_factory=ComparedRun)


def as_compared(config: RunConfig) -> ComparedRun:
    """Return the settings with those hidden that a comparison decides itself."""
    return ComparedRun(**_fields(config))


def as_run(config: ComparedRun | ArmRun) -> RunConfig:
    """Return the settings as those of an ordinary run."""
    return RunConfig(**_fields(config))


def _fields(config: RunConfig) -> dict[str, Any]:
    return {each.name: getattr(config, each.name) for each in dataclasses.fields(RunConfig)}


def carry_out(arms: list[Arm], options: ManyRuns, reference: str | None, console: Console) -> int:
    """Make the runs that are not there yet, write the report and print its tables; return the exit code."""
    tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.tuning_seeds) if options.learning_rates else ()
    plan = Plan(
        options.out,
        tuple(range(options.seeds)),
        options.learning_rates,
        tuple(tuning),
        options.jobs,
        options.threads,
        options.backend,
        options.address,
    )
    bar = Progress(
        TextColumn("runs"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("runs")

        def on_run(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal:
                console.print(f"runs {done}/{total}", highlight=False)

        compare(arms, plan, on_run, lambda text: console.print(text, highlight=False))
    if plan.learning_rates:
        chosen = {arm.label: chosen_learning_rate(arm.label, plan) for arm in arms}
        console.print("learning rates chosen by validation: " + to_json(chosen), highlight=False, soft_wrap=True)
    metric = "test-perplexity" if options.run.measure_test else "validation-perplexity"
    comparison = load_comparison([options.out], reference, metric)
    print_comparison(comparison, console)
    page = options.out / "report.html"
    write_report(make_report(comparison), page, overwrite=True)  # made from the runs beside it, again and again
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 0


def go_on_later(work: Callable[[Console], int]) -> int:
    """Do the work; say what was wrong, or that it can go on, in place of a traceback, and return the exit code."""
    hint = "The same command goes on from what is in the folder."

    def stoppable(console: Console) -> int:
        try:
            return work(console)
        except StoppedBySignal as error:
            console.print(f"Interrupted. {hint}")
            return EXIT_CODES[error.asked]

    return guard.guarded(stoppable, hint)
