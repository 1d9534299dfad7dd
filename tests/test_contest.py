"""Agents on the tying table: all of them run, looks are paid for, runs are kept and compared."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.commands.compare import main as compare
from tying_agents.commands.run import main as run
from tying_agents.contest.arms import ContestArm, arm_of
from tying_agents.contest.entries import entry_of
from tying_agents.contest.runs import MARKS, Task, make_runs, play, read_runs
from tying_agents.contest.standings import markdown, standings, text_rows
from tying_agents.controllers.view import Trial
from tying_agents.registry import agent_names
from tying_agents.settings import HalvingConfig

from tests.own_code import write
from tests.tables import made_up_table, written
from tying_env.table.file import TEST


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("table"))


# They look at gradients or weights, of which a table has none.
LOOKING = ("probe-then-tie", "share-then-split", "merge-alike", "gates")
# They share one sublayer of every block, and a table is of whole blocks.
OF_SUBLAYERS = ("shared-attention", "shared-feed-forward")


NOT_HERE = ("pattern", "replay", *LOOKING, *OF_SUBLAYERS)


@pytest.mark.parametrize("name", [name for name in agent_names() if name not in NOT_HERE])
def test_every_agent_searches_the_table(name: str, path: Path) -> None:
    task = Task(table=path, trainings=16)
    played = play(arm_of(name), task, seed=1)
    assert list(played.regret) == [5, 10, 16]
    assert all(0 <= regret < math.inf for regret in played.regret.values())
    again = play(arm_of(name), task, seed=1)
    assert (again.regret, again.decisions) == (played.regret, played.decisions)


@pytest.mark.parametrize("name", LOOKING)
def test_what_looks_at_gradients_is_refused(name: str, path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"needs (gradients|gates), which this environment does not offer: .* has no (gradient|mixing)_",
    ):
        play(arm_of(name), Task(table=path, trainings=12), seed=1)


def test_halving_buys_trainings_twice_as_long_each_round(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bought: list[int] = []
    plain = Trial.step

    def step(self: Trial, action: Any) -> Any:
        before = self.train_step
        stepped = plain(self, action)
        bought.append(self.train_step - before)
        return stepped

    monkeypatch.setattr(Trial, "step", step)
    arm = ContestArm("short", "halving", HalvingConfig(candidates=8, share=0.5, groups=3), fidelities=True)
    played = play(arm, Task(table=path, trainings=24), seed=1)
    # Three rounds of up to 384 steps: 8 x 32 (the nearest to 24), 4 x 64 (to 48), and 2 x 96 twice.
    assert bought == [32] * 8 + [64] * 4 + [96] * 4
    # Of 24 x 96 steps 14 x 96 + 64 are left: the last decision is a training of 64.
    assert played.decisions == 15 and played.regret[24] < math.inf


def test_regret_of_patterns_is_known(path: Path) -> None:
    true = np.exp(made_up_table().corpora["sotu"].at_rate()[:, :, TEST, -1].mean(axis=0))
    for name, row in (("albert", 0), ("conventional", 202)):
        found = play(arm_of(name), Task(table=path, trainings=5), seed=0)
        assert found.regret == {5: pytest.approx(true[row] - true.min())}
        assert found.decisions == 5


def test_what_is_tried_in_forks_is_paid_for(path: Path) -> None:
    played = play(arm_of("hill-climbing"), Task(table=path, trainings=60), seed=0)
    assert played.decisions <= 60 / 3 + 1  # two or three looks, and the step


def test_runs_are_kept_and_not_made_again(path: Path, tmp_path: Path) -> None:
    task, arms, told = Task(table=path, trainings=5), [arm_of("random"), arm_of("cycle")], list[tuple[int, int, str]]()
    first = make_runs(arms, task, 2, tmp_path, lambda *at: told.append(at))
    assert told[0] == (0, 4, "random") and told[-1] == (4, 4, "")
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    (tmp_path / "runs.jsonl").write_text("\n".join([*lines[:3], lines[3][:40]]))  # as a crash leaves it
    told.clear()
    assert sorted(map(str, make_runs(arms, task, 3, tmp_path, lambda *at: told.append(at))))[0]
    assert told[0] == (3, 6, "cycle")
    kept = {(played.arm, played.seed): played.regret for played in read_runs(tmp_path)}
    assert all(kept[played.arm, played.seed] == played.regret for played in first)
    assert len(make_runs(arms, Task(table=path, trainings=6), 1, tmp_path, lambda *at: None)) == 2  # another task
    other = Task(table=written(tmp_path, made_up_table(seeds=2)), trainings=5)
    told.clear()
    make_runs(arms, other, 3, tmp_path, lambda *at: told.append(at), jobs=2)  # another table
    assert told[0] == (0, 6, "random") and told[-1] == (6, 6, "")
    table = made_up_table()
    fewer = dataclasses.replace(table, corpora={"sotu": table.corpora["sotu"]})
    told.clear()
    (tmp_path / "fewer").mkdir()
    make_runs(
        arms, Task(table=written(tmp_path / "fewer", fewer), trainings=5), 3, tmp_path, lambda *at: told.append(at)
    )
    assert told == [(6, 6, "")]  # a corpus that is added changes nothing of the others
    (tmp_path / "runs.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl line 1 is damaged"):
        read_runs(tmp_path)


def test_standings_are_means_with_intervals(path: Path, tmp_path: Path) -> None:
    runs = make_runs(
        [arm_of("random"), arm_of("albert")], Task(table=path, trainings=50), 6, tmp_path, lambda *at: None
    )
    found = standings(runs)
    assert [standing.arm for standing in found] == ["random", "albert"]  # the lower regret first
    values = [played.regret[50] for played in runs if played.arm == "random"]
    mean = found[0].regret[50]
    assert mean is not None and mean.value == pytest.approx(np.mean(values))
    # t quantile of 98.5 %, which covers 93 % or more also of skewed values, 5 degrees of freedom
    assert mean.half_width == pytest.approx(3.5 * np.std(values, ddof=1) / 6**0.5, rel=0.05)
    rows = text_rows(found)
    assert rows[0] == ("agent", "runs", "after 5", "after 10", "after 20", "after 50", "CPU seconds")
    assert markdown(rows).splitlines()[1] == "| --- | --- | --- | --- | --- | --- | --- |"
    limited = Task(table=path, trainings=5, objective="limited", max_parameters=2000)
    nothing = standings([play(arm_of("conventional"), limited, 0)])
    assert text_rows(nothing)[1][2] == "none yet"


def test_marks_end_with_the_budget() -> None:
    assert Task().marks == MARKS == (5, 10, 20, 50, 100, 200)
    assert Task(trainings=30).marks == (5, 10, 20, 30)
    assert Task(trainings=3).marks == (3,)


@pytest.mark.parametrize("name", ["prior", "thompson", "halving-short", "dqn-bandit", "random-redrawn"])
def test_run_knows_the_names_and_settings_of_the_leaderboard(
    name: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", "table", "--table", str(path), "--trainings", "40", "--agent", name, "--seed", "3"]
    assert run(words, "run") == 0
    expected = play(entry_of(name).arm(), Task(table=path, trainings=40), seed=3)
    assert f"after   40 trainings: regret {expected.regret[40]:.4f}" in capsys.readouterr().out


def test_compare_takes_agents_whose_settings_have_names_in_common(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", "table", "--table", str(path), "--trainings", "100", "--seeds", "2", "--out", str(tmp_path)]
    names = ["prior", "thompson", "halving", "halving-short", "dqn", "dqn-bandit"]
    assert compare([*words, "--agents", *names], "compare") == 0
    kept = {played.arm: played.settings for played in read_runs(tmp_path)}
    assert set(kept) == set(names)
    assert kept["thompson"]["share"] == 0.5 and kept["dqn-bandit"]["gamma"] == 0 and kept["dqn"]["gamma"] > 0.9
    capsys.readouterr()
    assert compare([*words, "--agents", "prior", "thompson", "--groups", "4"], "compare") != 0
    assert "--groups is a setting of agents of two kinds here" in capsys.readouterr().out.replace("\n", " ")
    assert compare([*words[:-1], str(tmp_path / "b"), "--agents", "dqn-bandit", "--hidden-units", "8"], "compare") == 0
    (played,) = {(p.settings["hidden_units"], p.settings["gamma"]) for p in read_runs(tmp_path / "b")}
    assert played == (8, 0.0)
    own_default = ["--agents", "dqn-bandit", "--gamma", "0.99"]  # of dqn: given all the same
    assert compare([*words[:-1], str(tmp_path / "c"), *own_default], "compare") == 0
    assert {p.settings["gamma"] for p in read_runs(tmp_path / "c")} == {0.99}
    switched = ["--agents", "halving", "prior", "--no-patterns"]
    assert compare([*words[:-1], str(tmp_path / "d"), *switched], "compare") == 0
    assert [p.settings["patterns"] for p in read_runs(tmp_path / "d") if p.arm == "halving"] == [False, False]


def test_the_commands_search_the_table(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write(tmp_path, "mine.py", OWN)
    common = ["--env", "table", "--table", str(path), "--trainings", "10"]
    assert run([*common, "--agent", "dqn", "--gamma", "0"], "run") == 0
    assert "after   10 trainings: regret" in capsys.readouterr().out
    agents = ["--agents", "random", f"{own}:Mine", "--seeds", "2", "--out", str(tmp_path / "out")]
    assert compare([*common, *agents], "compare") == 0
    printed = capsys.readouterr().out
    assert "runs 4/4" in printed and "Mine" in printed and "standings:" in printed
    assert "| Mine | 2 |" in (tmp_path / "out/standings.md").read_text()
    # Again: nothing is left to be made; with other settings the runs of before are not those that are asked for.
    assert compare([*common, *agents], "compare") == 0
    assert capsys.readouterr().out.startswith("runs 4/4")
    assert compare([*common, *agents, "--row", "2"], "compare") == 1
    assert "has runs of 'Mine' with other settings: row is 1 there, 2 here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "bible"], "corpus must be one of 'other', 'sotu', got 'bible'"),
        (["--trainings", "0"], "trainings must be at least 1, got 0"),
        (["--objective", "limited"], "max_parameters goes with objective='limited'"),
        (["--agent", "rnadom"], "did you mean 'random'?"),
    ],
)
def test_wrong_options_are_named(
    words: list[str], message: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--env", "table", "--table", str(path), "--agent", "random", *words], "run") == 1
    assert message in " ".join(capsys.readouterr().out.split())


def test_a_table_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--env", "table", "--agent", "random", "--table", str(tmp_path / "none.npz")], "run") == 1
    assert "none.npz" in capsys.readouterr().out


OWN = '''
from dataclasses import dataclass

import numpy as np
from tying_agents import Controller


@dataclass(frozen=True)
class Settings:
    row: int = 1


class Mine(Controller):
    """Always the same tying."""

    Settings = Settings

    def __init__(self, settings, context):
        self.row = settings.row

    def act(self, observation):
        action = np.arange(6)
        action[self.row :] = 0
        return action
'''
