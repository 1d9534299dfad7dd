"""What commands that make many runs have in common: their options, the runs with a progress bar, the report."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import note_on_the_papers_recipe, refuse_options_of_others
from tying_agents.commands.report import print_comparison
from tying_agents.many.checks import check_comparison
from tying_agents.many.other_code import arms_of_other_code
from tying_agents.many.plan import ArmSpec, Backend, RateSearch, RunPlan, check_backend
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig, short_name, with_agent
from tying_env.config import EnvConfig, Size

if TYPE_CHECKING:
    from rich.console import Console

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

    agent: tyro.conf.Suppress[str] = "dqn"
    controller: tyro.conf.Suppress[object] = None


@dataclass(frozen=True)
class ManyRuns:
    """Which runs to make, and where."""

    preset: Size = "small"
    """Where the defaults of the network (--model) come from: minutes on two CPU cores, or the paper's (a large GPU)."""
    seeds: int = 5
    """Seeds per arm: 0, 1, 2, ..."""
    first_seed: int = 0
    """The first of the seeds, where 0, 1, 2, ... have been seen before: in choosing the arms, say."""
    learning_rates: tuple[float, ...] = ()
    """Grid of learning rates; each arm gets its own best by validation perplexity. Empty: --learning-rate for all."""
    tuning_seeds: int = 1
    """Seeds for each learning rate of the grid, other ones than those of the comparison."""
    rate_search: RateSearch = "grid"
    """Whether each arm is tried at every rate of the grid, or climbs it: from the middle, one rate further while the
    best so far is at an end. A climb needs fewer runs, and finds the same where there is one best rate to find."""
    out: Path = Path("comparisons/latest")
    """Folder of all runs and the report."""
    jobs: int = 2
    """Runs at a time."""
    threads: int = 1
    """CPU threads of each run."""
    pairs: tuple[str, ...] = ()
    """Arms to compare with each other besides, "ARM:OTHER" each, in a table of the report with a correction of its
    own."""
    backend: Backend = "loky"
    """joblib's: local processes, or an existing Dask or Ray cluster (Ray's was tried by hand alone)."""
    address: str | None = None
    """Of the cluster's scheduler; the default is what RAY_ADDRESS or DASK_SCHEDULER_ADDRESS says."""
    run: ComparedRun = field(default_factory=ComparedRun)
    settings: object = None
    """Settings of the agents that are compared: all that take one have it."""

    def __post_init__(self) -> None:
        for name in ("seeds", "tuning_seeds", "jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed must be at least 0, got {self.first_seed}")
        check_backend(self.backend, self.address)


def without_options(settings: Any, names: Collection[str]) -> Any:
    """Return settings of which these fields are no options on a command line, of a subclass where there are any."""
    hidden = [each for each in dataclasses.fields(settings) if each.name in names]
    if not hidden:
        return settings
    kind = type(settings)
    hints, suppress = get_type_hints(kind), cast(Any, tyro.conf.Suppress)
    fields: list[Any] = [
        (each.name, suppress[hints[each.name]], field(default=getattr(settings, each.name))) for each in hidden
    ]
    made: Any = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    return made(**{each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)})


def settings_of_agents(
    agents: Sequence[str], argv: Sequence[str], known: set[str], hidden: Collection[str] = ()
) -> object:
    """Return the settings of these agents as one object, a field for each class of settings, at their defaults.

    Args:
        agents: names or import strings.
        argv: the command line, in which options of other agents are refused.
        known: names of the other options.
        hidden: settings that are no options here; see `without_options`.

    Raises:
        ValueError: two classes have a setting of one name, or one has that of another option.
        ValueError, OSError, ImportError, TypeError, tying_env.plugins.ForeignCodeError: there is no such agent.
    """
    kinds = list(dict.fromkeys(find_agent(agent).settings for agent in agents))
    kinds = [kind for kind in kinds if dataclasses.fields(kind)]
    taken = known | {"help"} | {each.name for group in (RunConfig, EnvConfig) for each in dataclasses.fields(group)}
    for kind in kinds:
        own = {each.name for each in dataclasses.fields(kind)} - set(hidden)
        if clash := sorted(own & taken):
            option = clash[0].replace("_", "-")
            owners = [agent for agent in agents if find_agent(agent).settings is kind]
            raise ValueError(
                f"--{option} of {', '.join(owners)} has the name of another option here: rename the setting, or give "
                f'this agent as an arm of its own, --arms "{short_name(owners[0])}: --agent {owners[0]}"'
            )
        taken |= own
    refuse_options_of_others(argv, agents, taken)
    names = [kind.__name__ for kind in kinds]
    offered = [without_options(kind(), hidden) for kind in kinds]
    fields = [
        # Two controllers of the user's own may both call their class Settings.
        (name if names.count(name) == 1 else f"{name}{number}", type(own), field(default=own))
        for number, (name, own) in enumerate(zip(names, offered, strict=True), 1)
    ]
    group: Any = dataclasses.make_dataclass("AgentSettings", fields, frozen=True)
    return group()


def with_settings(base: RunConfig, agent: str, chosen: object) -> RunConfig:
    """Return the settings of a run of this agent, with its own from what `settings_of_agents` made, if anything."""
    kind = find_agent(agent).settings
    groups = {} if chosen is None else vars(chosen)
    return with_agent(base, agent, next((own for own in groups.values() if type(own) is kind), None))


def as_compared(config: RunConfig) -> ComparedRun:
    """Return the settings with those hidden that a comparison decides itself."""
    return ComparedRun(**_fields(config))


def as_run(config: ComparedRun | ArmRun) -> RunConfig:
    """Return the settings as those of an ordinary run."""
    return RunConfig(**_fields(config))


def _fields(config: RunConfig) -> dict[str, Any]:
    return {each.name: getattr(config, each.name) for each in dataclasses.fields(RunConfig)}


def plan_of(options: ManyRuns) -> RunPlan:
    """Return how the runs that the options ask for are carried out."""
    tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.tuning_seeds) if options.learning_rates else ()
    return RunPlan(
        options.out,
        tuple(range(options.first_seed, options.first_seed + options.seeds)),
        options.learning_rates,
        tuple(tuning),
        options.jobs,
        options.threads,
        options.backend,
        options.address,
        options.rate_search,
    )


def make_and_report(arms: list[ArmSpec], options: ManyRuns, reference: str | None, console: "Console") -> int:
    """Make the runs that are not there yet, write the report and print its tables; return the exit code."""
    if text := note_on_the_papers_recipe(options.preset, options.run.env):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    plan = plan_of(options)
    before = check_comparison(arms, plan)
    from tying_env.reports.pairs import labels_of

    labels_of(options.pairs, [*(arm.label for arm in arms), *before])  # before hours of training
    for text in arms_of_other_code(arms, plan):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from tying_agents.control.notes import with_control
    from tying_agents.many.comparison import make_comparison
    from tying_agents.many.rates import chosen_learning_rate
    from tying_env.files import to_json
    from tying_env.reports.comparison import load_comparison
    from tying_env.reports.html import make_report, write_report

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

        make_comparison(arms, plan, on_run, lambda text: console.print(text, highlight=False))
    if plan.learning_rates:
        chosen = {arm.label: chosen_learning_rate(arm.label, plan) for arm in arms}
        console.print("learning rates chosen by validation: " + to_json(chosen), highlight=False, soft_wrap=True)
    metric = "test-perplexity" if options.run.measure_test else "validation-perplexity"
    comparison = with_control(load_comparison([options.out], reference, metric, pairs=options.pairs))
    print_comparison(comparison, console)
    page = options.out / "report.html"
    write_report(make_report(comparison), page, overwrite=True)  # made from the runs beside it, again and again
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return 0


def resumable(work: Callable[["Console"], int]) -> int:
    """Do the work, print what was wrong or that it can be resumed, no traceback, and return the exit code."""
    hint = "The same command resumes from what is in the folder."

    def stoppable(console: "Console") -> int:
        from tying_agents.stopping import EXIT_CODES, StoppedBySignal

        try:
            return work(console)
        except StoppedBySignal as error:
            console.print(f"Interrupted. {hint}")
            return EXIT_CODES[error.asked]

    return guard.guarded(stoppable, hint)
