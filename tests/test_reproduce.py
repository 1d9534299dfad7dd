"""The reproduction runs in slices that add up; here on a shrunken network, the one that fits a test."""

import itertools
import json
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tying_agents.reproducing import slices

from tests.command_line import called
from tests.started import script


@pytest.fixture(scope="module")
def text_folder(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small text with little to be measured on: runs measure on all of their test split."""
    folder = tmp_path_factory.mktemp("text")
    for name, characters in (("train", None), ("valid", 2000), ("test", 1000)):
        text = (text_folder / f"{name}.txt").read_text(encoding="utf-8")
        (folder / f"{name}.txt").write_text(text[:characters], encoding="utf-8")
    return folder


def reproduce(*options: str) -> subprocess.CompletedProcess[str]:
    return called("reproduce", "table1", *options)


def small(text_folder: Path, out: Path) -> list[str]:
    return [
        *("--size", "small", "--dataset", str(text_folder), "--tokenizer", "bytes", "--out", str(out)),
        *("--device", "cpu"),
    ]


def signalled(options: list[str], number: signal.Signals, out: Path, decisions: int) -> tuple[int, str]:
    """Send a signal to a slice whose first run has come so far; return exit code and output."""
    done = script("reproduce.py", "table1", *options, "--minutes", "3")
    metrics, deadline = out / "conventional" / "metrics.jsonl", time.monotonic() + 100
    while not (metrics.exists() and metrics.read_text().count("\n") >= decisions) and time.monotonic() < deadline:
        time.sleep(0.01)
    done.send_signal(number)
    output, _ = done.communicate(timeout=100)
    assert done.returncode is not None
    return done.returncode, output


def test_slices_add_up_to_three_finished_runs(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    options = small(text_folder, out)
    looks = itertools.count()
    with monkeypatch.context() as patch:  # a clock that a busy machine does not move: it is looked at every step
        patch.setattr(slices, "time", SimpleNamespace(monotonic=lambda: 0.01 * next(looks)))
        first = reproduce(*options, "--minutes", "0.005")
    assert first.returncode == 0, first.stdout + first.stderr
    begun = json.loads((out / "results.json").read_text())
    assert begun["arms"]["conventional"]["status"] == "stopped"
    assert begun["seconds_to_save"] > 0
    last = reproduce(*options, "--minutes", "3")
    assert last.returncode == 0, last.stdout + last.stderr
    results = json.loads((out / "results.json").read_text())
    rates = [one["chip_flops_per_second"] for page in (begun, results) for one in page["measured"].values()]
    assert len(set(rates)) == 1  # measured once
    for agent, arm in results["arms"].items():
        assert (arm["status"], arm["train_step"]) == ("finished", 60), agent
        assert arm["test"]["final"]["perplexity"] > 1
        assert arm["tokens_per_second"] > 0
        assert arm["share_of_chip"] > 0
    arms = results["arms"]
    assert sum(arms["conventional"]["bytes"].values()) == 4 * arms["conventional"]["bytes_conventional"]
    assert sum(arms["dqn"]["bytes"].values()) <= sum(arms["conventional"]["bytes"].values())
    table = (out / "results.md").read_text()
    assert all(f"| {agent} | 60 of 60 |" in table for agent in arms)
    for agent, arm in arms.items():  # the paper's Table 1 has it
        said = json.loads((out / agent / "summary.json").read_text())["seconds_per_epoch"]
        assert arm["seconds_per_epoch"] == said > 0
        assert f"| {arm['tokens_per_second']:,.0f} | {said:,.{0 if said >= 100 else 1}f} |" in table
    assert "| tokens/s | seconds per epoch |" in table
    weights = arms["dqn"]["bytes"]["weights_bytes"]
    assert f"| dqn | {weights / 1e6:,.1f} MB |" in table
    assert "| no GPU | no GPU |" in table
    again = reproduce(*options, "--minutes", "1")  # nothing is left to do
    assert again.returncode == 0
    assert json.loads((out / "results.json").read_text())["arms"] == arms


# And a run that fails costs the others nothing.
@pytest.mark.parametrize(("decisions", "fails"), [(1, True), (6, False)])
def test_a_kill_in_the_first_slice_costs_no_more_than_what_came_after_the_checkpoint(
    text_folder: Path, tmp_path: Path, decisions: int, fails: bool
) -> None:
    out = tmp_path / "out"
    options = small(text_folder, out)
    if fails:
        (out / "dqn").mkdir(parents=True)  # no run, and none can be made here
    code, output = signalled(options, signal.SIGKILL, out, decisions)
    assert code == -signal.SIGKILL, output
    assert not (out / "results.json").exists()
    again = reproduce(*options, "--minutes", "3")
    assert again.returncode == (1 if fails else 0), again.stdout + again.stderr
    assert ("Resuming from" in again.stdout) == (decisions > 4)
    assert ("error: dqn: the run directory" in again.stdout) == fails
    arms = json.loads((out / "results.json").read_text())["arms"]
    assert list(arms) == ["conventional", "dqn", "random"]
    assert (arms["dqn"] is None) == fails
    made = [arm for arm in arms.values() if arm is not None]
    assert [(arm["status"], arm["train_step"]) for arm in made] == [("finished", 60)] * (2 if fails else 3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_slice_with_the_results_so_far(
    text_folder: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    returned, output = signalled(small(text_folder, out), number, out, 2)
    assert returned == code, output
    arms = json.loads((out / "results.json").read_text())["arms"]
    assert arms["conventional"]["status"] in ("terminated", "interrupted")
    assert (arms["dqn"], arms["random"]) == (None, None)
    assert "| dqn | nothing yet |" in (out / "results.md").read_text()


@pytest.mark.parametrize(("options", "named"), [(["--minutes", "0"], "minutes must be"), (["--row", "imdb"], "imdb")])
def test_a_wrong_option_is_named(options: list[str], named: str) -> None:
    done = reproduce(*options)
    assert done.returncode != 0
    assert named in done.stdout + done.stderr
