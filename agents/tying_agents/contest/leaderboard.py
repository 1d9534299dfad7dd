"""The leaderboard: how agents do on each corpus of the tying table, as a page in Markdown and HTML with one figure."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tying_agents.contest.entries import CHOSEN_ON, KINDS, RANDOM, Entry, Kind
from tying_agents.contest.standings import Standing, markdown, text_rows
from tying_env.files import to_json, written_whole
from tying_env.reports.cells import TextTable
from tying_env.reports.drawing import arm_styles, as_label, as_png, name_axes, new_figure
from tying_env.reports.gallery import picture
from tying_env.reports.page import for_page, render, write_page
from tying_env.reports.template import TABLES_PAGE

PAGE, FIGURE = "leaderboard", "leaderboard.png"
BLACK = "#000000"  # random's alone
_CAPTION = (
    "Mean regret of the best tying found so far, with 95% intervals, against the trainings bought. Each panel has one "
    "kind of agents; black in all of them: random."
)


@dataclass(frozen=True)
class Board:
    """How agents do.

    Attributes:
        entries: who searched.
        standings: corpus -> how they did, the best first.
        seeds: searches of each on each corpus.
        steps: training steps of a whole training.
        about: of the table: which file, settings of its networks.
        command: that makes this page.
    """

    entries: tuple[Entry, ...]
    standings: dict[str, list[Standing]]
    seeds: int
    steps: int
    about: str
    command: str


def write_board(board: Board, folder: Path) -> list[Path]:
    """Write the page, in Markdown and in HTML, and its figure into a folder; return their paths.

    Raises:
        OSError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(board)
    paths = [folder / f"{PAGE}.md", folder / f"{PAGE}.html", folder / FIGURE]
    with written_whole(paths[0]) as unfinished:
        unfinished.write_text(as_markdown(board), encoding="utf-8")
    write_page(as_html(board, figure), paths[1], overwrite=True)
    with written_whole(paths[2]) as unfinished:
        unfinished.write_bytes(as_png(figure))
    return paths


def tables(board: Board) -> list[TextTable]:
    """Return the tables of the page: one for each corpus, and the settings."""
    found = []
    for corpus, standings in board.standings.items():
        heading, *rows = text_rows(standings)
        how = "where settings were chosen" if corpus == CHOSEN_ON else f"with the settings chosen on {CHOSEN_ON}"
        heading = tuple(f"{cell} ({_steps(cell, board)})" if cell.startswith("after ") else cell for cell in heading)
        found.append(TextTable(f"{corpus}: mean regret, {how}", heading, tuple(rows)))
    settings = tuple((entry.name, entry.agent, _settings_of(entry)) for entry in board.entries)
    return [*found, TextTable("Settings, fixed beforehand", ("agent", "in the registry", "settings"), settings)]


def paragraphs(board: Board) -> list[str]:
    """Return what the page says before its tables."""
    seconds = sum(each.seconds * each.seeds for found in board.standings.values() for each in found)
    cost = f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
    cost = cost if seconds < 7200 else f"{seconds / 3600:,.1f} hours"
    slowest = max((each for found in board.standings.values() for each in found), key=lambda each: each.seconds)
    return [
        f"{len(board.entries)} agents, {board.seeds} searches each on each corpus. {board.about}",
        f"A search buys trainings, {board.steps} training steps each; so equal numbers of trainings are equal "
        "training steps, and what an agent tries in forks before it decides counts, too. The regret is how much "
        "worse, in perplexity per byte on the test split and means over seeds, the best tying found is than the best "
        "there is; “none yet”: some search had found none that is allowed. ± is half the width of a 95% interval (t, "
        "at level 98.5%, which makes up for skew).",
        f"The searches took {cost} of CPU time; the slowest agent is {slowest.arm}, {slowest.seconds:.2g} s for each.",
    ]


def as_markdown(board: Board) -> str:
    """Return the page in Markdown."""
    parts = ["# Leaderboard of the tying table", *paragraphs(board), f"```\n{board.command}\n```"]
    parts.append(f"![{_CAPTION}]({FIGURE})\n\n{_CAPTION}")
    for table in tables(board):
        parts.append(f"## {table.title}\n\n{markdown([table.headings, *table.rows])}".rstrip())
    return "\n\n".join(parts) + "\n"


def as_html(board: Board, figure: Figure) -> str:
    """Return the page in HTML, its figure inside; every text in it is escaped."""
    return render(
        TABLES_PAGE,
        title="Leaderboard of the tying table",
        subtitle=f"{len(board.entries)} agents, {board.seeds} searches each",
        notes=[],
        paragraphs=paragraphs(board),
        commands=board.command,
        pictures=[for_page(picture(PAGE, _CAPTION, lambda: figure))],
        tables=tables(board),
    )


def draw(board: Board) -> Figure:
    """Draw mean regrets: a column for each corpus, a row for each kind of agents, and chance in all of them."""
    others = [entry for entry in board.entries if entry.name != RANDOM] or board.entries  # chance may be alone
    kinds = [kind for kind in KINDS if any(entry.kind == kind for entry in others)]
    figure = new_figure((1.5 + 4.2 * len(board.standings), 0.6 + 2.9 * len(kinds)))
    panels = figure.subplots(len(kinds), len(board.standings), squeeze=False, sharex=True, sharey="col")
    for column, (corpus, standings) in enumerate(board.standings.items()):
        for row, kind in enumerate(kinds):
            axes = panels[row][column]
            _draw_kind(axes, board, standings, kind)
            below = "trainings bought" if row == len(kinds) - 1 else ""
            name_axes(axes, below, "regret (perplexity)" if column == 0 else "")
            axes.set_title(f"{as_label(corpus)}: {kind}", fontsize=10)
            if column == len(board.standings) - 1:
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        panels[0][column].set_ylim(bottom=0)  # of the whole column; any earlier, it would fix the top as well
    return figure


def _draw_kind(axes: Axes, board: Board, standings: Sequence[Standing], kind: Kind) -> None:
    by_name = {standing.arm: standing for standing in standings}
    names = [entry.name for entry in board.entries if entry.kind == kind and entry.name != RANDOM]
    styles = arm_styles(names)
    for name in (*names, RANDOM):
        if (standing := by_name.get(name)) is None:
            continue
        points = [(mark, mean) for mark, mean in standing.regret.items() if mean is not None]
        marks = [mark for mark, _ in points]
        look: dict[str, Any] = {"color": BLACK, "linewidth": 2.5}
        if name != RANDOM:
            style = styles[name]
            colour = "#999999" if style.colour == BLACK else style.colour
            look = {"color": colour, "linestyle": style.line, "marker": style.marker, "markersize": 4}
        axes.plot(marks, [mean.value for _, mean in points], label=as_label(name), **look)
        low = [mean.value - mean.half_width for _, mean in points]
        high = [mean.value + mean.half_width for _, mean in points]
        axes.fill_between(marks, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    ticks = sorted({mark for standing in standings for mark in standing.regret})
    axes.set_xticks(ticks, [str(mark) for mark in ticks])
    axes.minorticks_off()


def _steps(heading: str, board: Board) -> str:
    return f"{int(heading.removeprefix('after ')) * board.steps:,} steps"


def _settings_of(entry: Entry) -> str:
    plain = json.loads(to_json(dataclasses.asdict(entry.arm().settings)))
    told = [f"{name} {value}" for name, value in plain.items()]
    return ", ".join([*told, "buys shortened trainings"] if entry.fidelities else told) or "none"
