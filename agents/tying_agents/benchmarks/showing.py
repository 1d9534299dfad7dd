"""How numbers of the benchmark are shown, in the terminal and on a page."""

import operator
import re
from collections.abc import Sequence

from rich.table import Table

from tying_agents.benchmarks.turns import MOST_SPREAD, RATIO, TableRow, tell_ratio


def to_table(title: str, rows: Sequence[TableRow]) -> Table:
    """Return the rows as a table; ratios are to the first row of their section, and there only where turns agree."""
    table = Table("", title=title, title_justify="left")
    for column in ("median", "min .. max", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("required")
    for row in rows:
        if row.against is None:
            table.add_section()
        table.add_row(row.name, median_of(row), range_of(row), ratio_of(row, rows) or "1", required_of(row))
    return table


def median_of(row: TableRow) -> str:
    """Return a row's number with its unit; where that is a ratio itself, only if its turns agree."""
    if row.unit == RATIO:
        return tell_ratio(row.median, row.min, row.max)
    if row.unit == "bytes" and row.median >= 1e6:
        return f"{number(row.median / 1e6)} MB"
    return f"{number(row.median)} {row.unit}".rstrip()


def range_of(row: TableRow) -> str:
    """Return a row's smallest and largest number; nothing if they are one."""
    return "" if row.min == row.max else f"{number(row.min)} .. {number(row.max)}"


def ratio_of(row: TableRow, rows: Sequence[TableRow]) -> str:
    """Return a row's ratio to what it is compared with, only if its turns agree; nothing if there is none.

    Files of before spreads were kept have only the ranges of both. Where those leave open whether the turns agree, what
    is returned is the range in which the ratio of every turn lies.
    """
    if row.ratio is None:
        return ""
    if row.ratio_min is not None and row.ratio_max is not None:
        return tell_ratio(row.ratio, row.ratio_min, row.ratio_max)
    (base,) = (other for other in rows if other.name == row.against)
    least, most = row.min / base.max, row.max / base.min
    if most - least <= MOST_SPREAD * row.ratio:
        return tell_ratio(row.ratio, least, most)
    return f"{least:.3g} .. {most:.3g}"


def required_of(row: TableRow) -> str:
    """Return what a row's ratio is meant to be; where its turns vary too much to show it, in which of them it was."""
    least, median, most = row.ratio_min, row.ratio, row.ratio_max
    if row.unit == RATIO:
        least, median, most = row.min, row.median, row.max
    goal = re.fullmatch(r"(at least|above|at most|below) ([\d.]+)", row.required or "")
    if goal is None or least is None or median is None or most is None or most - least <= MOST_SPREAD * median:
        return row.required or ""
    met = {_MEETS[goal[1]](end, float(goal[2])) for end in (least, most)}
    return f"{row.required}: in {'some turns' if len(met) == 2 else 'every turn' if met == {True} else 'no turn'}"


_MEETS = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}


def number(value: float) -> str:
    """Return a number with all digits before the point, and four in all if it has fewer."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
