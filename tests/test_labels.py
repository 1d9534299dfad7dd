"""Names and paths are shown as they are: in tables on a terminal, and in figures."""

import io
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.text import Text
from rich.console import Console
from rich.table import Table
from tying_agents.commands import start
from tying_agents.commands.guard import plain_console, say_error
from tying_agents.downstream.finetuning import scores_table
from tying_agents.downstream.settings import FinetuneOptions

from tests.run_folders import make_run
from tying_env.reports import figures
from tying_env.reports.comparison import load_comparison
from tying_env.reports.drawing import as_label, as_png

NAMES = ("$a$ and $b_1$", "_hidden", "数据", "模型", "[bold]x[/bold]", "5$")


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name [dim]", title="[red]runs[/red]")
    table.add_row("runs/[/b]one")
    console = plain_console()
    console.print(table)
    console.print("[link=x]a[/link]")
    say_error(console, "no [green] here")
    shown = capsys.readouterr().out
    for text in ("name [dim]", "[red]runs[/red]", "runs/[/b]one", "[link=x]a[/link]", "error: no [green] here"):
        assert text in shown


def test_nothing_of_a_table_of_scores_is_cut_off_at_80_columns() -> None:
    path = Path("runs/20261121-141646-dqn-seed0")
    measured = {"trainable_parameters": 1234567.0, "seconds": 123.4, "independent_adapters": 3.2, "f1": 0.812}
    key = {"run": str(path), "method": "lora, tied by conventional", "diverged": None}
    rows = [{**key, **measured, "accuracy": 0.7, "seed": seed} for seed in (0, 1)]
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(scores_table(FinetuneOptions((path,), "mrpc", seeds=2), rows))
    assert "…" not in capture.get()
    starts = [line.split()[0] for line in capture.get().splitlines() if line.strip()]
    assert "".join(start for start in starts[starts.index("run") + 1 :] if start in str(path)) == str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": (Path("a"), Path("b/../a"))}, r"each run must be given once, got b/\.\./a twice"),
        ({"runs": (Path("a"),), "methods": ("full", "full")}, "each method must be given once, got full twice"),
    ],
)
def test_what_is_given_twice_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneOptions(task="mrpc", **options)


def test_a_run_in_a_folder_with_brackets_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r[red]"
    make_run(folder / "[b]one", "random", config={"label": "x[/b]"})
    assert start("report", [str(folder), "--out", str(folder / "[i].html")]) == 0
    shown = capsys.readouterr().out
    assert "x[/b]" in shown
    assert "[i].html" in shown
    assert "x[/b]" in (folder / "[i].html").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, [0] ± é", "plain, [0] ± é"),
        ("$a$", r"\$a\$"),
        ("_a", "\u200b_a"),
        ("a_b", "a_b"),
        ("a 数", r"a \u6570"),
    ],
)
def test_a_label_is_no_formula_is_not_hidden_and_can_be_drawn(text: str, expected: str) -> None:
    assert as_label(text) == expected


def test_arms_are_in_figures_by_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        make_run(tmp_path / str(number), "random", config={"label": name})
    comparison = load_comparison([tmp_path])
    figure = figures.learning_curves([summary.arm for summary in comparison.arms])
    as_png(figure, dpi=40)  # a glyph that is missing is a warning, and an error here
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(f"{as_label(n)} (n = 1)" for n in NAMES)
    assert all(not Text._preprocess_math(text, text.get_text())[1] for text in legend.get_texts())  # type: ignore[attr-defined]


def test_with_a_font_that_has_them_characters_are_drawn() -> None:
    with matplotlib.rc_context({"font.family": ["DejaVu Sans Mono", "no such font"]}):
        assert as_label("é") == "é"
