"""Making the tying table: rows that are kept as they come, resumed, taken over, and the same whenever they are made."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.commands.tabulate import main as tabulate
from tying_agents.running.description import processor_kind
from tying_agents.tabulating import plan as plans
from tying_agents.tabulating.plan import Row, TablePlan
from tying_agents.tabulating.store import append_row, read_rows, rows_of
from tying_agents.tabulating.training import TrainedRow, train_row

from tests.started import code
from tests.tables import trained_again
from tying_env.env import LayerTyingEnv
from tying_env.partition import bell_number
from tying_env.table import open_table

ROOT = Path(__file__).parents[1]
SMALL = {**plans.SETTINGS, "n_layer": 3, "n_embd": 8, "seq_len": 16, "batch_size": 2, "total_steps": 8, "k": 4}
SMALL |= {"warmup_steps": 2}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the table have three layers and eight steps."""
    monkeypatch.setattr(plans, "SETTINGS", SMALL)


def options(out: Path, text: Path, *more: str) -> list[str]:
    common = ["--corpus", "mine", "--dataset", str(text), "--out", str(out), "--known", "None", "--jobs", "1"]
    return [*common, "--seeds", "1", "--learning-rates", "1e-2", *more]


def test_the_plan_has_every_tying_seed_by_seed() -> None:
    plan = TablePlan("sotu")
    rows = list(plan.rows())
    assert len(rows) == len(set(rows)) == bell_number(6) * 3 * 5 == 3045
    assert [row.seed for row in rows[:610:609]] == [0, 1]
    assert plan.points == tuple(range(32, 385, 32)) and len(plan.points) >= 12


@pytest.mark.usefixtures("small")
def test_a_row_is_what_the_environment_trains(text_folder: Path) -> None:
    plan = TablePlan("mine", str(text_folder), (1e-2,), 1, dict(SMALL), 4)
    trained = train_row(plan, Row(3, 1e-2, (0, 1, 0)))
    env = LayerTyingEnv(
        **SMALL, dataset=str(text_folder), learning_rate=1e-2, device="cpu", validate_every=4, validation_windows=4
    )
    env.reset(seed=3, options={"tying": np.array([0, 1, 0])})
    for place in range(2):
        *_, info = env.step(np.array([0, 1, 0]))
        assert trained.losses[0][place] == info["train_loss"]
        assert np.exp(trained.losses[1][place]) == pytest.approx(info["validation_perplexity"], rel=1e-6)
        assert trained.losses[2][place] == pytest.approx(env.evaluate("test", 4).mean_loss, rel=1e-6)
    assert trained.parameters == env.trainer.count_trainable() == info["trainable_parameters"]
    assert trained.memory == 16 * trained.parameters  # weights, gradients and two moments in float32
    again = train_row(plan, Row(3, 1e-2, (0, 1, 0)))
    assert again.losses == trained.losses


@pytest.mark.usefixtures("small")
def test_a_table_is_made_resumed_and_made_longer(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert tabulate(options(out, text_folder)) == 0
    assert "rows 5/5" in capsys.readouterr().out
    first = open_table(out / "tying_table_v1.npz")
    lines = (out / "mine/rows.jsonl").read_text().splitlines()
    assert len(lines) == 5 and first.corpora["mine"].losses.shape == (1, 1, 5, 3, 2)
    # A crash leaves two lines and a half; the file that is made again is the same, but for the seconds.
    # The first row is from before rows said on which processor they were made.
    old = {name: each for name, each in json.loads(lines[0]).items() if name != "processor"}
    (out / "mine/rows.jsonl").write_text("\n".join([json.dumps(old), lines[1], lines[2][:50]]))
    assert tabulate(options(out, text_folder)) == 0
    again = open_table(out / "tying_table_v1.npz")
    np.testing.assert_array_equal(again.corpora["mine"].losses, first.corpora["mine"].losses)
    assert first.corpora["mine"].processors.tolist() == [[[processor_kind()] * 5]]
    assert again.corpora["mine"].processors.tolist() == [[["", *[processor_kind()] * 4]]]
    # A second corpus, with two rates, takes the first one over.
    known = ["--known", str(out / "tying_table_v1.npz")]
    other = ["--corpus", "other", *known, "--learning-rates", "1e-2", "1e-3"]
    assert tabulate(options(tmp_path / "both", text_folder, *other)) == 0
    both = open_table(tmp_path / "both/tying_table_v1.npz")
    np.testing.assert_array_equal(both.corpora["mine"].losses, first.corpora["mine"].losses)
    np.testing.assert_array_equal(both.corpora["other"].losses[1], first.corpora["mine"].losses[0])
    assert both.corpora["other"].learning_rates.tolist() == [1e-3, 1e-2]
    # Rows of a known table are not trained again.
    capsys.readouterr()
    assert tabulate(options(tmp_path / "third", text_folder, *known, "--seeds", "2")) == 0
    assert len((tmp_path / "third/mine/rows.jsonl").read_text().splitlines()) == 5
    assert len(open_table(tmp_path / "third/tying_table_v1.npz").corpora["mine"].whole_seeds) == 2


@pytest.mark.usefixtures("small")
def test_a_row_of_a_table_trains_to_the_same_bits_again(text_folder: Path, tmp_path: Path) -> None:
    assert tabulate(options(tmp_path, text_folder)) == 0
    table = open_table(tmp_path / "tying_table_v1.npz")
    rows = rows_of(table, "mine")
    row = sorted(rows, key=str)[np.random.default_rng(0).integers(len(rows))]
    again = trained_again(table, row, "mine", str(text_folder))
    assert again.losses == rows[row].losses
    assert (again.parameters, again.memory) == (rows[row].parameters, rows[row].memory)
    # Another row is not the same, so that this test could fail.
    other = dataclasses.replace(row, tying=(0, 0, 0) if row.tying != (0, 0, 0) else (0, 1, 2))
    assert trained_again(table, other, "mine", str(text_folder)).losses != rows[row].losses


@pytest.mark.usefixtures("small")
def test_other_texts_and_settings_are_refused(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert tabulate(options(out, text_folder)) == 0
    changed = tmp_path / "text"
    changed.mkdir()
    for name in ("train.txt", "valid.txt", "test.txt"):
        (changed / name).write_text((text_folder / name).read_text() + "more")
    capsys.readouterr()
    assert tabulate(options(out, changed)) == 1
    assert "has rows of another table: fingerprint is" in capsys.readouterr().out
    known = ["--known", str(out / "tying_table_v1.npz")]
    assert tabulate(options(tmp_path / "new", changed, *known)) == 1
    assert "the known table's corpus 'mine' is another text" in capsys.readouterr().out
    monkeypatch.setattr(plans, "SETTINGS", SMALL | {"n_embd": 12})
    assert tabulate(options(tmp_path / "new", text_folder, *known)) == 1
    assert "settings.n_embd is 8 there, 12 here" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    append_row(tmp_path, Row(0, 1e-3, (0, 0)), TrainedRow([[1.0, float("inf")]] * 3, 10, 40, 0.5))
    assert read_rows(tmp_path) == {Row(0, 1e-3, (0, 0)): TrainedRow([[1.0, float("inf")]] * 3, 10, 40, 0.5)}
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text() + json.dumps({"seed": 0}) + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl line 2 is damaged: KeyError\('learning_rate'\)"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corpus": "a/b"}, "corpus must be a name without slashes, got 'a/b'"),
        ({"seeds": 0}, "seeds and windows must be at least 1, got 0"),
        ({"learning_rates": (1e-3, 1e-3)}, "learning_rates must be different numbers"),
        ({"learning_rates": (0.0,)}, "learning_rates must be numbers above 0"),
        ({"settings": plans.SETTINGS | {"k": 5}}, "k must divide total_steps, got 5 and 384"),
    ],
)
def test_plans_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TablePlan(**{"corpus": "sotu"} | arguments)


# In the third row it waits for the signal.
WAITING = """
import sys, time
from pathlib import Path
from tying_agents.tabulating import plan
from tying_agents.commands.tabulate import main
from tying_env.env import LayerTyingEnv

def waiting(env, action, step=LayerTyingEnv.step):
    while rows.exists() and rows.read_text().count("\\n") == 2 and not list(rows.parent.glob("stop-*")):
        time.sleep(0.01)
    return step(env, action)

LayerTyingEnv.step = waiting
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_generator_that_is_killed_loses_the_rows_in_progress_alone(
    how: signal.Signals,
    text_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    rows = out / "mine/rows.jsonl"
    text = WAITING + (
        f"plan.SETTINGS.update({SMALL!r})\nrows = Path({str(rows)!r})\nsys.exit(main({options(out, text_folder)!r}))"
    )
    process = code(text, new_session=True)
    while not (rows.exists() and rows.read_text().count("\n") >= 2):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, how)
    text, _ = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130, text
        assert "The same command resumes from what is in the folder." in text
    left = read_rows(out / "mine")
    assert len(left) == 2 or (len(left) == 3 and how == signal.SIGINT)
    monkeypatch.setattr(plans, "SETTINGS", SMALL)
    assert tabulate(options(out, text_folder)) == 0
    assert "rows 5/5" in capsys.readouterr().out
    assert read_rows(out / "mine").items() >= left.items()
