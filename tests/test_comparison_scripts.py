"""Comparisons from the command line: compare.py and ablations.py, what they leave, refuse and keep."""

import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tying_agents.commands import ablations

from tests.command_line import called
from tests.pictures import AS_SOURCE
from tests.run_folders import read
from tests.started import script
from tying_env.reports import html
from tying_env.reports import page as reports
from tying_env.runs import RunDirectory

SMALL = [
    *("--tokenizer", "bytes", "--n-layer", "4", "--n-embd", "16", "--n-head", "2", "--seq-len", "16"),
    *("--batch-size", "4", "--k", "1", "--total-steps", "6", "--validate-every", "3"),
    *("--validation-windows", "8", "--test-windows", "4"),
]


def command(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return called(script.removesuffix(".py"), *arguments, columns=160)


@pytest.fixture
def no_figures_of_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave each arm's figures out of a report that is not looked at for them."""
    monkeypatch.setattr(html, "run_pictures", lambda *_: [])


def test_compare_from_the_command_line(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    arguments = ["--agents", "random", "dqn+shuffled", "ppo", "--seeds", "2", "--out", str(out), *SMALL]
    arguments += ["--dataset", str(text_folder), "--jobs", "1"]
    drawn = itertools.count(1)

    def as_source(figure: Figure) -> str:
        if next(drawn) <= 6 + 9:  # what compares the arms, and all of the first one
            return AS_SOURCE(figure)
        figure.draw_without_rendering()  # fails where drawing does
        return "data:,"

    with monkeypatch.context() as patch:
        patch.setattr(reports, "_as_source", as_source)
        done = command("compare.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs 6/6" in done.stdout
    assert "dqn+shuffled" in done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/svg+xml;base64,") == 6 + 9 and "Not drawn" not in page
    assert next(drawn) == 1 + 6 + 3 * 9
    shuffled = RunDirectory.open(out / "runs" / "dqn+shuffled" / "seed0")
    assert shuffled.read_json("config.json")["rewards"] == ["shuffled"]
    rewards = [record["reward"] for record in shuffled.read_metrics()]
    assert rewards[1:] != [-record["perplexity"] for record in shuffled.read_metrics()][1:]
    monkeypatch.setattr(html, "run_pictures", lambda *_: [])
    again = command("compare.py", *arguments, "--jobs", "2")
    assert again.returncode == 0
    assert "runs 0/6" in again.stdout and "runs 1/6" not in again.stdout  # none is made again
    other = command("compare.py", *arguments, "--k", "3")
    assert other.returncode == 1
    assert "env.k is 1 there, 3 here" in other.stdout


@pytest.mark.usefixtures("no_figures_of_arms")
def test_without_a_random_arm_the_first_is_the_reference(text_folder: Path, tmp_path: Path) -> None:
    arguments = ["--agents", "cycle", "albert", "--seeds", "1", "--first-seed", "7", "--jobs", "1"]
    arguments += ["--dataset", str(text_folder)]
    done = command("compare.py", *arguments, "--out", str(tmp_path / "out"), *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.parent.name for path in tmp_path.rglob("summary.json")) == ["seed7", "seed7"]
    assert "reference arm: cycle" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agents", "random", "dqm"], "agent must be one of dqn"),
        (["--agents", ""], "there is no arm"),
        (["--agents", "random", "dqn+loud"], "unknown reward 'loud'"),
        (
            ["--agents", "dqn", "cycle", "--reference", "random"],
            "reference must be one of the arms dqn, cycle, got 'random'",
        ),
        (["--agents", "random", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--agents", "random", "--first-seed", "-1"], "first_seed must be at least 0, got -1"),
        (
            ["--agents", "random", "--first-seed", "999", "--seeds", "2", "--learning-rates", "1e-3"],
            "tuning seeds (1000,) must be other seeds than (999, 1000)",
        ),
        (["--agents", "random", "--backend", "mpi"], "mpi"),
        (["--agents", "random", "replay"], "needs --trace"),
        (["--agents", "random", "--agent", "dqn"], "--agent"),
        (["--agents", "random", "--seed", "3"], "--seed"),
        (["--agents", "random", "--run-dir", "x"], "--run-dir"),
        (["--agents", "random", "--arms", "agent dqn"], 'must read "name: OPTIONS"'),
        (["--agents", "random", "--arms", "a: --agent dqm"], "dqm"),
        (["--agents", "random", "random+shuffled+probe"], "'probe' must come first"),
    ],
)
def test_wrong_comparisons_are_refused_with_nothing_written(
    tmp_path: Path, text_folder: Path, arguments: list[str], message: str
) -> None:
    out = ["--out", str(tmp_path / "out"), "--dataset", str(text_folder), *SMALL]
    done = command("compare.py", *arguments, *out)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


# The third run waits for the signal.
WAITING = """
import time
from tying_agents import Callback

class Waiting(Callback):
    def decision_made(self, loop, record):
        out = loop.directory.parents[2]
        while len(list(out.glob("runs/*/seed?/summary.json"))) == 2 and not list(out.glob("stop-*")):
            time.sleep(0.02)
"""


def test_ctrl_c_keeps_the_finished_runs(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "waiting.py").write_text(WAITING)
    arguments = ["--agents", "random", "cycle", "--seeds", "8", "--jobs", "1", "--out", str(out), *SMALL]
    arguments += ["--dataset", str(text_folder), "--callbacks", f"{tmp_path}/waiting.py:Waiting"]
    process = script("compare.py", *arguments, new_session=True)
    for _ in range(600):
        if len(list(out.glob("runs/*/seed?/summary.json"))) == 2:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "resumes from what is in the folder" in text
    assert len(list(out.glob("runs/*/seed?/summary.json"))) == 2


@pytest.mark.usefixtures("no_figures_of_arms")
def test_every_arm_of_the_ablations_chooses_its_own_learning_rate(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that learns and one that replays the other's tyings: a grid makes no other difference between arms.
    labels = ("full method", "iii permuted trace")
    every = ablations.make_arms
    monkeypatch.setattr(ablations, "make_arms", lambda *given: [arm for arm in every(*given) if arm.label in labels])
    out = tmp_path / "out"
    arguments = ["--seeds", "2", "--jobs", "1", "--out", str(out), *SMALL, "--dataset", str(text_folder)]
    done = command("ablations.py", *arguments, "--learning-rates", "1e-3", "1e-2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The best learning rate lies on the edge of the grid" in done.stdout
    assert "lies on the edge of the grid" in (out / "report.html").read_text(encoding="utf-8")
    assert len(list(out.glob("tuning/*/lr*/seed1000/summary.json"))) == 2 * len(labels)


@pytest.mark.usefixtures("no_figures_of_arms")
def test_the_ablations_are_what_they_are_called(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--seeds", "2", "--first-seed", "4", "--jobs", "1", "--out", str(out), *SMALL]
    arguments += ["--dataset", str(text_folder)]
    done = command("ablations.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    labels = ("full method", "conventional", "i fewer layers", "ix sequence", "shuffled reward")
    rows = [next(i for i, line in enumerate(lines) if line.startswith(label)) for label in labels]
    assert rows == sorted(rows)  # as in Table 4
    runs = {path.name: [read(path / f"seed{seed}") for seed in (4, 5)] for path in sorted((out / "runs").iterdir())}
    assert len(runs) == 14
    tyings = {name: [[r["tying"] for r in records] for records in seeds] for name, seeds in runs.items()}
    full = tyings["full method"]
    assert tyings["iv replayed trace"] == [full[1], full[0]]  # each in the run of another seed
    assert tyings["iii permuted trace"] != [full[1], full[0]]
    assert [t[0] for t in tyings["ii final tying"]] == [full[0][-1], full[1][-1]]
    ends = [records[-1]["independent_layers"] for records in runs["full method"]]
    assert len(tyings["i fewer layers"][0][0]) == round(sum(ends) / 2)
    assert len(set(tyings["random static"][0][0])) == round(sum(ends) / 2)
    assert all(r["storages"] == 4 for records in runs["v copied, not tied"] for r in records)  # shares nothing
    assert all(r["storages"] == r["independent_layers"] for records in runs["full method"] for r in records)
    config = RunDirectory.open(out / "runs" / "vi nothing frozen" / "seed4").read_json("config.json")
    assert config["env"]["freeze_at_start"] is False
    one = command("ablations.py", *arguments[2:], "--seeds", "1")
    assert one.returncode == 1
    assert "seeds must be at least 2" in one.stdout
