"""Compare agents over seeds: equal weights, batches and training steps for each seed, one report at the end.

layer-tying compare --agents dqn random random-static conventional --seeds 5 --out comparisons/first
layer-tying compare --agents dqn dqn+shuffled random --learning-rates 3e-4 1e-3 3e-3 --out comparisons/tuned
layer-tying compare --agents random --arms "replay: --agent dqn --replay-size 100" --out comparisons/replay
layer-tying compare --agents random --arms "code: --semantics published-code" --out comparisons/published
layer-tying compare --env table --agents random tpe evolution dqn --seeds 20

Stopped (Ctrl-C), it resumes where it was when called again in the same way. More agents, arms, seeds and rates can be
asked for later: finished runs stay.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tying_agents.commands import contest
from tying_agents.commands.early import (
    Semantics,
    agents_in_help,
    as_published,
    at_its_rate,
    chosen_preset,
    chosen_semantics,
    default_run,
    early,
    read_options,
    with_chosen_agent,
)
from tying_agents.commands.many_runs import (
    ArmRun,
    ManyRuns,
    as_compared,
    as_run,
    make_and_report,
    resumable,
    settings_of_agents,
    with_settings,
)
from tying_agents.many.plan import ArmSpec
from tying_agents.run_config import REWARDS, RunConfig, refuse_unread, short_name
from tying_env.config import Size
from tying_env.plugins import is_import_string

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options(ManyRuns):
    """Compare agents over seeds."""

    agents: tuple[str, ...] = ("dqn", "random", "random-static", "cycle", "conventional")
    """Arms: names or import strings of agents; "dqn+shuffled" is an agent with a changed reward (see --rewards)."""
    arms: tuple[str, ...] = ()
    """More arms, each "name: OPTIONS" with options of `layer-tying run` that this arm alone has, --semantics too."""
    reference: str | None = None
    """The arm that the others are compared to; the default is "random" if it is there, else the first."""


@dataclass(frozen=True)
class ArmOptions:
    """The options of one arm."""

    semantics: Semantics = "paper"
    """Which defaults decide what tying means: the paper's Algorithm 1, or what its published code does instead."""
    run: ArmRun = field(default_factory=ArmRun)


def main(argv: Sequence[str], prog: str = "layer-tying compare") -> int:
    """Make the runs that are not there yet, write the report, print the table."""
    if contest.is_table(argv):
        return contest.compare(argv, prog)

    def work(console: "Console") -> int:
        preset, env = chosen_preset(argv)
        named = early(argv, several=("agents",)).agents
        texts = [name for text in (Options.agents if named is None else named) for name in text.split(",") if name]
        agents = [text.split("+")[0] for text in texts]
        own = settings_of_agents(agents, argv, {each.name for each in dataclasses.fields(Options)} - {"settings"})
        default = Options(preset=preset, run=as_compared(default_run(preset, env)), settings=own)
        options = read_options(Options, argv, prog, f"{__doc__}\n\n{agents_in_help()}", default)
        base = as_run(options.run)
        arms = [parse_agent(text, base, options.settings, preset, argv) for text in texts]
        arms += [parse_arm(text, base, options.settings, preset, argv) for text in options.arms]
        if not arms:
            raise ValueError("there is no arm to compare: name some with --agents or --arms")
        refuse_unread([arm.configure(options.out, 0) for arm in arms])
        labels = [arm.label for arm in arms]
        if options.reference not in (None, *labels):
            raise ValueError(f"reference must be one of the arms {', '.join(labels)}, got {options.reference!r}")
        return make_and_report(arms, options, options.reference, console)

    return resumable(work)


def parse_agent(text: str, base: RunConfig, own: object, preset: Size = "small", argv: Sequence[str] = ()) -> ArmSpec:
    """Return the arm "agent" or "agent+reward+..."; argv are the arguments that the settings of all arms are from."""
    agent, *rewards = text.split("+")
    for reward in rewards:
        if reward not in REWARDS and not is_import_string(reward):
            raise ValueError(f"unknown reward {reward!r} in {text!r}; known: {', '.join(REWARDS)}")
    chosen = at_its_rate(with_settings(base, agent, own), preset, argv)
    config = dataclasses.replace(chosen, rewards=(*base.rewards, *rewards))
    return ArmSpec("+".join(map(short_name, (agent, *rewards))), lambda runs, seed: config)


def parse_arm(text: str, base: RunConfig, own: object, preset: Size = "small", argv: Sequence[str] = ()) -> ArmSpec:
    """Return the arm "name: OPTIONS"; what its options do not say is as in the other arms, argv as in parse_agent."""
    label, colon, rest = text.partition(":")
    if not (colon and label.strip()):
        raise ValueError(f'arms must read "name: OPTIONS", such as "large net: --hidden-units 512", got {text!r}')
    arguments = shlex.split(rest)
    semantics = chosen_semantics(arguments)
    agent = early(arguments, "agent").agent or base.agent
    config = as_published(base) if semantics == "published-code" else with_settings(base, agent, own)
    config = at_its_rate(with_chosen_agent(config, arguments), preset, [*argv, *arguments])
    default = ArmOptions(semantics, ArmRun(**vars(config)))
    chosen = read_options(ArmOptions, arguments, f"the arm {label.strip()!r}", ArmOptions.__doc__, default)
    made = as_run(chosen.run)
    return ArmSpec(label.strip(), lambda runs, seed: made)
