"""Find the smallest network that is as good as conventional training on your data, within a budget of training time.

layer-tying smallest --dataset my_text_folder --within 1 --minutes 60 --out smallest/mine
layer-tying smallest --dataset my_text_folder --groups 1 2 3 --n-layer 24 --out smallest/deep

Tyings are tried from the smallest up: the first layer alone and equal runs of the others, each at its own learning rate
by validation, over paired seeds beside conventional training, until the interval of the difference lies within the
margin. The test split is measured afterwards. The best network is left as a folder for `from_pretrained`.

Stopped (Ctrl-C), it resumes where it was when called again in the same way; more minutes may be given then.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tying_agents.commands.early import chosen_preset, default_run, read_options
from tying_agents.commands.many_runs import ManyRuns, as_compared, as_run, plan_of, resumable
from tying_agents.many.checks import check_comparison
from tying_agents.smallest.candidates import candidate_arm, conventional_arm, groups_to_try
from tying_env.config.network import BUILT

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tying_agents.smallest.search import Search, Tried


@dataclass(frozen=True)
class Options(ManyRuns):
    """Find the smallest network that is as good as conventional training."""

    within: float = 1.0
    """Per cent that the perplexity may be above conventional training's."""
    minutes: float = 60.0
    """Budget: minutes of training, with --jobs runs at a time."""
    groups: tuple[int, ...] = ()
    """Numbers of layers with weights of their own to try; by default 1, 2, 3, 4, 6, 8, 12, ... below the depth."""
    seeds: int = 10
    """The most seeds that an arm gets; 3 at least."""
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    """Grid of learning rates; each arm gets its own best by validation perplexity."""
    out: Path = Path("smallest/latest")
    """Folder of all runs, and of the network that was found."""
    settings: tyro.conf.Suppress[object] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.within < 100:
            raise ValueError(f"within must be a number of per cent from 0 to 100, got {self.within}")
        if not 0 < self.minutes < float("inf"):
            raise ValueError(f"minutes must be above 0, got {self.minutes}")
        if self.seeds < 3:
            raise ValueError(f"seeds must be at least 3, fewer tell nothing of a difference, got {self.seeds}")
        if not self.learning_rates:
            raise ValueError("learning_rates must be at least one: conventional training and tied layers want others")


def main(argv: Sequence[str], prog: str = "layer-tying smallest") -> int:
    """Search, print what was tried, export what was found."""

    def work(console: "Console") -> int:
        preset, env = chosen_preset(argv)
        default = Options(preset=preset, run=as_compared(default_run(preset, env)))
        return _searched(read_options(Options, argv, prog, __doc__, default), console)

    return resumable(work)


def _searched(options: Options, console: "Console") -> int:
    base = as_run(options.run)
    if base.env.model not in BUILT:
        raise ValueError(f"--model must be one of {', '.join(BUILT)}, got {base.env.model!r}")
    if base.env.validate_every == 0:
        raise ValueError("validate_every must be at least 1: networks are chosen by validation, got 0")
    groups = groups_to_try(base.env.n_layer, options.groups)
    plan = plan_of(options)
    arms = [conventional_arm(base), *(candidate_arm(base, each) for each in groups)]
    before = check_comparison(arms, plan)
    from tying_agents.many.cluster import end_workers
    from tying_agents.many.comparison import remember_arms
    from tying_agents.running.runner import check
    from tying_agents.smallest.search import Search
    from tying_agents.stopping import StopFile, StopSignals

    for arm in arms:
        check(arm.configure(plan.folder / "runs", 0))
    labels = [arm.label for arm in arms]
    remember_arms(plan.folder, [*labels, *(label for label in before if label not in labels)])
    stop = StopFile(plan.folder / f"stop-{os.getpid()}")
    stop.path.unlink(missing_ok=True)

    said = ""

    def on_step(what: str, done: int, total: int) -> None:
        nonlocal said
        if (text := f"{what} {done}/{total}") != said:
            console.print(text, highlight=False, markup=False)
        said = text

    search = Search(base, plan, options.within, 60 * options.minutes, stop, on_step)
    try:
        with StopSignals(lambda text: console.print(text, highlight=False), stop.tell):
            found = search.run(groups)
    finally:
        stop.path.unlink(missing_ok=True)
        end_workers()
    console.print(_table(search))
    own = search.tried[0]
    if own.frequencies is not None and min(own.validation.values()) >= own.frequencies:
        console.print(
            f"Conventional training has learned nothing here: token frequencies alone have {own.frequencies:,.2f}. "
            "Train longer (--total-steps), or all of this says nothing.",
            highlight=False,
            soft_wrap=True,
        )
    return _concluded(search, found, options, console)


def _concluded(search: "Search", found: "Tried | None", options: Options, console: "Console") -> int:
    """Say what was found, and leave it as a folder."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if found is None:
        tried = len(search.tried) - 1
        say(
            f"None of the {tried} tyings that were tried is shown to be within {options.within:g} % of conventional "
            f"training, in {options.minutes:g} minutes with at most {options.seeds} seeds: what is not shown may still "
            "be so. Give it more --minutes, more --seeds or a wider --within."
        )
        return 0
    from tying_agents.smallest.search import best_run
    from tying_env.export import export_tied

    run = best_run(search, found)
    share = found.parameters / search.tried[0].parameters
    size = f"{found.parameters:,} parameters, {share:.0%} of conventional training's"
    say(f"{found.label}: {size}{_on_test(search, found)}")
    folder = options.out / f"network-{found.label}-{run.name}".replace(" ", "-")
    if not folder.exists():
        export_tied(run, folder, dense=True)
    say(f"run directory:   {run}")
    say(f"from_pretrained: {folder}")
    say(f"all runs:        layer-tying report {options.out} --reference conventional --out report.html")
    return 0


def _on_test(search: "Search", found: "Tried") -> str:
    beside = search.tried[0].test
    ratios = [found.test[seed] / beside[seed] for seed in found.test if seed in beside]
    if not ratios:
        return ""
    mean = 100 * (sum(ratios) / len(ratios) - 1)
    return f"; test perplexity {mean:+.2f} %, mean of {len(ratios)} seeds"


def _table(search: "Search") -> "Table":
    """Return a row for each arm that was tried, from the smallest on: the Pareto front and what lies behind it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="From the smallest up", title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in ("arm", "parameters", "rate", "seeds", "validation", "against conventional [95%]", ""):
        table.add_column(heading, overflow="fold")
    own = search.tried[0].parameters if search.tried else 1
    best = float("inf")
    for each in sorted(search.tried, key=lambda tried: tried.parameters):
        values = list(each.validation.values())
        mean = sum(values) / len(values) if values else float("nan")
        front = values and mean < best
        best = min(best, mean) if values else best
        interval = "" if each.interval is None else f" [{each.interval.low:+.2f}, {each.interval.high:+.2f}]"
        table.add_row(
            each.label + (" *" if front else ""),
            f"{each.parameters:,} ({each.parameters / own:.0%})",
            f"{each.rate:g}",
            str(len(values)),
            f"{mean:,.3f}" if values else "–",
            f"{each.mean:+.2f} %{interval}" if each.differences else "–",
            each.verdict,
        )
    table.caption, table.caption_justify = "* on the Pareto front: no smaller one is as good", "left"
    return table
