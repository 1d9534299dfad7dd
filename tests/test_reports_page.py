import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.command_line import called
from tests.pictures import AS_SOURCE
from tests.run_folders import change, make_arms, make_records, make_run
from tying_env.reports import figures as drawn
from tying_env.reports import html, pareto
from tying_env.reports import page as pages
from tying_env.reports.comparison import load_comparison
from tying_env.reports.drawing import new_axes
from tying_env.reports.html import make_report, render_page, write_report
from tying_env.reports.out import check_out

SCRIPT = Path(__file__).parents[1] / "scripts" / "report.py"
VOID = {"meta", "img", "br", "link"}


class Checked(HTMLParser):
    """Reads a page and checks that its elements nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    return called("report", *arguments)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_arms(tmp_path_factory.mktemp("arms"))
    make_run(folder / "x", "dqn", 6, status="diverged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_as_source", AS_SOURCE)
        return render_page(make_report(load_comparison([folder])))


def test_the_page_holds_the_tables_and_how_to_read_them(page: str) -> None:
    text = Checked(page).text
    for expected in (
        "6/7",
        "12.50",
        "-1.00",
        "0.031",
        "chance 2.08",
        "seconds",
        "diverged: no result",
        "learning_rate",
    ):
        assert expected in text, expected
    for term in (
        "interquartile mean",
        "exact paired permutation test",
        "Holm",
        "t interval at level 98.5%",
        "harmonic number",
    ):
        assert term in text, term


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    elements = Checked(page).seen
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in elements}
    images = [attributes for tag, attributes in elements if tag == "img"]
    assert len(images) == 5 + 2 * 5  # no networks here, so neither correlations nor alignment
    assert all(str(image["src"]).startswith("data:image/") and image["alt"] for image in images)
    assert "@import" not in page and "url(" not in page
    assert len(page) < 3_000_000


def test_every_id_is_there_once(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Checked(page).seen if "id" in attributes]
    assert len(ids) == len(set(ids)) == 5 + 2 * 9


def test_the_page_is_for_light_dark_and_paper(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_all_text_is_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script> & \"co\""
    make_run(tmp_path / "a&b<i>", "dqn", config={"label": nasty}, env={"dataset": nasty})
    page = render_page(make_report(load_comparison([tmp_path])))
    checked = Checked(page)
    assert "script" not in {tag for tag, _ in checked.seen} and "i" not in {tag for tag, _ in checked.seen}
    assert nasty in checked.text
    assert "a&b<i>" in checked.text


@pytest.mark.usefixtures("figures")
def test_equal_input_gives_an_equal_page(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    one, two = (render_page(make_report(load_comparison([tmp_path]))) for _ in range(2))
    assert one == two


@pytest.mark.usefixtures("figures")
def test_a_long_run_goes_in_as_pixels_and_stays_small(tmp_path: Path) -> None:
    records = make_records(6_000, 48, 0)
    make_run(tmp_path / "run", env={"n_layer": 48, "total_steps": 12_000}, records=records)
    page = render_page(make_report(load_comparison([tmp_path])))
    assert "data:image/png" in page
    assert len(page) < 3_000_000


def test_a_figure_that_fails_leaves_a_note_and_the_rest_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = load_comparison([make_arms(tmp_path, seeds=2)])

    def broken(*_: object) -> Figure:
        raise KeyError("tokens_per_second")

    def unreadable(*_: object) -> Figure:
        figure, axes = new_axes("title", "x", "y")
        axes.set_title("$\\nonsense$")  # matplotlib reads its formulas only when it draws
        monkeypatch.setattr(pages, "_as_source", lambda each: AS_SOURCE(each) if each is figure else "data:,")
        return figure

    monkeypatch.setattr(drawn, "training_speed", broken)
    monkeypatch.setattr(pareto, "pareto", unreadable)
    page = render_page(make_report(comparison))
    text = Checked(page).text
    assert "Not drawn: training-speed: it failed with KeyError: 'tokens_per_second'." in text
    assert "Not drawn: pareto: it failed with ValueError" in text
    assert "harmonic number" in text and "-1.00" in text
    assert page.count("<img") == 3 + 2 * 5  # all the others


def test_a_page_is_not_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    finished = make_report(load_comparison([make_run(tmp_path / "run")]))
    write_report(finished, out)
    with pytest.raises(FileExistsError, match="--force"):
        write_report(finished, out)
    write_report(finished, out, overwrite=True)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_out(tmp_path, overwrite=True)


def test_the_script_writes_page_and_figures_and_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_arms(tmp_path / "runs")
    out, folder = tmp_path / "page.html", tmp_path / "figures"
    of_a_run = html.run_pictures
    with monkeypatch.context() as patch:  # of one arm; the figures of the second page are left out
        patch.setattr(pages, "_as_source", AS_SOURCE)
        patch.setattr(html, "run_pictures", lambda run, to: of_a_run(run, to) if to == "arm2-random" else [])
        done = report(tmp_path / "runs", "--out", out, "--figures", folder, "--reference", "dqn")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "difference" in done.stdout and "6/6" in done.stdout
    assert "reference arm: dqn" in out.read_text(encoding="utf-8")
    names = {path.name for path in folder.iterdir()}
    assert {"pareto.png", "pareto.svg", "learning-curves.svg", "arm2-random-tying-raster.png"} <= names
    monkeypatch.setattr(html, "run_pictures", lambda *_: [])
    again = report(tmp_path / "runs", "--out", out)
    assert again.returncode == 1 and "exists already" in again.stdout
    assert report(tmp_path / "runs", "--out", out, "--force", "--metric", "bits-per-byte").returncode == 0


def test_the_tables_in_markdown(tmp_path: Path) -> None:
    for label, rate in (("a|b", 0.001), ("random", 0.004)):
        for seed in range(3):
            folder = tmp_path / "runs" / f"{rate}" / str(seed)
            make_run(folder, "random", seed, env={"learning_rate": rate}, config={"label": label})
    out = tmp_path / "page.md"
    assert report(tmp_path / "runs", "--out", out).returncode == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("**Test perplexity")
    assert lines[2].startswith("| arm | learning rate | seeds | IQM [95%] |")
    assert [line.split(" | ")[:3] for line in lines if line.startswith(("| a", "| random"))][:3] == [
        ["| arm", "learning rate", "seeds"],
        ["| a\\|b", "0.001", "3/3"],
        ["| random", "0.004", "3/3"],
    ]
    tables = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {10, 8}  # every row as wide as its heading


def test_names_of_arms_stay_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    make_arms(tmp_path / "runs")
    for label, perplexity in (("random-static", 13_593.4), ("conventional", 14_000.1)):
        for seed in range(2):
            make_run(tmp_path / "runs" / label / str(seed), label, seed, perplexity=perplexity + seed)
    make_run(tmp_path / "runs" / "hill-climbing", "hill-climbing", 0, perplexity=12_345.67)
    printed = report(tmp_path / "runs", "--out", tmp_path / "page.html").stdout
    lines = printed.split("report:")[0].splitlines()
    assert max(map(len, lines)) <= 80
    for label in ("dqn", "random", "random-static", "conventional", "hill-climbing"):
        assert sum(line.split()[:1] == [label] for line in lines) == 2, label  # once in each table
    cells = [cell for line in lines for cell in re.split(" {2,}", line)]
    for cell in (
        "(one seed:",
        "(all seeds",
        "no interval)",
        "detect-",
        "bits/",
        "[13,572.68,",
        "(+129,366%)",
        "(chance 2.08)",
    ):
        assert any(cell in found for found in cells), cell


def test_headings_of_the_page_are_whole_words(page: str) -> None:
    headings = re.findall(r'<th scope="col">([^<]*)</th>', page)
    assert {"bits/byte", "detectable", "p (Holm)", "difference to random [95%]", "seconds a run"} <= set(headings)


def test_a_probability_looks_the_same_everywhere(tmp_path: Path) -> None:
    page = render_page(make_report(load_comparison([make_arms(tmp_path, seeds=5)])))
    found = re.findall(r"\b0\.06\d*", page)
    assert len(found) >= 3  # in a table, in what to beware of, in how to read it
    assert set(found) == {"0.062"}


def test_chance_has_one_value_only_where_all_arms_have_as_many_layers(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn")
    assert "on average, here 2.08." in render_page(make_report(load_comparison([tmp_path])))
    make_run(tmp_path / "b", "random", env={"n_layer": 6})
    page = render_page(make_report(load_comparison([tmp_path])))
    assert "on average." in page and "on average, here" not in page


def test_one_run_is_not_runs(tmp_path: Path) -> None:
    comparison = load_comparison([make_run(tmp_path / "run")])
    assert "1 run in 1 arm." in render_page(make_report(comparison))


def test_the_script_says_what_is_wrong(tmp_path: Path) -> None:
    make_arms(tmp_path / "runs", seeds=1)
    (tmp_path / "empty").mkdir()
    out = tmp_path / "page.html"
    one_seed = report(tmp_path / "runs", "--out", out)
    assert one_seed.returncode == 0
    assert re.search(r"one\s+seed", one_seed.stdout)
    out.unlink()
    change(tmp_path / "runs/dqn/0", "config.json", seed=1)
    for arguments, message in (
        ([tmp_path / "empty"], "no runs found in"),
        ([tmp_path / "runs", "--reference", "ppo"], "the labels are 'dqn', 'random'"),
    ):
        done = report(*arguments, "--out", out)
        assert done.returncode == 1
        assert message in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert not out.exists()
    with open(tmp_path / "runs/dqn/0/metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"decision": 1')
    damaged = report(tmp_path / "runs", "--out", out)
    assert damaged.returncode == 1
    assert "metrics.jsonl, line 11 is damaged" in damaged.stdout
