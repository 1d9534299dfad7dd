"""The smallest network: candidates, what is shown and what is not, the budget, the folder that is left."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers
from tying_agents.commands import start
from tying_agents.many.plan import RunPlan
from tying_agents.run_config import RunConfig
from tying_agents.smallest import search as search_module
from tying_agents.smallest.candidates import candidate_arm, groups_to_try
from tying_agents.smallest.search import LEAST_SEEDS, Search, Tried, best_run
from tying_agents.stopping import StopFile

from tying_env import EnvConfig
from tying_env.reports.statistics import mean_half_width

RATES = (1e-3, 2e-3)
# The perplexity of each arm at its best rate, which is the second; seeds differ by some per mille.
WORLD = {"conventional": 10.0, "1 group": 12.0, "2 groups": 10.3, "3 groups": 10.0, "4 groups": 9.9}
PARAMETERS = {"1 group": 100, "2 groups": 200, "3 groups": 300, "4 groups": 400, "conventional": 1000}


def test_numbers_of_groups_are_tried_from_the_smallest_up() -> None:
    assert groups_to_try(12, ()) == [1, 2, 3, 4, 6, 8]
    assert groups_to_try(4, ()) == [1, 2, 3]
    assert groups_to_try(12, (5, 2)) == [2, 5]
    with pytest.raises(ValueError, match="groups must be from 1 to 3, fewer than the 4 layers, got 4"):
        groups_to_try(4, (1, 4))
    with pytest.raises(ValueError, match="a network of 1 layer has none to tie"):
        groups_to_try(1, ())
    configured = candidate_arm(RunConfig(), 3).configure(Path("runs"), 0)
    assert (configured.agent, configured.controller.rule, configured.controller.groups) == ("prior", "own-first", 3)
    assert candidate_arm(RunConfig(), 1).configure(Path("runs"), 0).agent == "albert"


def make_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, world: dict[str, float] = WORLD, **settings: Any
) -> tuple[Search, list[Path]]:
    """Return a search whose runs are made up: each takes ten seconds and has the perplexity of its arm."""
    made: list[Path] = []

    def make(configs: Any, plan: RunPlan, stop: StopFile, on_run: Callable[[int], None]) -> None:
        for config in configs:
            if (config.run_dir / "summary.json").exists():
                continue
            made.append(config.run_dir)
            noise = 1 + 0.002 * np.random.default_rng([config.seed, *config.label.encode()]).standard_normal()
            value = world[config.label] * (1.0 if config.env.learning_rate == RATES[1] else 1.1) * noise
            config.run_dir.mkdir(parents=True)
            test = {"best": {"perplexity": value + 0.5}} if config.measure_test else None
            summary = {"best_validation_perplexity": value, "seconds": 10.0, "test": test}
            summary["frequency_perplexity"] = {"validation": 20.0}
            (config.run_dir / "summary.json").write_text(json.dumps(summary))
            record = {"trainable_parameters": PARAMETERS[config.label]}
            (config.run_dir / "metrics.jsonl").write_text(json.dumps(record) + "\n")
            (config.run_dir / "config.json").write_text("{}")

    monkeypatch.setattr(search_module, "make_waiting", make)
    plan = RunPlan(folder, tuple(range(settings.pop("seeds", 10))), RATES, (1000,), settings.pop("jobs", 1))
    parts = {"within": 1.0, "seconds": 10_000.0} | settings
    base = RunConfig(env=EnvConfig(n_layer=6))
    return Search(base, plan, stop=StopFile(folder / "stop"), on_step=lambda *told: None, **parts), made


def verdicts(search: Search) -> dict[str, str]:
    return {each.label: each.verdict.split(",")[0] for each in search.tried}


def test_the_first_that_is_within_is_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, made = make_search(tmp_path, monkeypatch)
    found = search.run([1, 2, 3, 4])
    assert found is not None
    assert (found.label, found.parameters, found.rate) == ("3 groups", 300, 2e-3)
    assert found.interval is not None and found.interval.high <= 1.0
    assert verdicts(search) == {
        "conventional": "",
        "1 group": "left when its rate was chosen",
        "2 groups": "worse",
        "3 groups": "within",
    }
    assert not any("1 group" in str(path) and "runs" in path.parts for path in made)  # clearly worse: no seeds for it
    values = found.validation
    assert best_run(search, found).name == f"seed{min(values, key=lambda seed: values[seed])}"
    # Called again it comes to the same, with no further run.
    again, more = make_search(tmp_path, monkeypatch)
    assert again.run([1, 2, 3, 4]) == found
    assert more == []


def test_more_seeds_are_spent_where_few_do_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = make_search(tmp_path, monkeypatch, WORLD | {"2 groups": 10.085})
    found = search.run([2])
    last = search.tried[-1]
    assert len(last.validation) > 3 and len(search.tried[0].validation) >= len(last.validation)
    assert (found is None) == (last.verdict != "within")
    few, _ = make_search(tmp_path / "few", monkeypatch, WORLD | {"2 groups": 10.085}, seeds=3)
    assert few.run([2]) is None
    assert few.tried[-1].verdict == "not shown"


def test_the_budget_ends_the_search_and_more_of_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"a budget of 1 minutes is too small: a run takes 10\.0 s"):
        make_search(tmp_path / "none", monkeypatch, seconds=60)[0].run([1])
    search, made = make_search(tmp_path / "some", monkeypatch, seconds=130)
    assert search.run([1, 2, 3]) is None
    assert 10 * len(made) <= 130
    assert list(verdicts(search)) == ["conventional", "1 group", "2 groups"]
    longer, more = make_search(tmp_path / "some", monkeypatch)
    found = longer.run([1, 2, 3])
    assert found is not None and found.label == "3 groups"
    assert not set(more) & set(made)
    side_by_side, many = make_search(tmp_path / "two", monkeypatch, seconds=130, jobs=2)
    assert side_by_side.run([1, 2, 3]) is not None
    assert 130 < 10 * len(many) <= 260


def test_a_search_that_was_stopped_comes_to_the_same_within_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = make_search(tmp_path / "whole", monkeypatch, seconds=190)
    expected = whole.run([1, 2, 3])
    part, _ = make_search(tmp_path / "part", monkeypatch, seconds=190)
    part.run([1])
    again, more = make_search(tmp_path / "part", monkeypatch, seconds=190)
    assert again.run([1, 2, 3]) == expected
    assert verdicts(again) == verdicts(whole)
    # And once more, when all runs of it are there, which took the whole budget.
    last, none = make_search(tmp_path / "part", monkeypatch, seconds=190)
    assert last.run([1, 2, 3]) == expected
    assert more and not none


def test_what_is_as_bad_as_the_margin_is_seldom_called_within_it() -> None:
    differences, within = np.random.default_rng(0).standard_normal((20_000, 10)), np.zeros(20_000, dtype=bool)
    undecided = ~within
    for seeds in range(LEAST_SEEDS, 11):
        looked = differences[:, :seeds]
        half, mean = mean_half_width(looked), looked.mean(axis=1)
        within |= undecided & (mean + half <= 0)
        undecided &= (mean + half > 0) & (mean - half <= 0)
    assert within.mean() == pytest.approx(0.030, abs=0.003)
    assert (mean + half <= 0).mean() == pytest.approx(0.0075, abs=0.002)  # a single look, at ten


def test_an_arm_without_seeds_has_no_difference() -> None:
    assert Tried("1 group", 10, 1e-3, {}, {}).mean == float("inf")


SMALL = "--n-layer 2 --n-embd 8 --n-head 2 --seq-len 8 --batch-size 2 --total-steps 8 --k 2 --validate-every 4"


def test_the_command_leaves_a_folder_for_from_pretrained(
    tmp_path: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL.split(), "--validation-windows", "4", "--test-windows", "4", "--dataset", str(text_folder)]
    words += ["--learning-rates", "1e-3", "--seeds", "3", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert start("smallest", [*words, "--within", "50"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 group *" in out and "within" in out and "from_pretrained:" in out
    assert "Conventional training has learned nothing here" in out
    (folder,) = (tmp_path / "out").glob("network-1-group-seed*")
    assert transformers.GPT2LMHeadModel.from_pretrained(folder).config.n_layer == 2
    assert start("report", [str(tmp_path / "out"), "--reference", "conventional", "--out", str(tmp_path / "r.md")]) == 0
    capsys.readouterr()
    assert start("smallest", [*words, "--within", "0", "--groups", "1"]) == 0
    assert "shown to be within 0 %" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--within", "-1"], "within must be a number of per cent from 0 to 100, got -1.0"),
        (["--minutes", "0"], "minutes must be above 0, got 0.0"),
        (["--seeds", "2"], "seeds must be at least 3"),
        (["--learning-rates"], "learning_rates must be at least one"),
        (["--groups", "12"], "groups must be from 1 to 11, fewer than the 12 layers, got 12"),
        (["--validate-every", "0"], "networks are chosen by validation"),
        (["--dataset", "nowhere"], "unknown data set 'nowhere'"),
    ],
)
def test_wrong_options_are_named(words: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    try:
        code = start("smallest", [*words, "--out", str(tmp_path / "out")])
    except SystemExit as end:
        code = int(str(end.code))
    captured = capsys.readouterr()
    assert code != 0
    assert message in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_the_table_marks_the_pareto_front() -> None:
    from tying_agents.commands.smallest import _table

    tried = [
        Tried("conventional", 1000, 1e-3, {0: 10.0}, {}),
        Tried("1 group", 100, 1e-3, {0: 12.0}, {}),
        Tried("2 groups", 200, 1e-3, {0: 12.5}, {}),
    ]
    table = _table(SimpleNamespace(tried=tried))  # type: ignore[arg-type]
    assert list(table.columns[0].cells) == ["1 group *", "2 groups", "conventional *"]
