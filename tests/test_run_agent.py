"""The command line, from outside: what it leaves behind, what it prints, how it refuses and stops."""

import dataclasses
import itertools
import json
import operator
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tying_agents.running import results
from tying_agents.running.recorder import LOGS
from tying_agents.settings import DQNConfig

from tests.command_line import called
from tests.started import Started, script
from tying_env import EnvConfig
from tying_env.render import replication_map_figure
from tying_env.runs import Checkpoints, RunDirectory

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_agent.py"


def options(text_folder: Path, run_dir: Path, *more: str) -> list[str]:
    small = "--tokenizer bytes --n-layer 4 --n-embd 16 --n-head 2 --seq-len 16 --batch-size 4 --k 2 --total-steps 12"
    return [*small.split(), "--validate-every", "4", "--dataset", str(text_folder), "--run-dir", str(run_dir), *more]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return called("run", *arguments, prog="scripts/run_agent.py")


def test_a_run_leaves_and_prints_all_it_promises(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "replication_map_figure", replication_map_figure)  # the one of all tests that draws it
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
    assert config["controller"]["gamma"] == 0.99
    assert {"python", "torch", "transformers"} <= set(config["versions"])
    assert "git_commit" in config
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [record["decision"] for record in metrics] == [1, 2, 3, 4, 5]
    assert metrics[-1]["train_step"] == 12
    assert (path / "replication_map.png").read_bytes().startswith(b"\x89PNG")
    assert (path / "replication_map.png").stat().st_size > 5_000
    with safe_open(path / "final.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tying_env"])["tying"] == metrics[-1]["tying"]
    events = EventAccumulator(str(path), {"images": 0, "scalars": 0}).Reload()
    assert [e.step for e in events.Scalars("validation/perplexity")] == [4, 8, 12]
    assert events.Scalars("tying/independent_layers_by_chance")[0].value == pytest.approx(25 / 12)
    changed = [
        record
        for before, record in zip([{}, *metrics], metrics, strict=False)
        if before.get("tying") != record["tying"]
    ]
    assert [e.step for e in events.Images("replication_map")] == [record["train_step"] for record in changed]
    for tag in ("train/learning_rate", "train/gradient_norm", "controller/reward"):
        shown = [(e.step, e.value) for e in events.Scalars(tag)]
        name = tag.partition("/")[2]
        assert shown == [(record["train_step"], pytest.approx(record[name], rel=1e-6)) for record in metrics], tag


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
        (["--n-layer", "1"], "needs at least 2 layers"),
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


def wait_for_decisions(path: Path, n: int, process: Started) -> None:
    for _ in range(600):
        if (path / "metrics.jsonl").exists() and len((path / "metrics.jsonl").read_text().splitlines()) >= n:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no decision within a minute")


def start(*arguments: str) -> Started:
    return script("run_agent.py", *arguments)


# A training step of a minute, from the second decision on: the second signal comes while the first waits for its end.
LONG_STEP = """
import time
from tying_agents import Callback

class LongStep(Callback):
    def training_step(self, loop):
        time.sleep(60 if loop.decisions >= 2 else 0)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_was_asked_to_stop_is_resumed(
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
    assert f"python {SCRIPT} --resume {path}" in out
    records = RunDirectory.open(path).read_metrics()
    summary = RunDirectory.open(path).read_json("summary.json")
    assert summary["status"] == ("interrupted" if number == signal.SIGINT else "terminated")
    assert summary["decisions"] == len(records)
    assert (path / "final.safetensors").exists()
    assert (path / "replication_map.png").exists()
    refused = command("--resume", str(path), "--seed", "5")
    assert refused.returncode == 1
    assert "seed is 0 there, 5 here" in refused.stdout
    if number == signal.SIGTERM:
        return  # it is resumed in the same way
    process = start("--resume", str(path))
    wait_for_decisions(path, len(records) + 3, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, out + error
    assert "Resuming from" in out
    decisions = [record["decision"] for record in RunDirectory.open(path).read_metrics()]
    assert decisions == list(range(1, len(decisions) + 1))
    assert len(decisions) >= len(records) + 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint_whole(
    text_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "run"
    (tmp_path / "long.py").write_text(LONG_STEP)
    slow = ("--callbacks", f"{tmp_path}/long.py:LongStep", "--checkpoint-every", "1")
    process = start(*options(text_folder, path, "--total-steps", "1000000", *slow))
    wait_for_decisions(path, 2, process)
    process.send_signal(number)
    while "finishing this training step" not in (line := process.stdout.readline()):
        assert line, "it has ended"
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert "Traceback" not in out + error
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM), out + error
    if number == signal.SIGINT:
        assert f"python {SCRIPT} --resume {path}" in out
    notes: list[str] = []
    newest = Checkpoints(RunDirectory.open(path), LOGS).newest(notes.append)
    assert newest is not None
    assert notes == []


@pytest.mark.parametrize("given", [("--preset", "paper"), ("--semantics=paper",), ("--label", "x"), ("--run_dir", "x")])
def test_what_a_resumed_run_decides_itself_is_refused(text_folder: Path, tmp_path: Path, given: tuple[str]) -> None:
    path = tmp_path / "run"
    assert command(*options(text_folder, path)).returncode == 0
    done = command("--resume", str(path), *given)
    assert done.returncode == 1
    assert re.search(r"--(preset|semantics|label|run-dir) is decided by the run that --resume names", done.stdout)


def test_ctrl_c_while_the_test_split_is_measured_says_how_to_continue(text_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = start(*options(text_folder, path, "--test-windows", "250", "--batch-size", "1"))
    while "Measuring on the test split" not in (line := process.stdout.readline()):
        assert line, "it has ended"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, out + error
    assert f"python {SCRIPT} --resume {path}" in out
    assert command("--resume", str(path)).returncode == 0
    again = command("--resume", str(path))
    assert again.returncode == 1
    assert "is finished: there is nothing to resume" in again.stdout


def test_a_diverged_run_is_not_replayed(text_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert command(*options(text_folder, path, "--learning-rate", "1e30")).returncode == 3
    done = command("--resume", str(path))
    assert done.returncode == 3
    assert re.search(r"the run diverged at training step \d+; there is nothing to resume", done.stdout)
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


def test_changes_are_limited_and_the_tying_settles_for_every_agent(text_folder: Path, tmp_path: Path) -> None:
    limits = ("--wrappers", "limit-changes", "settle", "--max-changes", "2", "--settle-after", "0.5")
    path = tmp_path / "run"
    done = command("--agent", "random", *options(text_folder, path, "--total-steps", "40", *limits))
    assert done.returncode == 0, done.stdout + done.stderr
    tyings = [record["tying"] for record in RunDirectory.open(path).read_metrics()]
    changes = [sum(map(operator.ne, before, after)) for before, after in itertools.pairwise(tyings)]
    assert 0 < max(changes) <= 2
    assert len({tuple(tying) for tying in tyings[10:]}) == 1
    refused = command("--agent", "random", *options(text_folder, tmp_path / "no", "--settle-after", "2"))
    assert refused.returncode == 2
    shown = " ".join((refused.stdout + refused.stderr).replace("│", " ").split())
    assert "settle_after must be a share of the" in shown
