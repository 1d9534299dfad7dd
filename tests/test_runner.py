"""Runs made in this process: equal for equal seeds, with a true record, a true summary and the best network."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop
from tying_agents.registry import agent_names
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import default_folder, resume, run
from tying_agents.running.saved import OtherSettings

from tests.test_contest import OF_SUBLAYERS
from tying_env import EnvConfig
from tying_env.export import export_tied
from tying_env.reports.summary import summary_rows
from tying_env.runs import RunDirectory

# Those that need no file of their own.
RUNNABLE = [name for name in agent_names() if name not in ("pattern", "replay", *OF_SUBLAYERS)]


class Kept(Callback):
    """Keeps the records of a run."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def decision_made(self, loop: Loop, record: Record) -> None:
        assert loop.tokens_per_second > 0
        self.records.append(record)


STATIC = (
    "conventional",
    "albert",
    "cycle",
    "cycle-rev",
    "sequence",
    "contiguous",
    "prior",
    "random-static",
    "periodic",
)
STATIC += ("sandwich",)


@pytest.mark.parametrize("agent", RUNNABLE)
def test_equal_seeds_give_equal_runs_for_each_agent(text_folder: Path, tmp_path: Path, tiny: Any, agent: Any) -> None:
    pays = agent in ("tree-search", "hill-climbing", "annealing", "halving")  # most training steps are those of trials
    # One training step for each of seven decisions; what is looked at again and again is for other tests.
    tiny = tiny | {"n_layer": 4 if pays else 3, "k": 1, "validate_every": 3, "validation_windows": 4}
    tiny["dropout"] = 0.1 if agent in ("conventional", "dqn") else 0.0
    tiny["total_steps"] = (23 if agent == "halving" else 17) if pays else 7
    # Of an agent that always gives the same tying, a seed reaches the network alone: the same way for all of them.
    alone = agent in STATIC and agent not in ("conventional", "random-static", "periodic")
    files = []
    for name, seed in (("a", 1), ("b", 1)) if alone else (("a", 1), ("b", 1), ("c", 2)):
        config = RunConfig(agent=agent, seed=seed, run_dir=tmp_path / name, env=EnvConfig(**tiny), test_windows=4)
        directory, status = run(config)
        assert status == "finished"
        files.append([(directory.path / f).read_bytes() for f in ("metrics.jsonl", "final.safetensors")])
    assert files[0] == files[1]
    assert alone or files[2] != files[1]
    tyings = [record["tying"] for record in RunDirectory.open(tmp_path / "a").read_metrics()]
    if agent in STATIC:
        assert all(tying == tyings[0] for tying in tyings)
    spent = RunDirectory.open(tmp_path / "a").read_json("summary.json")
    assert spent["train_step"] + spent["trial_steps"] == tiny["total_steps"]
    assert (spent["trial_steps"] > 4 / 9 * tiny["total_steps"]) == pays or agent == "probe-then-tie"


def test_conventional_training_is_all_layers_from_the_first_step(tmp_path: Path, tiny: Any) -> None:
    kept = Kept()
    run(RunConfig("conventional", run_dir=tmp_path / "run", env=EnvConfig(**tiny), test_windows=4), [kept])
    assert all(record["independent_layers"] == 4 for record in kept.records)
    assert all(record["tied_events"] == record["untied_events"] == 0 for record in kept.records)
    summary = RunDirectory.open(tmp_path / "run").read_json("summary.json")
    assert kept.records[0]["trainable_parameters"] == summary["parameters_conventional"]
    tokens = RunDirectory.open(tmp_path / "run").read_json("config.json")["data"]["train"]
    # An epoch is every whole window of the training split once; the last input needs a token after it as its target.
    expected = (tokens - 1) // tiny["seq_len"] * tiny["seq_len"] / summary["tokens_per_second"]
    assert summary["seconds_per_epoch"] == pytest.approx(expected, rel=1e-9)
    assert ("  once through the training data", f"{summary['seconds_per_epoch']:,.2f} s") in summary_rows(
        RunDirectory.open(tmp_path / "run")
    )


def test_the_best_network_is_the_one_with_the_best_validation_perplexity(tmp_path: Path, tiny: Any) -> None:
    settings = tiny | {"total_steps": 60, "learning_rate": 0.3}  # so large that it gets worse again
    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**settings), test_windows=16)
    directory, _ = run(config)
    measured = [(r["validation_perplexity"], r) for r in directory.read_metrics() if r["validation_perplexity"]]
    best, record = min(measured, key=lambda pair: pair[0])
    summary = directory.read_json("summary.json")
    assert summary["best_validation_perplexity"] == best
    with safe_open(directory.path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tying_env"])["tying"] == record["tying"]
    assert summary["test"]["best"] != summary["test"]["final"]


def test_a_diverged_run_says_so(tmp_path: Path, tiny: Any) -> None:
    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny | {"learning_rate": 1e30}))
    directory, status = run(config)
    assert status == "diverged"
    assert directory.read_metrics()[-1]["diverged"] is True
    rows = dict(summary_rows(directory))
    assert rows["run"] == "random, seed 0, diverged"
    assert "did not finish" in rows["test perplexity"]


def test_the_summary_by_hand(tmp_path: Path) -> None:
    about = {"agent": "dqn", "seed": 3, "env": {"n_layer": 4, "dtype": "float32"}}
    directory = RunDirectory.create(tmp_path / "run", about)
    for layers, parameters in ((1, 1_000_000), (4, 4_000_000)):
        sizes = {"weights_bytes": 4e6, "gradients_bytes": 4e6, "optimizer_state_bytes": layers * 2e6}
        events = {"tied_events": 2, "untied_events": layers}
        record = {"independent_layers": layers, "trainable_parameters": parameters} | sizes | events
        directory.append_json("metrics.jsonl", record)
    result = {"mean_loss": 1.0, "perplexity": 20.5, "bits_per_byte": 1.25, "tokens": 4000}
    summary = {"status": "finished", "decisions": 2, "train_step": 10, "best_validation_perplexity": 21.0}
    speed = {"seconds": 100.0, "tokens_per_second": 1234.5, "peak_process_bytes": 5e8}
    test = {"test": {"best": result, "final": None}, "parameters_conventional": 4_000_000}
    directory.write_json("summary.json", summary | speed | test)
    rows = dict(summary_rows(directory))
    assert rows["independent layers, mean"] == "2.50 of 4  (by chance alone: 2.08)"
    assert rows["independent layers, end"] == "4 of 4"
    assert rows["trainable parameters, mean"] == "2.50 M (62% of conventional)"
    assert rows["tied / untied events"] == "4 / 5"
    assert rows["test perplexity, best network"] == "20.50  (1.250 bits/byte, 4,000 tokens)"
    assert rows["weights, gradients, optimizer"] == "mean 13.0 MB, peak 16.0 MB"
    assert rows["speed, measuring included"] == "1,234 tokens/s over 100 s"


def test_actions_in_the_record_lead_to_the_tyings_beside_them(text_folder: Path, tmp_path: Path, tiny: Any) -> None:
    from tying_env.partition import canonicalise, events

    kept = Kept()
    run(RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny), test_windows=4), [kept])
    before = np.zeros(4, dtype=np.int64)
    for record in kept.records:
        assert record["tying"].tolist() == canonicalise(record["action"]).tolist()
        assert (record["tied_events"], record["untied_events"]) == events(before, record["tying"])
        before = record["tying"]


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noon = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 12, 0, 0))
    monkeypatch.setattr("tying_agents.running.runner.datetime", noon)
    found = []
    for _ in range(3):
        found.append(default_folder(RunConfig("random", seed=4)))
        found[-1].mkdir(parents=True)
    assert [folder.name.removeprefix("20260102-120000-random-seed4") for folder in found] == ["", "-2", "-3"]


def test_a_run_that_is_to_be_longer_is_refused_with_the_way_that_works(tmp_path: Path, tiny: dict[str, Any]) -> None:
    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny), test_windows=4)
    run(config)
    longer = dataclasses.replace(config, env=EnvConfig(**tiny | {"total_steps": 40}))
    with pytest.raises(OtherSettings, match=r"total_steps is 20 there, 40 here: the cosine .*--init-from FOLDER"):
        resume(tmp_path / "run", asked=longer)
    folder = export_tied(tmp_path / "run", tmp_path / "dense", network="final", dense=True)
    env = EnvConfig(**tiny | {"init_from": str(folder)})
    _, status = run(RunConfig("random", run_dir=tmp_path / "more", env=env, test_windows=4))
    assert status == "finished"


def test_a_run_stopped_before_its_first_validation_says_that_nothing_was_measured(
    tmp_path: Path, tiny: dict[str, Any]
) -> None:
    class StopAtOnce(Callback):
        def decision_made(self, loop: Any, record: Any) -> None:
            loop.stop("enough")

    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny | {"validate_every": 10}))
    directory, status = run(config, [StopAtOnce()])
    rows = dict(summary_rows(directory))
    assert status == "stopped" and rows["best validation perplexity"] == "not measured"
    assert rows["test perplexity"] == "not measured: the run did not finish"
