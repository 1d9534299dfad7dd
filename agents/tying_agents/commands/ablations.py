#!/usr/bin/env python
"""Run the paper's ablations (Table 4), and the rows it lacks, over seeds.

python scripts/ablations.py --preset small --dataset path/to/folder --out comparisons/ablations
python scripts/ablations.py --preset paper --device cuda --out comparisons/ablations-paper

Stopped (Ctrl-C), it goes on where it was when called again in the same way.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tying_agents.commands import guard  # noqa: F401 (first)
import tyro
from tying_agents.commands.many_runs import ManyRuns, as_compared, as_run, carry_out, go_on_later
from tying_agents.commands.presets import chosen_preset, default_run, description
from rich.console import Console

from tying_agents.many.comparison import Arm
from tying_agents.controllers_by_name import PatternConfig
from tying_agents.run_config import RunConfig
from tying_env.runs import RunDirectory

FULL = "full method"

# Small text: a byte-level network whose arms take a minute each on a CPU; Table 4 uses 12 layers for Shakespeare, too.
SMALL_TEXT: dict[str, Any] = {"tokenizer": "bytes", "n_embd": 64}


@dataclass(frozen=True)
class Options(ManyRuns):
    """Run the paper's ablations over seeds."""

    seeds: int = 3
    """Seeds per arm: 0, 1, 2, ... At least 2: a trace is replayed in a run of another seed."""
    out: Path = Path("comparisons/ablations")
    """Folder of all runs and the report."""


def main() -> int:
    """Make the runs that are not there yet, write the report, print the table."""

    def work(console: Console) -> int:
        preset, env = chosen_preset()
        if preset == "small" and env.model != "vit" and env.init_from is None:
            env = dataclasses.replace(env, **SMALL_TEXT)
        default = Options(preset=preset, run=as_compared(default_run(preset, env)))
        settings = (tyro.conf.OmitArgPrefixes,)
        options = tyro.cli(Options, default=default, description=description(__doc__), config=settings)
        if options.seeds < 2:
            raise ValueError(f"seeds must be at least 2, for a trace is replayed in another run, got {options.seeds}")
        return carry_out(make_arms(as_run(options.run), tuple(range(options.seeds))), options, FULL, console)

    return go_on_later(work)


def make_arms(base: RunConfig, seeds: tuple[int, ...]) -> list[Arm]:
    """Return the rows of Table 4, conventional training, and the rows that the paper lacks.

    Every row chooses its own learning rate where there is a grid, those that replay the full method's tyings, too: the
    best rate depends on how often and how much is tied, and (i), (ii) and random static never change their tying.
    """

    def fixed(label: str, env: dict[str, Any] | None = None, **changed: Any) -> Arm:
        config = dataclasses.replace(base, env=dataclasses.replace(base.env, **(env or {})), **changed)
        return Arm(label, lambda runs, seed: config)

    def replay(label: str, another_run: bool, **settings: Any) -> Arm:
        def configure(runs: Path, seed: int) -> RunConfig:
            own = seed if seed in seeds else seed % 2  # learning rates are chosen with the traces of seeds 0 and 1
            # Replayed in its own run a trace would only repeat it: take that of the seed before. (That of the seed
            # after, or of any that depends on how many there are, would change when seeds are added.)
            source = (own - 1 if own else 1) if another_run else own
            pattern = PatternConfig(trace=runs / FULL / f"seed{source}", **settings)
            return dataclasses.replace(base, agent="replay", pattern=pattern)

        return Arm(label, configure, after=(FULL,))

    def as_many_layers(runs: Path, seed: int) -> RunConfig:
        env = dataclasses.replace(base.env, n_layer=independent_layers(runs, seeds))
        return dataclasses.replace(base, agent="conventional", env=env)

    def as_many_groups(runs: Path, seed: int) -> RunConfig:
        groups = PatternConfig(groups=independent_layers(runs, seeds))
        return dataclasses.replace(base, agent="random-static", pattern=groups)

    return [
        fixed(FULL, agent="dqn"),
        fixed("conventional", agent="conventional"),
        Arm("i fewer layers", as_many_layers, after=(FULL,)),
        replay("ii final tying", another_run=False, final=True),
        replay("iii permuted trace", another_run=True, permute=0),
        replay("iv replayed trace", another_run=True),
        fixed("v copied, not tied", {"replication": "copied"}, agent="dqn"),
        fixed("vi nothing frozen", {"freeze_at_start": False}, agent="dqn"),
        fixed("vii cycle", agent="cycle"),
        fixed("viii cycle rev", agent="cycle-rev"),
        fixed("ix sequence", agent="sequence"),
        fixed("random", agent="random"),
        Arm("random static", as_many_groups, after=(FULL,)),
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
