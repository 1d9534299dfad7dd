#!/usr/bin/env python
"""Compare agents over seeds: equal weights, batches and training steps for each seed, one report at the end.

python scripts/compare.py --agents dqn random random-static conventional --seeds 5 --out comparisons/first
python scripts/compare.py --agents dqn dqn+shuffled random --learning-rates 3e-4 1e-3 3e-3 --out comparisons/tuned

Stopped (Ctrl-C), it goes on where it was when called again in the same way.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import tyro
from _presets import chosen_preset, preset_settings
from report import print_comparison
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.comparison import Arm, Backend, Plan, chosen_learning_rate, compare
from agents.run_config import RewardName, RunConfig, agent_names
from tying_env.config import Size
from tying_env.files import to_json
from tying_env.reports.comparison import load_comparison
from tying_env.reports.html import make_report, write_report

# Tuning runs must not see a seed of the comparison: theirs begin here.
FIRST_TUNING_SEED = 1000


@dataclass(frozen=True)
class Options:
    """Compare agents over seeds."""

    preset: Size = "small"
    """Where the defaults of the network (--model) come from: minutes on two CPU cores, or the paper's (a large GPU)."""
    agents: tuple[str, ...] = ("dqn", "random", "random-static", "cycle", "conventional")
    """Arms: names of agents; "dqn+shuffled" is an agent with a changed reward, for every reward of run_agent.py."""
    seeds: int = 5
    """Seeds per arm: 0, 1, 2, ..."""
    learning_rates: tuple[float, ...] = ()
    """Grid of learning rates; each arm gets its own best by validation perplexity. Empty: --learning-rate for all."""
    tuning_seeds: int = 1
    """Seeds for each learning rate of the grid, other ones than those of the comparison."""
    reference: str = "random"
    """The arm that the others are compared to."""
    out: Path = Path("comparisons/latest")
    """Folder of all runs and the report."""
    jobs: int = 2
    """Runs at a time."""
    threads: int = 1
    """CPU threads of each run."""
    backend: Backend = "loky"
    """joblib's backend: local processes, or an existing Ray or Dask cluster."""
    run: RunConfig = field(default_factory=RunConfig)


def main() -> int:
    """Make the runs that are not there yet, write the report, print the table."""
    console = Console()
    model, preset = chosen_preset()
    default = Options(preset=preset, run=RunConfig(env=preset_settings(model, preset)))
    options = tyro.cli(Options, default=default, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    try:
        arms = [parse_arm(text, options.run) for text in options.agents]
        if options.reference not in options.agents:
            raise ValueError(
                f"reference must be one of the arms {', '.join(options.agents)}, got {options.reference!r}"
            )
        carry_out(arms, make_plan(options), dataclasses.asdict(options), console)
        return report(options.out, options.reference, console)
    except KeyboardInterrupt:
        console.print(f"Interrupted. The same command goes on from what is in {options.out}.")
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1


def parse_arm(text: str, base: RunConfig) -> Arm:
    """Return the arm "agent" or "agent+reward+..."."""
    agent, *rewards = text.split("+")
    if agent not in agent_names():
        raise ValueError(f"unknown agent {agent!r}; known: {', '.join(agent_names())}")
    for reward in rewards:
        if reward not in get_args(RewardName):
            raise ValueError(f"unknown reward {reward!r} in {text!r}; known: {', '.join(get_args(RewardName))}")
    changed: dict[str, Any] = {"agent": agent, "rewards": (*base.rewards, *rewards)}
    config = dataclasses.replace(base, **changed)
    return Arm(text, lambda runs, seed: config)


def make_plan(options: Options) -> Plan:
    """Return where and how the runs are carried out."""
    tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.tuning_seeds) if options.learning_rates else ()
    return Plan(
        options.out,
        tuple(range(options.seeds)),
        options.learning_rates,
        tuple(tuning),
        options.jobs,
        options.threads,
        options.backend,
    )


def carry_out(arms: list[Arm], plan: Plan, settings: dict[str, Any], console: Console) -> None:
    """Make the runs, with a progress bar over all of them."""
    free = ("jobs", "threads", "backend", "out", "reference")  # how and where, not what
    kept = {key: value for key, value in settings.items() if key not in free}
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

        compare(arms, plan, kept, on_run)
    if plan.learning_rates:
        chosen = {arm.label: chosen_learning_rate(arm.label, plan) for arm in arms}
        console.print("learning rates chosen by validation: " + to_json(chosen), highlight=False, soft_wrap=True)


def report(folder: Path, reference: str, console: Console) -> int:
    """Write the HTML report of the runs and print its tables."""
    comparison = load_comparison([folder / "runs"], reference)
    print_comparison(comparison, console)
    page = folder / "report.html"
    write_report(make_report(comparison), page, overwrite=True)  # made from the runs beside it, again and again
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
