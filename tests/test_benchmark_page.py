"""The page of the benchmark is what its files say."""

import json
from pathlib import Path
from typing import Any

import pytest
from tying_agents.benchmarks.page import write_page
from tying_agents.benchmarks.turns import to_rows

from tests.command_line import called

DOCS = Path(__file__).parents[1] / "docs"
WORK = {"n_layer": 12, "n_embd": 128, "wide_n_embd": 256, "batch_size": 8, "seq_len": 128, "repeats": 3}
PLACE = "Before.\n<!-- benchmark: tying -->\nof old\n<!-- end -->\nAfter.\n"


@pytest.mark.parametrize(("name", "folder"), [("performance.md", "results"), ("performance_amd.md", "results/amd")])
def test_a_page_of_performance_is_what_its_files_say(tmp_path: Path, name: str, folder: str) -> None:
    page, files = tmp_path / "page.md", sorted((DOCS / folder).glob("benchmark_*.json"))
    page.write_text((DOCS / name).read_text(encoding="utf-8"), encoding="utf-8")
    run = called("benchmark", "--page", page, "--files", *files)
    assert run.returncode == 0, run.stdout + run.stderr
    assert page.read_text(encoding="utf-8") == (DOCS / name).read_text(encoding="utf-8")
    measured = {name for file in files for name in json.loads(file.read_text())["measurements"]}
    assert {name for name in measured if f"<!-- benchmark: {name} -->" in page.read_text()} == measured


def written(path: Path, **changed: Any) -> Path:
    speeds = {
        "512 words: conventional": [100.0, 100.0, 100.0],
        "512 words: steady": [109.0, 110.0, 111.0],
        "512 words: wild": [100.0, 110.0, 120.0],
    }
    wanted = {"512 words: steady": "at least 1", "512 words: wild": "at least 1.1"}
    rows = [row._asdict() for row in to_rows(speeds, "tokens/s", next(iter(speeds)), wanted)]
    machine = {
        "processor": "AMD EPYC",
        "threads": 1,
        "cores": 2,
        "versions": {"torch": "2.13.0"},
        "load_at_start": 0.04,
    }
    machine |= {"environment": {"OMP_NUM_THREADS": "1"}, "onednn": True}
    options = {"workload": WORK | {"clock": "cpu"}, "many": {}}
    content = {"machine": machine, "options": options, "measurements": {"tying": rows}} | changed
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_what_is_between_the_marks_is_written_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PLACE, encoding="utf-8")
    assert write_page(page, [written(tmp_path / "a.json")]) == ["tying"]
    where = (
        "a.json: AMD EPYC, 2 cores, of which torch takes 1, torch 2.13.0, products by oneDNN, OMP_NUM_THREADS=1, load "
    )
    where += "0.0 at the start, 12 x 128 (wide: 256), 8 x 128 tokens, 3 turns, processor time."
    assert page.read_text(encoding="utf-8").splitlines() == [
        *("Before.", "<!-- benchmark: tying -->", where, ""),
        *("| | 512 words |", "| --- | --- |", "| conventional | 100 tokens/s |"),
        *(
            "| steady | 110 tokens/s (1.1 x; at least 1) |",
            "| wild | 110 tokens/s (varies by 18 %; at least 1.1: in some turns) |",
        ),
        *("<!-- end -->", "After."),
    ]


@pytest.mark.parametrize(
    ("speeds", "shown"), [((109.0, 110.0, 111.0), "1.1 x"), ((100.0, 110.0, 120.0), "1 .. 1.2 x")], ids=str
)
def test_of_files_without_spreads_a_ratio_is_shown_where_the_ranges_tell(
    tmp_path: Path, speeds: tuple[float, ...], shown: str
) -> None:
    page, found = tmp_path / "page.md", {"512 words: a": [100.0] * 3, "512 words: b": list(speeds)}
    rows = [row._asdict() for row in to_rows(found, "tokens/s", "512 words: a")]
    rows = [{name: row[name] for name in row if not name.startswith("ratio_")} for row in rows]
    page.write_text(PLACE, encoding="utf-8")
    write_page(page, [written(tmp_path / "old.json", measurements={"tying": rows})])
    assert f"| b | 110 tokens/s ({shown}) |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", r"page\.md must have marks <!-- benchmark: NAME"),
        (PLACE.replace("<!-- end -->", ""), r"page\.md must have marks .* each with its end"),
        (PLACE.replace("<!-- end -->", "") + PLACE, r"page\.md must have marks .* each with its end"),
        (PLACE.replace("tying", "plain"), r"page\.md has a place for 'plain', of which the files have tying"),
    ],
)
def test_a_page_that_does_not_fit_stays_as_it_is(tmp_path: Path, text: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        write_page(page, [written(tmp_path / "a.json")])
    assert page.read_text(encoding="utf-8") == text


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    page, one = tmp_path / "page.md", written(tmp_path / "a.json")
    page.write_text(PLACE, encoding="utf-8")
    with pytest.raises(ValueError, match=r"'tying' is in .*a\.json and in .*b\.json"):
        write_page(page, [one, written(tmp_path / "b.json")])
    for damaged in ("{", "[]", '{"measurements": {"tying": [{}]}}'):
        one.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=r"a\.json is no file of layer-tying benchmark --json"):
            write_page(page, [one])
    run = called("benchmark", "--page", page)
    assert run.returncode != 0 and "page and files must be given together" in " ".join(run.stderr.split())
