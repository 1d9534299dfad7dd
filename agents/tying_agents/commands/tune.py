"""Search settings with Optuna: trials judged by validation perplexity, the best one ready for a comparison.

layer-tying tune --search "learning-rate: log 1e-4..1e-2" --trials 20 --out sweeps/rate
layer-tying tune --agent dqn --search "epsilon-floor: 0..0.3" "hidden-units: 64 | 128 | 256" --seeds 3
layer-tying tune --agent random --search "k: 2..10 step 2" "gradient: shared | leader" --sampler grid
layer-tying tune --agent conventional --search "learning-rate: log 1e-4..1e-2" --pruner hyperband --jobs 2

Any setting of the environment, of the agent and of a run can be searched, between two numbers (LOW..HIGH), on a
logarithmic scale (log LOW..HIGH), in steps (LOW..HIGH step S) or among values (a | b | c). Stopped or killed, it
resumes where it was when called again in the same way; called several times at once, the processes share the work.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tying_agents.commands.early import (
    Semantics,
    agents_in_help,
    at_its_rate,
    chosen_preset,
    chosen_settings,
    default_run,
    read_options,
)
from tying_agents.commands.many_runs import FIRST_TUNING_SEED, ArmRun, as_run, resumable
from tying_agents.commands.typed import saying_what_to_type
from tying_agents.config_files import to_toml
from tying_agents.many.other_code import trials_of_other_code
from tying_agents.many.tuning.options import arm_text, common_options
from tying_agents.many.tuning.plan import TRIALS, Pruner, Sampler, Sweep, refuse_other_sweep
from tying_agents.many.tuning.search import parse_searches, possible
from tying_agents.run_config import RunConfig, refuse_unread, with_agent
from tying_agents.running.checks import check_early
from tying_env.config import Size

if TYPE_CHECKING:
    from rich.console import Console

    from tying_agents.many.tuning.sweep import Standing
    from tying_env.reports.sweep_figures import SweepResult


@dataclass(frozen=True)
class TunedRun(ArmRun):
    """What all trials have in common, where nothing else is searched."""

    # No trial touches the test split.
    measure_test: tyro.conf.Suppress[bool] = True


@dataclass(frozen=True)
class Options:
    """Search settings with Optuna."""

    search: tuple[str, ...] = ()
    """What to search, "NAME: SPEC" each: an option of `layer-tying run`, and LOW..HIGH, log LOW..HIGH, LOW..HIGH step S
    or a | b | c."""
    trials: int = 20
    """Trials in all, those that are there already included."""
    seeds: int = 1
    """Seeds of each trial, 1000, 1001, ...: never those of a comparison. Its value is the mean of their best validation
    perplexities."""
    sampler: Sampler = "tpe"
    """Chooses the next values: tpe, gp and cmaes (pip install cmaes) learn from the trials before, random and grid do
    not."""
    pruner: Pruner = "median"
    """Ends trials early whose validation perplexity is not promising beside that of the others at the same step."""
    seed: int = 0
    """Seed of the sampler."""
    out: Path = Path("sweeps/latest")
    """Folder of the storage, all runs and the page."""
    jobs: int = 1
    """Trials at a time."""
    threads: int = 1
    """CPU threads of each."""
    preset: Size = "small"
    """Where the defaults of the network (--model) come from: minutes on two CPU cores, or the paper's (a large GPU)."""
    semantics: Semantics = "paper"
    """Which defaults decide what tying means: the paper's Algorithm 1, or what its published code does instead."""
    config: Path | None = None
    """Settings in a TOML file (`layer-tying run --print-config` writes one); options overrule it."""
    run: TunedRun = field(default_factory=TunedRun)


def main(argv: Sequence[str], prog: str = "layer-tying tune") -> int:
    """Make the trials that are not there yet, write page and best settings, print the best and what to do with it."""

    def work(console: "Console") -> int:
        options = parse(argv, prog)
        base = dataclasses.replace(as_run(options.run), seed=0, label=None, run_dir=None, measure_test=True)
        if options.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {options.seeds}")
        sweep = Sweep(
            folder=options.out,
            base=base,
            searches=parse_searches(options.search, base),
            seeds=tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.seeds)),
            trials=options.trials,
            sampler=options.sampler,
            pruner=options.pruner,
            seed=options.seed,
            jobs=options.jobs,
            threads=options.threads,
        )
        refuse_other_sweep(sweep)
        to_toml(base)  # refuses what best.toml could not say
        tried = possible(sweep.searches, base)
        refuse_unread([tried])
        check_early(tried)
        for text in trials_of_other_code(sweep.folder / TRIALS, base):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        standing = make(sweep, console)
        sum_up(sweep, options, standing, console)
        return 0

    return resumable(work)


def parse(argv: Sequence[str], prog: str) -> Options:
    """Read the command line; what it begins with decides the defaults, so that --help shows those in force.

    Raises:
        FileNotFoundError, ValueError: the configuration file cannot be read, or there is no such agent.
    """
    with saying_what_to_type(argv, prog):
        chosen = chosen_settings(argv)
    _refuse_clash(chosen.run)
    run = TunedRun(**{each.name: getattr(chosen.run, each.name) for each in dataclasses.fields(RunConfig)})
    default = Options(preset=chosen.preset, semantics=chosen.semantics, config=chosen.config, run=run)
    return read_options(Options, argv, prog, f"{__doc__}\n\n{agents_in_help()}", default)


def make(sweep: Sweep, console: "Console") -> "Standing":
    """Make the trials, and show how far it is."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from tying_agents.many.tuning.sweep import make_trials

    bar = Progress(
        TextColumn("trials"),
        MofNCompleteColumn(),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=sweep.wanted)
    before: Standing | None = None

    def on_trial(standing: "Standing") -> None:
        nonlocal before
        if standing == before:
            return
        if before is None:  # the trials of an earlier call took none of the time that is measured here
            bar.reset(task, total=standing.wanted, completed=standing.done)
        before = standing
        bar.update(task, completed=standing.done, total=standing.wanted, description=_in_words(standing))
        if not console.is_terminal:
            text = f"trials {standing.done}/{standing.wanted} {_in_words(standing)}".rstrip()
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    with bar:
        return make_trials(sweep, on_trial, lambda text: console.print(text, highlight=False))


def sum_up(sweep: Sweep, options: Options, standing: "Standing", console: "Console") -> None:
    """Write the page and the best settings; print the best and what to do with it.

    Raises:
        ValueError: no trial is complete.
    """
    from rich.table import Table

    from tying_agents.many.tuning.result import BEST, PAGE, best_config, read_result, write_best
    from tying_env.reports.sweep_page import as_text, sweep_pictures, write_sweep

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    result = read_result(sweep)
    if result.best is not None:
        config = best_config(sweep, result)
        write_best(sweep, config)
        result = dataclasses.replace(result, commands=next_commands(sweep, options, config, str(sweep.folder / BEST)))
    pictures = sweep_pictures(result)
    write_sweep(result, pictures, sweep.folder / PAGE)
    if standing.elsewhere:
        say(f"{standing.elsewhere} more trials are at work in other processes; the same command sums up again.")
    best = result.best
    if best is None:
        best_config(sweep, result)  # raises what is wrong
        return
    table = Table(show_header=False, title=f"Best of {standing.done} trials: trial {best.number}", title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for setting in result.settings:
        table.add_row(setting.name, as_text(best.values[setting.name]))
    table.add_row(result.value_axis, f"{best.value:,.2f}")
    console.print(table)
    for line in _shares(result):
        say(line)
    for note in result.notes:
        say(f"- {note}")
    for problem in (picture for picture in pictures if picture.problem):
        say(f"not drawn: {problem.name}: {problem.problem}")
    say(f"page:          {sweep.folder / PAGE}")
    for name, command in zip(("train with it:", "compare it:"), result.commands, strict=True):
        say(f"{name:14} {command}")


def next_commands(sweep: Sweep, options: Options, config: RunConfig, best: str) -> tuple[str, str]:
    """Return the commands that train with the best settings, and that compare them with the usual ones.

    Args:
        sweep: the sweep.
        options: its options.
        config: the best settings.
        best: the file that holds them.
    """
    foreign = [word for option, spec in config.foreign() for word in (f"--{option}", spec)]
    train = shlex.join(["layer-tying", "run", "--config", best, *foreign])
    model = [] if sweep.base.env.model == "gpt2" else ["--model", sweep.base.env.model]
    sized = [*model, *([] if options.preset == "small" else ["--preset", options.preset])]
    start = [] if sweep.base.env.init_from is None else ["--init-from", str(sweep.base.env.init_from)]
    usual = with_agent(default_run(*chosen_preset([*sized, *start])), sweep.base.agent)
    usual = at_its_rate(usual, options.preset, start)
    agents = list(dict.fromkeys([sweep.base.agent, "random"]))
    common = common_options(sweep.base, usual)
    if start and start[0] not in common:
        sized += start
    words = ["--agents", *agents, "--arms", arm_text(config, sweep.searches), *sized, *common]
    return train, shlex.join(["layer-tying", "compare", *words])


def _refuse_clash(config: RunConfig) -> None:
    """Refuse an agent's setting that has the name of an option of this command.

    Raises:
        ValueError: there is one.
    """
    own = {each.name for each in dataclasses.fields(config.controller)}  # type: ignore[arg-type]
    if clash := sorted(own & {each.name for each in dataclasses.fields(Options)}):
        raise ValueError(
            f"two options have the name {clash[0]!r}, one of them in the agent {config.agent!r}: rename it"
        )


def _in_words(standing: "Standing") -> str:
    best = "" if standing.best is None else f"· best {standing.best:,.2f} (trial {standing.best_trial})"
    ended = [f"{number} {name}" for name in ("pruned", "failed") if (number := getattr(standing, name))]
    return " · ".join([best, *ended]).lstrip()


def _shares(result: "SweepResult") -> list[str]:
    shares = [f"{name} {share:.0%}" for name, share in result.importances.items()]
    return [f"importance:    {', '.join(shares)}"] if shares else []
