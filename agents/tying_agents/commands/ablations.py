"""Run the paper's ablations (Table 4), and the rows it lacks, over seeds.

layer-tying ablations --preset small --dataset path/to/folder --out comparisons/ablations
layer-tying ablations --preset paper --device cuda --out comparisons/ablations-paper

Stopped (Ctrl-C), it resumes where it was when called again in the same way.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tying_agents.commands.early import chosen_preset, default_run, read_options
from tying_agents.commands.many_runs import (
    ManyRuns,
    as_compared,
    as_run,
    make_and_report,
    plan_of,
    resumable,
    settings_of_agents,
    with_settings,
)
from tying_agents.many.plan import ArmSpec
from tying_agents.run_config import RunConfig, with_agent
from tying_agents.settings import GroupsConfig, ReplayConfig
from tying_env.runs import RunDirectory

if TYPE_CHECKING:
    from rich.console import Console

FULL = "full method"


@dataclass(frozen=True)
class Options(ManyRuns):
    """Run the paper's ablations over seeds."""

    seeds: int = 3
    """Seeds per arm: 0, 1, 2, ... At least 2: a trace is replayed in a run of another seed."""
    out: Path = Path("comparisons/ablations")
    """Folder of all runs and the report."""


def main(argv: Sequence[str], prog: str = "layer-tying ablations") -> int:
    """Make the runs that are not there yet, write the report, print the table."""

    def work(console: "Console") -> int:
        preset, env = chosen_preset(argv)
        own = settings_of_agents(["dqn"], argv, {each.name for each in dataclasses.fields(Options)} - {"settings"})
        default = Options(preset=preset, run=as_compared(default_run(preset, env)), settings=own)
        options = read_options(Options, argv, prog, __doc__, default)
        if options.seeds < 2:
            raise ValueError(f"seeds must be at least 2, for a trace is replayed in another run, got {options.seeds}")
        base = with_settings(as_run(options.run), "dqn", options.settings)
        return make_and_report(make_arms(base, plan_of(options).seeds), options, FULL, console)

    return resumable(work)


def make_arms(base: RunConfig, seeds: tuple[int, ...]) -> list[ArmSpec]:
    """Return the rows of Table 4, conventional training, and the rows that the paper lacks.

    Every row chooses its own learning rate where there is a grid, those that replay the full method's tyings, too: the
    best rate depends on how often and how much is tied, and (i), (ii) and random static never change their tying.
    """

    def fixed(label: str, agent: str, env: dict[str, Any] | None = None, **changed: Any) -> ArmSpec:
        own = base if agent == base.agent else with_agent(base, agent)
        config = dataclasses.replace(own, env=dataclasses.replace(base.env, **(env or {})), **changed)
        return ArmSpec(label, lambda runs, seed: config)

    def replay(label: str, another_run: bool, **settings: Any) -> ArmSpec:
        def configure(runs: Path, seed: int) -> RunConfig:
            own = seed if seed in seeds else seeds[seed % 2]  # rates are chosen with the traces of the first two
            # Replayed in its own run a trace would only repeat it: take that of the seed before. (That of the seed
            # after, or of any that depends on how many there are, would change when seeds are added.)
            source = (own - 1 if own != seeds[0] else seeds[1]) if another_run else own
            return with_agent(base, "replay", ReplayConfig(trace=runs / FULL / f"seed{source}", **settings))

        return ArmSpec(label, configure, after=(FULL,))

    def in_each_kind(runs: Path) -> int:
        return max(1, round(independent_layers(runs, seeds) / len(base.env.kinds.members)))

    def as_many_layers(runs: Path, seed: int) -> RunConfig:
        env = dataclasses.replace(base.env, n_layer=in_each_kind(runs))
        return dataclasses.replace(with_agent(base, "conventional"), env=env)

    def as_many_groups(runs: Path, seed: int) -> RunConfig:
        return with_agent(base, "random-static", GroupsConfig(in_each_kind(runs)))

    return [
        fixed(FULL, "dqn"),
        fixed("conventional", "conventional"),
        ArmSpec("i fewer layers", as_many_layers, after=(FULL,)),
        replay("ii final tying", another_run=False, final=True),
        replay("iii permuted trace", another_run=True, permute=0),
        replay("iv replayed trace", another_run=True),
        fixed("v copied, not tied", "dqn", {"replication": "copied", "gradient": "shared"}),
        fixed("vi nothing frozen", "dqn", {"freeze_at_start": False}),
        fixed("vii cycle", "cycle"),
        fixed("viii cycle rev", "cycle-rev"),
        fixed("ix sequence", "sequence"),
        fixed("random", "random"),
        ArmSpec("random static", as_many_groups, after=(FULL,)),
        fixed("shuffled reward", "dqn", rewards=(*base.rewards, "shuffled")),
    ]


def independent_layers(runs: Path, seeds: tuple[int, ...]) -> int:
    """Return how many independent layers the full method ended with, the mean over the seeds rounded."""
    records: list[list[dict[str, Any]]] = [
        RunDirectory.open(runs / FULL / f"seed{seed}").read_metrics() for seed in seeds
    ]
    ends: list[int] = [record[-1]["independent_layers"] for record in records]
    return round(sum(ends) / len(ends))
