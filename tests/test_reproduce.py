"""The reproduction runs in slices that add up; here on a shrunken network, the one that fits a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce.py"


def reproduce(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "table1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_slices_add_up_to_three_finished_runs(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--size", "small", "--dataset", str(text_folder), "--tokenizer", "bytes", "--out", str(out)]
    first = reproduce(*small, "--minutes", "0.015", "--device", "cpu")
    assert first.returncode == 0, first.stdout + first.stderr
    begun = json.loads((out / "results.json").read_text())
    assert any(arm is None or arm["train_step"] < 60 for arm in begun["arms"].values())
    last = reproduce(*small, "--minutes", "3", "--device", "cpu")
    assert last.returncode == 0, last.stdout + last.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["chip_flops_per_second"] > 0
    for agent, arm in results["arms"].items():
        assert (arm["status"], arm["train_step"]) == ("finished", 60), agent
        assert arm["test"]["final"]["perplexity"] > 1
        assert arm["tokens_per_second"] > 0
    arms = results["arms"]
    assert sum(arms["conventional"]["bytes"].values()) == 4 * arms["conventional"]["bytes_conventional"]
    assert sum(arms["dqn"]["bytes"].values()) <= sum(arms["conventional"]["bytes"].values())
    table = (out / "results.md").read_text()
    assert all(f"| {agent} | 60 of 60 |" in table for agent in arms)
    again = reproduce(*small, "--minutes", "1", "--device", "cpu")  # nothing is left to do
    assert again.returncode == 0
    assert json.loads((out / "results.json").read_text())["arms"] == arms


@pytest.mark.parametrize(("options", "named"), [(["--minutes", "0"], "minutes must be"), (["--row", "imdb"], "imdb")])
def test_a_wrong_option_is_named(options: list[str], named: str) -> None:
    done = reproduce(*options)
    assert done.returncode != 0
    assert named in done.stdout + done.stderr
