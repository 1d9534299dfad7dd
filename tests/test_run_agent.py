"""The command line, from outside: what it leaves behind, what it prints, how it refuses and stops."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.baselines import PATTERNS
from agents.factorized_dqn import DQNConfig
from agents.recorder import LOGS
from agents.run_config import RunConfig, agent_names
from agents.runner import run
from tying_env import EnvConfig
from tying_env.reports.summary import summary_rows
from tying_env.runs import Checkpoints, RunDirectory

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_agent.py"


# Those that need no file of their own.
RUNNABLE = [name for name in agent_names() if name not in ("pattern", "replay")]


class Silent:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        assert tokens_per_second > 0
        self.records.append(record)

    def note(self, text: str) -> None: ...


def options(text_folder: Path, run_dir: Path, *more: str) -> list[str]:
    small = "--tokenizer bytes --n-layer 4 --n-embd 16 --n-head 2 --seq-len 16 --batch-size 4 --k 2 --total-steps 12"
    return [*small.split(), "--validate-every", "4", "--dataset", str(text_folder), "--run-dir", str(run_dir), *more]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_a_run_leaves_and_prints_all_it_promises(text_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    done = command("--agent", "dqn", *options(text_folder, path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for promised in (
        "step 12/12",
        "tok/s",
        "loss",
        "ppl",
        "indep",
        "eps",
        "best validation perplexity",
        "test perplexity, best network",
        "bits/byte",
        "independent layers, mean",
        "independent layers, end",
        "trainable parameters, mean",
        "trainable parameters, end",
        "tied / untied events",
        "speed, measuring included",
        "weights, gradients, optimizer",
        "Replication map",
        " 0 ●",
        f"run directory: {path}",
        f"tensorboard --logdir {path.parent}",
    ):
        assert promised in done.stdout, promised
    names = {p.name.split(".")[0] for p in path.iterdir()}
    assert names == {
        "config",
        "metrics",
        "trace",
        "summary",
        "best",
        "final",
        "replication_map",
        "events",
        "checkpoints",
        "lock",
    }
    config = json.loads((path / "config.json").read_text())
    assert config["agent"] == "dqn"
    assert config["env"]["n_layer"] == 4
    assert config["dqn"]["gamma"] == 0.99
    assert {"python", "torch", "transformers"} <= set(config["versions"])
    assert "git_commit" in config
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [record["decision"] for record in metrics] == [1, 2, 3, 4, 5]
    assert metrics[-1]["train_step"] == 12
    assert (path / "replication_map.png").read_bytes().startswith(b"\x89PNG")
    with safe_open(path / "final.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tying_env"])["tying"] == metrics[-1]["tying"]
    events = EventAccumulator(str(path), {"images": 0, "scalars": 0}).Reload()
    assert [e.step for e in events.Scalars("validation/perplexity")] == [4, 8, 12]
    assert events.Scalars("tying/independent_layers_by_chance")[0].value == pytest.approx(25 / 12)
    assert len(events.Images("replication_map")) == 5


@pytest.mark.parametrize("agent", RUNNABLE)
def test_equal_seeds_give_equal_runs_for_each_agent(text_folder: Path, tmp_path: Path, tiny: Any, agent: Any) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = RunConfig(agent=agent, seed=seed, run_dir=tmp_path / name, env=EnvConfig(**tiny), test_windows=4)
        directory, status = run(config, Silent())
        assert status == "finished"
        files.append([(directory.path / f).read_bytes() for f in ("metrics.jsonl", "final.safetensors")])
    assert files[0] == files[1] != files[2]
    tyings = [record["tying"] for record in RunDirectory.open(tmp_path / "a").read_metrics()]
    if agent in (*PATTERNS, "random-static", "periodic", "sandwich"):
        assert all(tying == tyings[0] for tying in tyings)


def test_conventional_training_is_all_layers_from_the_first_step(tmp_path: Path, tiny: Any) -> None:
    observer = Silent()
    run(RunConfig("conventional", run_dir=tmp_path / "run", env=EnvConfig(**tiny), test_windows=4), observer)
    assert all(record["independent_layers"] == 4 for record in observer.records)
    assert all(record["tied_events"] == record["untied_events"] == 0 for record in observer.records)
    summary = RunDirectory.open(tmp_path / "run").read_json("summary.json")
    assert observer.records[0]["trainable_parameters"] == summary["parameters_conventional"]


def test_the_best_network_is_the_one_with_the_best_validation_perplexity(tmp_path: Path, tiny: Any) -> None:
    settings = tiny | {"total_steps": 60, "learning_rate": 0.3}  # so large that it gets worse again
    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**settings), test_windows=16)
    directory, _ = run(config, Silent())
    measured = [(r["validation_perplexity"], r) for r in directory.read_metrics() if r["validation_perplexity"]]
    best, record = min(measured, key=lambda pair: pair[0])
    summary = directory.read_json("summary.json")
    assert summary["best_validation_perplexity"] == best
    with safe_open(directory.path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tying_env"])["tying"] == record["tying"]
    assert summary["test"]["best"] != summary["test"]["final"]


def test_a_diverged_run_says_so(tmp_path: Path, tiny: Any) -> None:
    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny | {"learning_rate": 1e30}))
    directory, status = run(config, Silent())
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "dqm"], "dqm"),
        (["--n-head", "3"], "n_head must divide n_embd, got n_head=3 and n_embd=16"),
        (["--k", "0"], "k must be at least 1, got 0"),
        (["--total-steps", "x"], "total-steps"),
        (["--dataset", "no-such-text"], "no-such-text"),
        (["--device", "cuda:9"], "device 'cuda:9' is not there"),
        (["--seed", "-1"], "seed must be a whole number of at least 0, got -1"),
        (["--n-layer", "1"], "n_layer must be at least 2"),
        (["--dtype", "int8"], "int8"),
        (["--preset", "huge"], "huge"),
    ],
)
def test_wrong_options_are_refused_with_nothing_written(
    text_folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = command(*options(text_folder, tmp_path / "run"), *arguments)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_directory_is_refused(text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("results")
    done = command(*options(text_folder, tmp_path))
    assert done.returncode == 1
    assert "exists already" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_help_shows_every_setting_with_its_default() -> None:
    done = command("--help")
    assert done.returncode == 0
    text = re.sub(r"[\s│]+", " ", done.stdout)
    assert f"--n-layer INT L, the number of transformer blocks. (default: {EnvConfig().n_layer})" in text
    for field in (*dataclasses.fields(EnvConfig), *dataclasses.fields(DQNConfig)):
        assert f"--{field.name.replace('_', '-')}" in text
    paper = re.sub(r"[\s│]+", " ", command("--preset", "paper", "--help").stdout)
    assert "--n-embd INT Width of the network; a multiple of n_head. (default: 1600)" in paper


def wait_for_decisions(path: Path, n: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if (path / "metrics.jsonl").exists() and len((path / "metrics.jsonl").read_text().splitlines()) >= n:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no decision within a minute")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_was_asked_to_stop_is_gone_on_with(
    text_folder: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path = tmp_path / "run"
    process = start(*options(text_folder, path, "--total-steps", "1000000"))
    wait_for_decisions(path, 3, process)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code, out + error
    assert "Traceback" not in out + error
    assert "finishing this training step" in out
    assert f"python scripts/run_agent.py --resume {path}" in out
    records = RunDirectory.open(path).read_metrics()
    summary = RunDirectory.open(path).read_json("summary.json")
    assert summary["status"] == ("interrupted" if number == signal.SIGINT else "terminated")
    assert summary["decisions"] == len(records)
    assert (path / "final.safetensors").exists()
    assert (path / "replication_map.png").exists()
    refused = command("--resume", str(path), "--seed", "5")
    assert refused.returncode == 1
    assert "seed is 0 there, 5 here" in refused.stdout
    process = start("--resume", str(path))
    wait_for_decisions(path, len(records) + 3, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, out + error
    assert "Going on from" in out
    decisions = [record["decision"] for record in RunDirectory.open(path).read_metrics()]
    assert decisions == list(range(1, len(decisions) + 1))
    assert len(decisions) >= len(records) + 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint_whole(
    text_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "run"
    # A step of seconds: the second signal comes while the first one waits for its end.
    big = ("--batch-size", "512", "--n-embd", "64", "--checkpoint-every", "1", "--validate-every", "0")
    process = start(*options(text_folder, path, "--total-steps", "1000000", *big))
    wait_for_decisions(path, 2, process)
    process.send_signal(number)
    assert process.stdout is not None
    while "finishing this training step" not in (line := process.stdout.readline()):
        assert line, "it has ended"
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert "Traceback" not in out + error
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM), out + error
    if number == signal.SIGINT:
        assert f"python scripts/run_agent.py --resume {path}" in out
    notes: list[str] = []
    newest = Checkpoints(RunDirectory.open(path), LOGS).newest(notes.append)
    assert newest is not None
    assert notes == []


def test_actions_in_the_record_lead_to_the_tyings_beside_them(text_folder: Path, tmp_path: Path, tiny: Any) -> None:
    from tying_env.partition import canonicalise, events

    observer = Silent()
    run(RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny), test_windows=4), observer)
    before = np.zeros(4, dtype=np.int64)
    for record in observer.records:
        assert record["tying"].tolist() == canonicalise(record["action"]).tolist()
        assert (record["tied_events"], record["untied_events"]) == events(before, record["tying"])
        before = record["tying"]


@pytest.mark.parametrize("given", [("--preset", "paper"), ("--semantics=paper",), ("--label", "x"), ("--run_dir", "x")])
def test_what_a_resumed_run_decides_itself_is_refused(text_folder: Path, tmp_path: Path, given: tuple[str]) -> None:
    path = tmp_path / "run"
    assert command(*options(text_folder, path)).returncode == 0
    done = command("--resume", str(path), *given)
    assert done.returncode == 1
    assert re.search(r"--(preset|semantics|label|run-dir) is decided by the run that --resume names", done.stdout)


def test_ctrl_c_while_the_test_split_is_measured_says_how_to_go_on(text_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = start(*options(text_folder, path, "--test-windows", "0", "--batch-size", "1"))
    assert process.stdout is not None
    while "Measuring on the test split" not in (line := process.stdout.readline()):
        assert line, "it has ended"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, out + error
    assert f"python scripts/run_agent.py --resume {path}" in out
    assert command("--resume", str(path)).returncode == 0
    again = command("--resume", str(path))
    assert again.returncode == 1
    assert "is finished: there is nothing to go on with" in again.stdout


def test_a_diverged_run_is_not_replayed(text_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert command(*options(text_folder, path, "--learning-rate", "1e30")).returncode == 3
    done = command("--resume", str(path))
    assert done.returncode == 3
    assert re.search(r"the run diverged at training step \d+; there is nothing to go on with", done.stdout)
    assert not (path / "resumes.jsonl").exists()


@pytest.mark.parametrize("script", ["run_agent", "compare", "evaluate", "report", "reproduce", "finetune", "generate"])
def test_ctrl_c_before_a_script_is_at_work_is_no_traceback(script: str, tmp_path: Path) -> None:
    # torch's import is announced, and then takes long.
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "tyro.py").write_text("import torch\n")
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT.with_name(f"{script}.py"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "Interrupted.\n"
    assert process.returncode == 130
