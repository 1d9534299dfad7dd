"""The tables of a comparison in Markdown, to be read in a repository or pasted into one."""

from collections.abc import Iterable

from tying_env.reports.arms import settings_of, varying_settings
from tying_env.reports.cells import NOTHING, TextTable
from tying_env.reports.comparison import Comparison
from tying_env.reports.costs import cost_table
from tying_env.reports.results import pairs_table, results_table


def as_markdown(comparison: Comparison) -> str:
    """Return the tables of a comparison and its notes in Markdown.

    Where arms differ in their learning rate, the first table has it as a column.
    """
    results = results_table(comparison)
    arms = [summary.arm for summary in comparison.arms]
    if "learning_rate" in varying_settings(arms):
        rates = {arm.label: f"{settings_of(arm.runs[0])['learning_rate']:g}" for arm in arms}
        cells = [rates.get(row[0], NOTHING) for row in results.rows]
        rows = tuple((row[0], cell, *row[1:]) for row, cell in zip(results.rows, cells, strict=True))
        results = TextTable(results.title, (results.headings[0], "learning rate", *results.headings[1:]), rows)
    tables = (results, pairs_table(comparison), cost_table(comparison))
    notes = "\n".join(f"- {note}" for note in comparison.notes)
    parts = [*(_table(table) for table in tables if table is not None), notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: TextTable) -> str:
    lines = [table.headings, tuple("---" for _ in table.headings), *table.rows]
    return "\n".join([f"**{table.title}**", "", *(line(cells) for cells in lines)])


def line(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table; what is in a cell is no end of it."""
    texts = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(texts)} |"
