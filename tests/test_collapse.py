"""When a network counts as collapsed to token frequencies, and where that is said."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.callbacks import Callback
from tying_agents.commands.early import note_on_the_papers_recipe
from tying_agents.run_config import RunConfig
from tying_agents.running import collapse
from tying_agents.running.runner import resume, run

from tests.run_folders import change, make_records, make_run
from tying_env import PAPER, EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.collapse import Validation, collapsed_at, validations
from tying_env.primary.frequencies import frequency_accuracy
from tying_env.reports.comparison import load_comparison
from tying_env.reports.gallery import comparison_pictures
from tying_env.reports.html import make_report, render_page, runs_table
from tying_env.reports.learned import learning
from tying_env.reports.loading import load_run
from tying_env.reports.metrics import METRICS_BY_KEY
from tying_env.reports.results import results_table
from tying_env.reports.summary import summary_rows
from tying_env.runs import RunDirectory


def measured(*points: tuple[int, float, float]) -> list[Validation]:
    return [Validation(*point) for point in points]


def test_a_network_is_collapsed_that_stays_at_the_frequencies_and_not_one_that_is_only_there_yet() -> None:
    early = measured((10, 80.0, 1e-6), (20, 21.5, 1e-6), (50, 20.9, 1e-6))
    assert collapsed_at(early, 20.0) is None  # every network says the same everywhere while it learns frequencies
    assert collapsed_at([*early, *measured((60, 20.5, 1e-6), (70, 20.4, 1e-6))], 20.0) == 60
    assert collapsed_at([*early, *measured((60, 20.5, 0.02))], 20.0) is None  # the output depends on the input
    assert collapsed_at([*early, *measured((60, 19.0, 1e-6))], 20.0) is None  # it has learned more
    assert collapsed_at([*early, *measured((60, 20.5, 1e-6), (70, 18.0, 0.03))], 20.0) is None  # it has come out
    assert collapsed_at(measured((10, 12.0, 0.2), (40, 21.0, 1e-6)), 20.0) == 40  # it had learned, and fell back
    assert collapsed_at(measured((10, 80.0, 1e-6), (900, 60.0, 1e-6)), 20.0) is None  # no frequencies either
    assert collapsed_at([*early, *measured((60, 20.5, 1e-6))], None) is None


def test_a_network_that_never_comes_near_the_frequencies_is_collapsed_when_it_becomes_no_better() -> None:
    stuck = measured((50, 1_400.0, 1e-7), (100, 1_000.0, 1e-7), (299, 985.0, 1e-7), (300, 981.0, 1e-7))
    assert collapsed_at(stuck, 806.0) == 300  # 1.22 times the frequencies', and 2 % better since step 100
    assert collapsed_at(stuck[:3], 806.0) is None
    assert collapsed_at([*stuck[:3], *measured((300, 979.0, 1e-7))], 806.0) is None
    assert collapsed_at([*stuck[:3], *measured((300, 981.0, 0.02))], 806.0) is None
    assert collapsed_at([*stuck, *measured((900, 970.0, 1e-7))], 806.0) == 300
    assert collapsed_at([*stuck, *measured((900, 900.0, 1e-7))], 806.0) is None  # 8 % better: it may come near them yet
    assert collapsed_at([*stuck, *measured((900, 700.0, 1e-7))], 806.0) is None
    assert collapsed_at(measured((0, 256.0, 1e-6), (25, 31.0, 2e-3), (50, 18.0, 0.01)), 20.85) is None


def test_records_repeat_a_measurement_and_those_of_earlier_versions_have_none() -> None:
    one = {"validation_perplexity": 20.0, "input_dependence": 0.5}
    records: list[dict[str, Any]] = [
        {"train_step": 1, "validation_perplexity": None, "input_dependence": None},
        {"train_step": 2, **one},
        {"train_step": 3, **one},
        {"train_step": 4, "validation_perplexity": 19.0},
        {"train_step": 5, "validation_perplexity": 18.0, "input_dependence": 0.25},
    ]
    assert validations(records) == measured((2, 20.0, 0.5), (5, 18.0, 0.25))


# Conventional training, but for five steps in which layer 0 alone trains.
SMALL: dict[str, Any] = {
    **{"tokenizer": "bytes", "n_layer": 8, "n_embd": 64, "n_head": 2, "seq_len": 32, "batch_size": 4, "k": 5},
    **{"learning_rate": 1e-3, "dropout": 0.0, "freeze_at_start": True, "device": "cpu"},
    **{"total_steps": 200, "validate_every": 10, "validation_windows": 16},
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("tyings", "learned"), [("independent", 0.75), ("random", 0.85)])
def test_the_recipe_of_before_collapses_and_is_named_and_the_default_one_learns(
    tyings: str, learned: float, before: bool
) -> None:
    # What collapses may come out by itself near step 200, as it does with seed 0 on some processors.
    env = LayerTyingEnv(**SMALL | ({"schedule": "constant", "warmup_steps": 0, "total_steps": 160} if before else {}))
    env.reset(seed=1 if before else 0)
    rng = np.random.default_rng(0)
    records, truncated = [], False
    while not truncated:
        action = np.arange(8) if tyings == "independent" else rng.integers(np.arange(8) + 1)
        *_, truncated, info = env.step(action)
        records.append(info)
    frequencies = env.workload.frequency_perplexity("validation", 16)
    assert frequencies is not None
    found = collapsed_at(validations(records), frequencies)
    if before:
        assert found is not None
        assert info["validation_perplexity"] > 0.98 * frequencies  # 20.5 of 20.3, both
        assert info["input_dependence"] < 1e-3  # 3e-6 and 9e-8
    else:
        assert found is None
        assert info["validation_perplexity"] < learned * frequencies  # 0.67 and 0.77
        assert info["input_dependence"] > 0.01


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def collapsing(monkeypatch: pytest.MonkeyPatch, folder: Path, text_folder: Path, tiny: dict[str, Any]) -> RunConfig:
    """Return settings of a run whose network counts as collapsed from training step 8 on."""
    monkeypatch.setattr("tying_env.primary.collapse.HARDLY", 1.1)
    monkeypatch.setattr("tying_env.primary.collapse.BEYOND", 0.0)
    monkeypatch.setattr("tying_env.primary.collapse.NEAR", 1e9)
    monkeypatch.setattr("tying_env.primary.collapse.PATIENCE", 2)
    env = EnvConfig(**tiny | {"dataset": str(text_folder), "warmup_steps": 0, "schedule": "constant"})
    return RunConfig("random", run_dir=folder, env=env, test_windows=2, checkpoint_every=1)


def test_a_run_says_once_that_its_network_has_collapsed_also_when_it_is_resumed(
    monkeypatch: pytest.MonkeyPatch, text_folder: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    config, told = collapsing(monkeypatch, tmp_path / "run", text_folder, tiny), Notes()

    class StopAt12(Callback):
        def decision_made(self, loop: Any, record: Any) -> None:
            if record["train_step"] >= 12:
                loop.stop("enough")

    directory, status = run(config, [told, StopAt12()])
    assert status == "stopped"
    summary = directory.read_json("summary.json")
    assert summary["collapsed_at"] == 8
    resume(directory.path, [told])
    assert sum("has collapsed" in note for note in told.notes) == 1
    (note,) = (note for note in told.notes if "has collapsed" in note)
    assert "--warmup-steps 20" in note
    assert "docs/recipe.md" in note
    summary, rows = directory.read_json("summary.json"), dict(summary_rows(RunDirectory.open(directory.path)))
    assert rows["run"] == "random, seed 0, finished, collapsed"
    assert rows["input dependence, end"].endswith("collapsed at step 8")
    last = directory.read_metrics()[-1]
    assert summary["input_dependence"] == last["input_dependence"]
    assert 0 <= summary["input_dependence"] <= 1


def test_the_warm_up_of_a_run_that_names_none_is_a_share_of_its_length(
    monkeypatch: pytest.MonkeyPatch, text_folder: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    config, told = collapsing(monkeypatch, tmp_path / "run", text_folder, tiny), Notes()
    config = replace(config, env=replace(config.env, warmup_steps=None))
    assert config.env.warmup_length == 2
    run(config, [told])
    (note,) = (note for note in told.notes if "has collapsed" in note)
    assert "a longer warm-up than 2 steps" in note


def test_a_longer_warm_up_is_advised_where_there_is_one() -> None:
    text = collapse.warning(Validation(90, 20.5, 4e-6), 20.3, warmup_length=10)
    assert "a longer warm-up than 10 steps (--warmup-steps) or a lower --learning-rate helps" in text
    assert "(4e-06 of the logits' mean square varies with position)" in text


def learned_nothing(path: Path, label: str, collapsed: bool) -> Path:
    """Write a run that measured what frequencies come to."""
    records = make_records(10, 4, 0)
    for record, share in zip(records, np.geomspace(0.5, 1e-6, 10), strict=True):
        record["input_dependence"] = float(share)
    make_run(path, label, records=records)
    known = {"validation": 20.5, "test": 20.25}
    change(path, "summary.json", frequency_perplexity=known, collapsed_at=9 if collapsed else None)
    return path


def test_a_report_has_the_line_of_frequencies_and_names_a_collapse(tmp_path: Path) -> None:
    for label in ("dqn", "random"):
        learned_nothing(tmp_path / label, label, collapsed=label == "random")
    found = load_comparison([tmp_path])
    nats = math.log(20.25) / 2.0  # of what the network needed
    assert results_table(found).rows[-1] == ("frequencies alone", "–", "20.25", f"{2.0 * nats:.3f}", *["–"] * 4)
    assert any(note.startswith("random collapsed in 1 of 1 runs (seeds 0)") for note in found.notes)
    assert not any(note.startswith("dqn collapsed") for note in found.notes)
    runs = [run for summary in found.arms for run in summary.arm.runs]
    assert [row[2] for row in runs_table(runs, found.metric).rows] == ["finished", "finished, collapsed"]
    pictures = {picture.name: picture.figure for picture in comparison_pictures(found)}
    for name, value in (("learning-curves", "20.50"), ("pareto", "20.25")):
        figure = pictures[name]
        assert figure is not None
        assert f"frequencies alone ({value})" in [text.get_text() for text in figure.legends[0].get_texts()]
    page = render_page(make_report(found))
    assert "finished, collapsed" in page
    figure = learning(runs[1])
    above, below = figure.axes
    assert above.get_title() == "Has the network learned? It has collapsed."
    assert [list(line.get_ydata()) for line in above.lines[1:]] == [[20.5, 20.5]]
    assert below.lines[0].get_ydata()[-1] == pytest.approx(1e-6)  # type: ignore[index]


@pytest.mark.parametrize(("perplexity", "told"), [(20.25, True), (30.0, True), (20.0, False)])
def test_a_report_says_which_networks_have_not_learned_yet(tmp_path: Path, perplexity: float, told: bool) -> None:
    path = learned_nothing(tmp_path / "dqn", "dqn", collapsed=False)
    test = json.loads((path / "summary.json").read_text())["test"]
    change(path, "summary.json", test=test | {"best": test["best"] | {"perplexity": perplexity}})
    notes = load_comparison([tmp_path]).notes
    assert told == any(n.startswith("dqn is no better than frequencies alone in 1 of 1 runs (seeds 0)") for n in notes)


def test_runs_that_do_not_know_frequencies_are_reported_without_them(tmp_path: Path) -> None:
    run_before = load_run(make_run(tmp_path / "before"))
    assert [run_before.frequencies(metric) for metric in METRICS_BY_KEY.values()] == [None] * len(METRICS_BY_KEY)
    assert not run_before.collapsed
    with pytest.raises(ValueError, match="input dependence was not measured"):
        learning(run_before)


def test_frequencies_are_known_in_every_metric(tmp_path: Path) -> None:
    path = learned_nothing(tmp_path / "run", "random", collapsed=False)
    change(path, "summary.json", frequency_accuracy={"validation": 0.1, "test": 0.125})
    found = {key: load_run(path).frequencies(metric) for key, metric in METRICS_BY_KEY.items()}
    assert found == {
        "test-perplexity": 20.25,
        "final-test-perplexity": 20.25,
        "bits-per-byte": pytest.approx(math.log(20.25)),  # of a text with as many nats as bits a byte
        "test-accuracy": 0.125,
        "test-cross-entropy": pytest.approx(math.log(20.25)),
        "validation-perplexity": 20.5,
        "first-perplexity": None,  # of training text, where frequencies are not measured
    }


def test_the_most_frequent_class_is_that_of_the_training_split() -> None:
    assert frequency_accuracy(np.array([2, 2, 1, 0]), np.array([2, 1, 1, 2, 0])) == pytest.approx(2 / 5)


def test_the_papers_recipe_is_remarked_on_unless_another_is_chosen() -> None:
    paper = PAPER | {"schedule": "constant", "warmup_steps": 0}
    text = note_on_the_papers_recipe("paper", EnvConfig(**paper))
    assert text is not None
    assert "--warmup-steps" in text
    assert "--schedule cosine" in text
    assert note_on_the_papers_recipe("small", EnvConfig(**paper)) is None
    for other in ({"warmup_steps": 9}, {"schedule": "cosine"}, {"freeze_at_start": False}):
        assert note_on_the_papers_recipe("paper", EnvConfig(**paper | other)) is None
