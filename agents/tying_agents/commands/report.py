"""Make one page of finished runs: tables, tests against a reference arm, figures.

layer-tying report runs --out report.html
layer-tying report runs --out report.md
layer-tying report comparisons/first --out first.html --reference random --figures figures
layer-tying report runs --out report.md --pairs "dqn:random" "ppo:random"
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_env.reports.loading import find_runs, find_unfinished
from tying_env.reports.out import check_out

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tying_env.reports.cells import TextTable
    from tying_env.reports.comparison import Comparison

MetricName = Literal[
    "test-perplexity",
    "final-test-perplexity",
    "bits-per-byte",
    "test-accuracy",
    "test-cross-entropy",
    "validation-perplexity",
    "first-perplexity",
]


@dataclass(frozen=True)
class Options:
    """Make one page of finished runs: tables, tests against a reference arm, figures."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or folders that hold some at any depth. Runs with one label are one arm over seeds; of several
    runs of one seed the newest finished one counts."""
    out: Path
    """The page to write; it must not exist yet. HTML with all figures in it; where the name ends in .md, the tables in
    Markdown."""
    reference: str | None = None
    """Label of the arm that the others are compared with; the default is "random" if it is there, else the first."""
    metric: MetricName = "test-perplexity"
    """What arms are compared by. The first is that of the first decision, with --reward-timing after_tying right after
    its tying."""
    equivalent_within: float | None = None
    """Say in a column of its own whether an arm is shown to differ from the reference arm by at most so many per cent:
    whether the whole interval of the difference lies within. "not shown" is no proof of a difference."""
    pairs: tuple[str, ...] = ()
    """Arms to compare with each other besides, "ARM:OTHER" each, in a table of their own: for a question that not all
    arms are about. Holm's correction is over the pairs."""
    figures: Path | None = None
    """Folder for all figures as PNG and SVG."""
    force: bool = False
    """Write over what is there."""


def main(argv: Sequence[str], prog: str = "layer-tying report") -> int:
    """Write the page, print its tables, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        check_out(options.out, options.force)  # before minutes of drawing
        find_runs(options.runs)
        from tying_agents.control.notes import with_control
        from tying_env.reports.comparison import load_comparison

        comparison = with_control(
            load_comparison(options.runs, options.reference, options.metric, options.equivalent_within, options.pairs)
        )
        from tying_env.reports.drawing import save_figure
        from tying_env.reports.gallery import failure
        from tying_env.reports.html import make_report, write_report
        from tying_env.reports.markdown import as_markdown
        from tying_env.reports.page import write_page

        print_comparison(comparison, console)
        for folder in find_unfinished(options.runs):
            console.print(f"- left out: {folder} is not over", highlight=False, markup=False, soft_wrap=True)
        report = make_report(comparison)
        if options.out.suffix.lower() == ".md":
            write_page(as_markdown(comparison), options.out, options.force)
        else:
            write_report(report, options.out, options.force)
        for picture in report.all_pictures():
            problem = picture.problem
            if picture.figure is not None and options.figures is not None:
                try:
                    save_figure(picture.figure, options.figures, picture.name)
                except OSError:  # a full disk is not the figure's mistake
                    raise
                except Exception as error:
                    problem = failure(error)
            if problem:
                console.print(f"not drawn: {picture.name}: {problem}", highlight=False, markup=False)
        console.print(f"report:  {options.out}", highlight=False, markup=False, soft_wrap=True)
        if options.figures is not None:
            console.print(f"figures: {options.figures}", highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


def print_comparison(comparison: "Comparison", console: "Console") -> None:
    """Print the tables of arms and what to beware of."""
    from tying_env.reports.costs import cost_table
    from tying_env.reports.results import pairs_table, results_table

    for table in (results_table(comparison), pairs_table(comparison), cost_table(comparison)):
        if table is not None:
            console.print(_as_rich(table))
    for note in comparison.notes:
        console.print(f"- {note}", highlight=False, markup=False)


def _as_rich(table: "TextTable") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(title=table.title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading, *cells in zip(table.headings, *table.rows, strict=True):
        # Where the terminal is too narrow the widest columns fold, between words if they can; nothing is cut off.
        shown.add_column(_folded(heading, cells), overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _folded(heading: str, cells: list[str]) -> str:
    """Return the heading in lines about as wide as the cells below it, where its words allow that."""
    width = max(7, *(len(line) for cell in cells for line in cell.splitlines()))
    lines = textwrap.fill(heading, width, break_long_words=False)
    return lines.replace("bits/byte", "bits/\nbyte").replace("detectable", "detect-\nable")
