"""What the tables of every page are made of."""

from typing import NamedTuple

NOTHING = "–"


class TextTable(NamedTuple):
    """A table ready to print."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def format_p(p: float) -> str:
    """Return a p-value with three digits behind the point; "< 0.001" below."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
