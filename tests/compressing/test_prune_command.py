"""The command that prunes: an export of one run, or a table and figures of several."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.commands import start
from tying_agents.compressing.pruned_runs import PrunedResult, as_markdown, draw_by_group

from tests.compressing.conftest import MakeRun
from tying_env.compression.pruning import (
    Pruning,
    linears_of,
    prune,
)
from tying_env.export import load_export, load_tied
from tying_env.primary.evaluation import Evaluation
from tying_env.reports.statistics import mean_interval
from tying_env.runs import LoadedRun, load_run


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["--pattern", "2:4"]),
        ({"model": "bert"}, ["--method", "magnitude"]),
        ({"model": "llama", "n_kv_head": 1}, []),
        ({"model": "vit", "dataset": "digits", "patch_size": 4}, []),
        ({"residual_scale": "sqrt"}, ["--dense"]),
    ],
)
def test_the_command_leaves_an_export_of_the_pruned_network(
    make_run: MakeRun, tmp_path: Path, settings: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(**settings)
    arguments = [str(run.path), "--examples", "8", "--out", str(tmp_path / "out"), *words]
    assert start("prune", arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    loaded = load_export(tmp_path / "out")
    linears = linears_of(loaded.saved.network)
    zeros = sum(int((linear.weight == 0).sum()) for linear in linears)
    total = sum(linear.weight.numel() for linear in linears)
    assert zeros == total // 2
    if "--dense" not in words:
        assert f"{zeros:,} of the {total:,} weights of the blocks' linear layers are 0" in printed
        assert torch.equal(load_tied(tmp_path / "out").get_parameter(linears[0].name), linears[0].weight)
    assert "test perplexity" in printed or "test accuracy" in printed
    card = (tmp_path / "out" / "README.md").read_text()
    assert '"pruning": {' in card and '"zeros":' in card
    after = loaded.open_workload(str(settings.get("dataset") or run.config.dataset)).evaluate(
        loaded.model, "test", 0, torch.device("cpu")
    )
    assert f"| perplexity | {after.perplexity:,.6g} |" in card or settings.get("residual_scale")
    assert start("prune", arguments) == 1
    assert "exists already" in capsys.readouterr().out
    assert start("prune", [str(tmp_path / "out")]) == 1
    assert "out is an exported network, which is not pruned" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("command", "ending"), [("prune", "-pruned"), ("pack", ".packed")])
def test_what_is_made_of_one_network_lies_beside_it(
    command: str, ending: str, sandwich: LoadedRun, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run = sandwich.path
    measured = ["--windows", "2", *(["--test-windows", "2"] if command == "pack" else [])]
    monkeypatch.chdir(run)  # its name is not in the path
    assert start(command, [".", *measured]) == 0
    assert run.with_name(run.name + ending).exists()
    assert start(command, [str(run), *measured]) == 1
    assert f"{run.name}{ending} exists already" in " ".join(capsys.readouterr().out.split())
    ways = {"prune": ["--sparsity", "0.2", "0.3"], "pack": ["--max-bytes", "10000", "20000"]}
    assert start(command, [str(run), *ways[command]]) == 1
    assert "--out must name a folder for the tables and figures" in " ".join(capsys.readouterr().out.split())
    assert start(command, [str(run), *ways[command], "--out", str(run / "config.json")]) == 1
    assert "config.json is a file, and --out must name a folder" in " ".join(capsys.readouterr().out.split())


def test_an_export_is_measured_on_as_much_as_was_asked_for(sandwich: LoadedRun, tmp_path: Path, capsys: Any) -> None:
    words = ["--examples", "8", "--windows", "4", "--out", str(tmp_path / "out")]
    assert start("prune", [str(sandwich.path), *words]) == 0
    printed = capsys.readouterr().out
    run = load_run(sandwich.path)
    few = run.open_workload().evaluate(run.model, "test", 4, torch.device("cpu"))
    assert "4 sequences of each split" in " ".join(printed.split()) and f" {few.perplexity:,.3f} " in printed


@pytest.mark.parametrize("label", ["[/]", "[red]x", "$a_b", "_a|b"])
def test_a_label_is_no_markup(sandwich: LoadedRun, tmp_path: Path, label: str, capsys: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(sandwich.path, run)
    about = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(about | {"label": label}))
    words = [str(run), "--sparsity", "0.25", "0.5", "--examples", "8", "--windows", "4", "--out", str(tmp_path / "out")]
    assert start("prune", words) == 0, capsys.readouterr().out
    assert f"| {label.replace('|', chr(92) + '|')} |" in (tmp_path / "out" / "pruning.md").read_text()


def test_runs_side_by_side_make_a_table_and_a_figure(
    make_run: MakeRun, sandwich: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run("conventional")
    words = [str(sandwich.path), str(other.path), "--sparsity", "0.25", "0.5", "--method", "wanda", "magnitude"]
    out = tmp_path / "table"
    names = {f"{what}.{end}" for what in ("pruning", "pruning_groups") for end in ("png", "svg")}
    names |= {"pruning.csv", "pruning.md"}
    out.mkdir()
    for name in names:
        (out / name).write_text("old")
    assert start("prune", [*words, "--examples", "8", "--windows", "8", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == names
    assert all(path.stat().st_size > 100 for path in out.iterdir())  # those of before are replaced
    with (out / "pruning.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 4)
    assert [row["zeros"] for row in rows[:5]] == ["0", "0.25", "0.5", "0.25", "0.5"]
    assert {(row["label"], row["independent_units"], row["largest_group"]) for row in rows} == {
        ("sandwich", "3", "2"),
        ("conventional", "4", "1"),
    }
    # The row of a way is what pruning alone in that way comes to: nothing of the ways before it is left.
    loaded = load_run(sandwich.path)
    linears = linears_of(loaded.saved.network)
    prune(linears, None, Pruning(0.5, "magnitude"))
    alone = loaded.open_workload().evaluate(loaded.model, "test", 8, torch.device("cpu")).perplexity
    assert float(rows[4]["test_perplexity"]) == pytest.approx(alone, rel=1e-5)
    table = (out / "pruning.md").read_text()
    assert "| sandwich | 3 of 4 | 2 | magnitude | unstructured | 0.5 |" in table and "Token frequencies alone:" in table
    capsys.readouterr()
    for more, message in (
        (["--dense"], "--dense is for the export of one run"),
        (["--sparsity", "0.5", "1"], "sparsity must be at least 0 and below 1, got 1"),
        (["--pattern", "2:4"], "the pattern 2:4 has a sparsity of 0.5, got 0.25"),
        (["--windows", "-1"], "windows must be at least 0"),
    ):
        assert start("prune", [*words, *more, "--out", str(tmp_path / "no")]) == 1
        assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "no").exists()


def test_runs_of_one_label_with_other_settings_are_not_averaged(
    make_run: MakeRun, sandwich: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster, again = make_run(learning_rate=0.05), make_run()
    words = [str(each.path) for each in (sandwich, faster, again)]
    out = tmp_path / "out"
    assert start("prune", [*words, "--method", "magnitude", "--windows", "4", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"sandwich has seed 1 more than once: {again.path} counts" in said
    with (out / "pruning.csv").open() as file:
        labels = [(row["label"], row["run"]) for row in csv.DictReader(file) if not row["method"]]
    assert labels == [("sandwich (learning_rate 0.05)", str(faster.path)), ("sandwich", str(again.path))]


def result(
    label: str, seed: int, largest: int, method: str, sparsity: float, perplexity: float, run: str
) -> PrunedResult:
    test = Evaluation(math.log(perplexity), perplexity, None, 8)
    pattern = "unstructured" if method else ""
    return PrunedResult(
        Path(run), label, seed, 4 // largest, 4, largest, method, pattern, sparsity, sparsity, test, None
    )


def made_results() -> list[PrunedResult]:
    """Return those of arms with groups of 1, 2 and 4, of seeds 0 and 1, and seed 1 of the first a second time."""
    runs = [("one", 0, 1), ("one", 1, 1), ("one", 1, 1), ("two", 0, 2), ("two", 1, 2), ("four", 0, 4), ("four", 1, 4)]
    found = []
    for number, (label, seed, largest) in enumerate(runs):
        for method, sparsity, rise in (("", 0, 0), ("wanda", 0.25, 0), ("wanda", 0.6, largest), ("magnitude", 0.6, 2)):
            after = 10 * (1 + (rise * (1 + seed) if method else 0) / 100)
            found.append(result(label, seed, largest, method, sparsity, after, f"run{number}"))
    return found


def test_the_table_counts_seeds_and_sets_arms_against_the_smallest_groups() -> None:
    rows = [line.strip("| ").split(" | ") for line in as_markdown(made_results()).splitlines()]
    assert rows[0][9:] == ["against one, points [95%]", "seeds"]
    found = {(row[0], row[3], row[5]): row[8:] for row in rows[2:]}
    assert found["one", "wanda", "0.6"] == ["+1.50%", "–", "2"]  # three runs of two seeds
    interval = mean_interval([4.0 - 1, 8.0 - 2])  # in points, seed by seed
    assert found["four", "wanda", "0.6"] == ["+6.00%", f"+4.50 [{interval.low:+.2f}, {interval.high:+.2f}]", "2"]
    assert found["two", "magnitude", "0.6"][1] == "+0.00"  # 2 - 2, 4 - 4: nothing to draw an interval from


def test_a_figure_shows_what_the_size_of_a_group_costs() -> None:
    figure = draw_by_group(made_results())
    assert figure is not None
    axes = figure.axes[0]
    assert "0.6 of" in axes.get_title()  # nearest to a half
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["wanda"] == pytest.approx(np.array([[1, 5 / 3], [2, 3], [4, 6]]))
    points = [line for line in axes.lines if line.get_marker() != "None"]
    assert [len(line.get_xdata()) for line in points] == [7, 7]
    assert draw_by_group([each for each in made_results() if each.label == "two"]) is None
