#!/usr/bin/env python
"""Compare agents over seeds: equal weights, batches and training steps for each seed, one report at the end.

python scripts/compare.py --agents dqn random random-static conventional --seeds 5 --out comparisons/first
python scripts/compare.py --agents dqn dqn+shuffled random --learning-rates 3e-4 1e-3 3e-3 --out comparisons/tuned
python scripts/compare.py --agents random --arms "replay: --agent dqn --replay-size 100" --out comparisons/replay
python scripts/compare.py --agents random --arms "code: --semantics published-code" --out comparisons/published

Stopped (Ctrl-C), it goes on where it was when called again in the same way. More agents, arms, seeds and rates can be
asked for later: finished runs stay.
"""

import dataclasses
import shlex
import sys
from dataclasses import dataclass, field
from typing import Any, get_args

from tying_agents.commands import guard  # noqa: F401 (first)
import tyro
from tying_agents.commands.many_runs import ArmRun, ManyRuns, as_compared, as_run, carry_out, go_on_later
from tying_agents.commands.presets import Semantics, as_published, chosen_preset, chosen_semantics, default_run, description
from rich.console import Console

from tying_agents.many.comparison import Arm
from tying_agents.run_config import RewardName, RunConfig, agent_names


@dataclass(frozen=True)
class Options(ManyRuns):
    """Compare agents over seeds."""

    agents: tuple[str, ...] = ("dqn", "random", "random-static", "cycle", "conventional")
    """Arms: names of agents; "dqn+shuffled" is an agent with a changed reward, for every reward of run_agent.py."""
    arms: tuple[str, ...] = ()
    """More arms, each "name: OPTIONS" with options of run_agent.py that this arm alone has, --semantics among them."""
    reference: str | None = None
    """The arm that the others are compared to; the default is "random" if it is there, else the first."""


@dataclass(frozen=True)
class ArmOptions:
    """The options of one arm."""

    semantics: Semantics = "paper"
    """Which defaults decide what tying means: the paper's Algorithm 1, or what its published code does instead."""
    run: ArmRun = field(default_factory=ArmRun)


def main() -> int:
    """Make the runs that are not there yet, write the report, print the table."""

    def work(console: Console) -> int:
        preset, env = chosen_preset()
        default = Options(preset=preset, run=as_compared(default_run(preset, env)))
        settings = (tyro.conf.OmitArgPrefixes,)
        options = tyro.cli(Options, default=default, description=description(__doc__), config=settings)
        base = as_run(options.run)
        arms = [parse_agent(name, base) for text in options.agents for name in text.split(",") if name]
        arms += [parse_arm(text, base) for text in options.arms]
        if not arms:
            raise ValueError("there is no arm to compare: name some with --agents or --arms")
        labels = [arm.label for arm in arms]
        if options.reference not in (None, *labels):
            raise ValueError(f"reference must be one of the arms {', '.join(labels)}, got {options.reference!r}")
        return carry_out(arms, options, options.reference, console)

    return go_on_later(work)


def parse_agent(text: str, base: RunConfig) -> Arm:
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


def parse_arm(text: str, base: RunConfig) -> Arm:
    """Return the arm "name: OPTIONS"; what its options do not say is as in the other arms."""
    label, colon, rest = text.partition(":")
    if not (colon and label.strip()):
        raise ValueError(f'arms must read "name: OPTIONS", such as "large net: --hidden-units 512", got {text!r}')
    arguments = shlex.split(rest)
    semantics = chosen_semantics(arguments)
    default = ArmRun(**vars(as_published(base) if semantics == "published-code" else base))
    chosen = tyro.cli(
        ArmOptions,
        prog=f"the arm {label.strip()!r}",
        args=arguments,
        default=ArmOptions(semantics, default),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    config = as_run(chosen.run)
    return Arm(label.strip(), lambda runs, seed: config)


if __name__ == "__main__":
    sys.exit(main())
