"""Agents on the tying table: `run --env table` and `compare --env table`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tying_agents.commands import guard
from tying_agents.commands.early import agents_in_help, early, read_options
from tying_agents.commands.many_runs import resumable, settings_of_agents, without_options
from tying_agents.contest.arms import ContestArm
from tying_agents.contest.entries import entry_of
from tying_agents.contest.runs import Task, make_runs
from tying_agents.registry import find_agent
from tying_env.table.objectives import Objective

if TYPE_CHECKING:
    from rich.console import Console

_ABOUT = """Let agents search the tying table: every tying of six layers, trained before. A step looks a training up.

layer-tying run --env table --agent dqn --gamma 0
layer-tying compare --env table --agents random tpe evolution dqn --seeds 20
layer-tying compare --env table --agents random my_folder/my_controller.py:MyController --corpus wikitext-2

Agents have the settings of the leaderboard, where they stand on it; dqn-bandit and halving-short are names of it.

Shows the regret: how much worse, in perplexity on the test split, the best tying found so far is than the best of all.
Runs are kept as they come, and not made again."""


# Settings of agents with the name of an option of the task: those stay as they are.
_OF_THE_TASK = frozenset({"max_parameters", "table"})


@dataclass(frozen=True)
class TableOptions:
    """What to look for, and how long."""

    env: Literal["table"] = "table"
    """The tying table. Without this option, a network is trained."""
    corpus: str = "sotu"
    """Which texts the networks of the table were trained on."""
    objective: Objective = "perplexity"
    """The lowest perplexity; perplexity plus a price for parameters; the lowest under a limit on parameters."""
    trainings: int = 200
    """Trainings that the budget pays for; what a search tries before it decides counts, too."""
    price: float = 1.0
    """Of the objective "priced": what conventional training's parameters cost, in units of perplexity."""
    max_parameters: int | None = None
    """Of the objective "limited"."""
    table: Path | None = None
    """A table's file (`layer-tying tabulate` makes one); the package's own by default."""

    def task(self) -> Task:
        """Return the task."""
        return Task(self.corpus, self.objective, self.trainings, self.price, self.max_parameters, self.table)


@dataclass(frozen=True)
class RunOptions(TableOptions):
    """Let one agent search the tying table once."""

    agent: str = "dqn"
    """Who searches: a name or an import string."""
    seed: int = 0
    """Of the agent, and of the seeds that are drawn."""
    controller: Any = None
    """Settings of the agent; its own defaults where none are given."""


@dataclass(frozen=True)
class CompareOptions(TableOptions):
    """Let agents search the tying table, with several seeds each."""

    agents: tuple[str, ...] = ("dqn", "random", "tpe", "evolution")
    """Names or import strings of agents."""
    seeds: int = 20
    """Searches of each: seeds 0, 1, 2, ..."""
    out: Path = Path("contests/latest")
    """Folder of the runs and the standings."""
    settings: object = None
    """Settings of the agents that are compared, but for those that agents of two kinds have."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")


def is_table(argv: Sequence[str]) -> bool:
    """Return whether a command line is about the tying table: `--env table`."""
    return bool(early(argv, "env").env == "table")


def run(argv: Sequence[str], prog: str) -> int:
    """Let one agent search, print how its regret fell, and return the exit code."""

    def work(console: "Console") -> int:
        from tying_agents.contest.runs import play

        agent = early(argv, "agent").agent or RunOptions.agent
        chosen = entry_of(agent).arm()
        default = RunOptions(agent=agent, controller=without_options(chosen.settings, _OF_THE_TASK))
        options = read_options(RunOptions, argv, prog, f"{_ABOUT}\n\n{agents_in_help()}", default)
        arm = dataclasses.replace(chosen, settings=options.controller)
        from rich.text import Text

        with console.status(Text(f"{arm.name} searches the tying table")):
            played = play(arm, options.task(), options.seed)
        for mark, regret in played.regret.items():
            console.print(f"after {mark:>4} trainings: regret {regret:.4f}", highlight=False)
        console.print(f"{played.decisions} decisions, {played.seconds:.1f} CPU seconds", highlight=False)
        return 0

    return guard.guarded(work)


def compare(argv: Sequence[str], prog: str) -> int:
    """Let agents search with several seeds, print the standings, and return the exit code."""

    def work(console: "Console") -> int:
        named = early(argv, several=("agents",)).agents
        agents = list(CompareOptions.agents) if named is None else [name for text in named for name in text.split(",")]
        known = {each.name for each in dataclasses.fields(CompareOptions)} - {"settings"}
        chosen = [entry_of(name).arm() for name in agents]
        kinds = dict.fromkeys(find_agent(arm.agent).settings for arm in chosen)
        names = [each.name for kind in kinds for each in dataclasses.fields(kind)]
        several = {name for name in names if names.count(name) > 1}
        hidden = _OF_THE_TASK | several
        if asked := [name for name in sorted(several - known) if given(name, argv)]:
            option = asked[0].replace("_", "-")
            raise ValueError(
                f"--{option} is a setting of agents of two kinds here, and whose is meant cannot be told: compare them "
                "in calls of their own, with one --out"
            )
        own = settings_of_agents([arm.agent for arm in chosen], argv, known, hidden)
        default = CompareOptions(settings=own)
        options = read_options(CompareOptions, argv, prog, f"{_ABOUT}\n\n{agents_in_help()}", default)
        groups = {} if options.settings is None else vars(options.settings)
        arms = [with_given(arm, list(groups.values()), argv) for arm in chosen]
        return _contest(arms, options.task(), options.seeds, options.out, console)

    return resumable(work)


def given(name: str, argv: Sequence[str]) -> bool:
    """Return whether an option was given, on or off."""
    option = name.replace("_", "-")
    words = {word.partition("=")[0].replace("_", "-") for word in argv}
    return bool(words & {f"--{option}", f"--no-{option}"})


def with_given(arm: ContestArm, groups: Sequence[Any], argv: Sequence[str]) -> ContestArm:
    """Return an arm with the settings that were given on the command line, and its own for the rest."""
    own = next((group for group in groups if isinstance(group, type(arm.settings))), None)
    if own is None:
        return arm
    changed = {each.name: getattr(own, each.name) for each in dataclasses.fields(own) if given(each.name, argv)}
    changed = {name: value for name, value in changed.items() if name not in _OF_THE_TASK}
    return dataclasses.replace(arm, settings=dataclasses.replace(arm.settings, **changed))


def _contest(arms: Sequence[ContestArm], task: Task, seeds: int, out: Path, console: "Console") -> int:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from tying_agents.contest.standings import markdown, standings, text_rows
    from tying_env.files import written_whole

    with console.status("contest") as status:

        def on_run(done: int, total: int, arm: str) -> None:
            status.update(Text(f"runs {done}/{total} {arm}".rstrip()))  # a name is no markup
            if not console.is_terminal and (not arm or done % 100 == 0):
                console.print(f"runs {done}/{total} {arm}".rstrip(), highlight=False, markup=False)

        runs = make_runs(arms, task, seeds, out, on_run, lambda text: console.print(text, highlight=False))
    rows = text_rows(standings(runs))
    shown = Table(*rows[0], title="regret, 95% intervals", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows[1:]:
        shown.add_row(*row)
    console.print(shown)
    path = out / "standings.md"
    with written_whole(path) as unfinished:
        unfinished.write_text(markdown(rows), encoding="utf-8")
    console.print(f"standings: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0
