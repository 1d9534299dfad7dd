#!/usr/bin/env python
"""Run the paper's ablations (Table 4), and the rows it lacks, over seeds.

python scripts/ablations.py --preset small --dataset path/to/folder --out comparisons/ablations
python scripts/ablations.py --preset paper --device cuda --out comparisons/ablations-paper

Stopped (Ctrl-C), it goes on where it was when called again in the same way.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from _presets import chosen_preset, preset_settings
from compare import FIRST_TUNING_SEED, carry_out, report
from rich.console import Console
from rich.markup import escape

from agents.comparison import Arm, Backend, Plan
from agents.controllers import PatternConfig
from agents.run_config import RunConfig
from tying_env.config import Size
from tying_env.runs import RunDirectory

FULL = "full method"

# Small text: a byte-level network whose arms take a minute each on a CPU; Table 4 uses 12 layers for Shakespeare, too.
SMALL_TEXT: dict[str, Any] = {"tokenizer": "bytes", "n_embd": 64}


@dataclass(frozen=True)
class Options:
    """Run the paper's ablations over seeds."""

    preset: Size = "small"
    """Where the environment's defaults come from: a minute per run on a CPU, or the paper's 48 x 1600 (a large GPU)."""
    seeds: int = 3
    """Seeds per arm: 0, 1, 2, ... At least 2: a trace is replayed in a run of another seed."""
    learning_rates: tuple[float, ...] = ()
    """Grid of learning rates; each arm gets its own best by validation perplexity, replayed ones the full method's."""
    tuning_seeds: int = 1
    """Seeds for each learning rate of the grid, other ones than those of the comparison."""
    out: Path = Path("comparisons/ablations")
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
    env = preset_settings(model, preset)
    if preset == "small" and model != "vit":
        env = dataclasses.replace(env, **SMALL_TEXT)
    default = Options(preset=preset, run=RunConfig(env=env))
    options = tyro.cli(Options, default=default, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    try:
        if options.seeds < 2:
            raise ValueError(f"seeds must be at least 2, for a trace is replayed in another run, got {options.seeds}")
        seeds = tuple(range(options.seeds))
        tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.tuning_seeds) if options.learning_rates else ()
        plan = Plan(
            options.out,
            seeds,
            options.learning_rates,
            tuple(tuning),
            options.jobs,
            options.threads,
            options.backend,
        )
        carry_out(make_arms(options.run, seeds), plan, dataclasses.asdict(options), console)
        return report(options.out, FULL, console)
    except KeyboardInterrupt:
        console.print(f"Interrupted. The same command goes on from what is in {options.out}.")
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1


def make_arms(base: RunConfig, seeds: tuple[int, ...]) -> list[Arm]:
    """Return the rows of Table 4, conventional training, and the rows that the paper lacks."""

    def fixed(label: str, env: dict[str, Any] | None = None, **changed: Any) -> Arm:
        config = dataclasses.replace(base, env=dataclasses.replace(base.env, **(env or {})), **changed)
        return Arm(label, lambda runs, seed: config)

    def replay(label: str, another_run: bool, **settings: Any) -> Arm:
        def configure(runs: Path, seed: int) -> RunConfig:
            # Replayed in its own run a trace would only repeat it: take that of the next seed.
            source = seeds[(seeds.index(seed) + another_run) % len(seeds)]
            pattern = PatternConfig(trace=runs / FULL / f"seed{source}", **settings)
            return dataclasses.replace(base, agent="replay", pattern=pattern)

        return Arm(label, configure, after=(FULL,), rate_of=FULL)

    def as_many_layers(runs: Path, seed: int) -> RunConfig:
        env = dataclasses.replace(base.env, n_layer=independent_layers(runs, seeds))
        return dataclasses.replace(base, agent="conventional", env=env)

    def as_many_groups(runs: Path, seed: int) -> RunConfig:
        groups = PatternConfig(groups=independent_layers(runs, seeds))
        return dataclasses.replace(base, agent="random-static", pattern=groups)

    return [
        fixed(FULL, agent="dqn"),
        fixed("conventional", agent="conventional"),
        Arm("i fewer layers", as_many_layers, after=(FULL,), rate_of="conventional"),
        replay("ii final tying", another_run=False, final=True),
        replay("iii permuted trace", another_run=True, permute=0),
        replay("iv replayed trace", another_run=True),
        fixed("v copied, not tied", {"replication": "copied"}, agent="dqn"),
        fixed("vi nothing frozen", {"freeze_at_start": False}, agent="dqn"),
        fixed("vii cycle", agent="cycle"),
        fixed("viii cycle rev", agent="cycle-rev"),
        fixed("ix sequence", agent="sequence"),
        fixed("random", agent="random"),
        Arm("random static", as_many_groups, after=(FULL,), rate_of=FULL),
        fixed("shuffled reward", agent="dqn", rewards=(*base.rewards, "shuffled")),
    ]


def independent_layers(runs: Path, seeds: tuple[int, ...]) -> int:
    """Return how many independent layers the full method ended with, the mean over the seeds rounded."""
    records: list[list[dict[str, Any]]] = [
        RunDirectory.open(runs / FULL / f"seed{seed}").read_metrics() for seed in seeds
    ]
    ends: list[int] = [record[-1]["independent_layers"] for record in records]
    return round(sum(ends) / len(ends))


if __name__ == "__main__":
    sys.exit(main())
