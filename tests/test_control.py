"""The positive control: runs are kept one by one, the table is their mean, and comparisons say what it says of them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tying_agents.control import experiment
from tying_agents.control.arms import ARMS, BANDIT, find_arm
from tying_agents.control.experiment import ControlPlan, EndOfMark, OneRun, make_one, make_runs, read_runs, runs_of
from tying_agents.control.notes import control_note, with_control
from tying_agents.control.table import (
    Cell,
    cells_of,
    markdown_tables,
    read_table,
    shipped_cells,
    text_table,
    write_table,
)
from tying_agents.registry import agent_names, find_agent
from tying_agents.settings import DQNConfig

from tests.command_line import called
from tests.run_folders import make_records, make_run
from tying_env.reports.comparison import load_comparison

SMALL = ControlPlan(("random", "dqn"), ("additive",), (4,), (5, 10), seeds=2)


def nobody(done: int, total: int, run: OneRun | None) -> None: ...


def cell(arm: str = "dqn", decisions: int = 59, **changed: Any) -> Cell:
    usual: dict[str, Any] = {"kind": "additive", "n_layer": 12, "noise": 0.0, "seeds": 20, "share": 0.031}
    return Cell(
        **{"value": 1.0, "best": 2.0, "chance": 1.0, "deviation": 0.1} | usual | changed, arm=arm, decisions=decisions
    )


def test_a_control_that_was_killed_resumes_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runs(SMALL, tmp_path / "whole", nobody)
    made: list[OneRun] = []

    def dying(run: OneRun, marks: tuple[int, ...]) -> dict[str, Any]:
        made.append(run)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make_one(run, marks)

    monkeypatch.setattr(experiment, "make_one", dying)
    with pytest.raises(KeyboardInterrupt):
        make_runs(SMALL, tmp_path / "cut", nobody)
    with open(tmp_path / "cut" / "runs.jsonl", "a") as file:
        file.write('{"arm": "dq')  # what a kill leaves of a line that was being written
    make_runs(SMALL, tmp_path / "cut", nobody)
    assert made[2] == made[3] and len(made) == 5  # four runs, one of them twice
    whole, resumed = (cells_of(read_runs(tmp_path / name)) for name in ("whole", "cut"))
    assert resumed == whole
    make_runs(SMALL, tmp_path / "cut", nobody)
    assert len(made) == 5  # nothing is made again
    make_runs(dataclasses.replace(SMALL, seeds=3, marks=(10,)), tmp_path / "cut", nobody)
    assert len(made) == 7


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    make_runs(dataclasses.replace(SMALL, arms=("random",)), tmp_path, nobody)
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text().replace('"best"', '"bset"', 1))
    with pytest.raises(ValueError, match=r"runs.jsonl line 1 is damaged: KeyError\('best'\)"):
        read_runs(tmp_path)


def test_a_mark_is_the_mean_of_the_last_tenth_before_it() -> None:
    ends = EndOfMark((5, 20))
    loop: Any = None
    for decision in range(1, 21):
        ends.decision_made(loop, {"decision": decision, "value": float(decision), "best": 9.0, "chance": 1.0})
    assert ends.values() == {"5": 5.0, "20": 19.5}


def test_an_agent_that_goes_by_the_length_of_its_run_has_one_for_each_mark() -> None:
    plan = dataclasses.replace(SMALL, arms=("dqn", "sb3-dqn"), seeds=1)
    assert [(run.arm, run.decisions) for run in runs_of(plan)] == [("dqn", 10), ("sb3-dqn", 5), ("sb3-dqn", 10)]


def test_whoever_says_that_the_length_of_a_run_counts_has_one_run_for_each_mark() -> None:
    by_length = ["repaired-dqn", "sb3-dqn", "qrdqn", "halving", "change-little", "thompson", "mcts"]
    assert [name for name in ARMS if ARMS[name].goes_by_length] == by_length
    short, long = (make_one(OneRun("repaired-dqn", "additive", 4, 0.0, 1, n), (n,)) for n in (10, 30))
    assert short["values"].keys() == {"10"} and long["values"].keys() == {"30"}


def test_others_begin_a_longer_run_as_the_shorter_one() -> None:
    for name in ("dqn", "layer-sweep-dqn", "a2c", "tpe", "cma-es", "evolution"):
        assert not ARMS[name].goes_by_length
        short, long = (make_one(OneRun(name, "additive", 4, 0.0, 1, n), (10,)) for n in (10, 30))
        assert short["values"] == long["values"]


def test_means_and_shares_by_hand() -> None:
    line = {"arm": "dqn", "kind": "additive", "n_layer": 4, "noise": 0.0, "best": 3.0, "chance": 1.0}
    lines = [line | {"seed": seed, "values": {"59": value}} for seed, value in enumerate((1.0, 2.0))]
    (found,) = cells_of(lines)
    assert (found.value, found.share, found.seeds) == (1.5, 0.25, 2)
    assert found.deviation == pytest.approx(0.3536)
    assert text_table([found], "additive", 0.0, [4]) == [("arm", "L=4: 59"), ("dqn", "25 ± 35 (2)")]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_table([cell()], 12.3, tmp_path)
    assert read_table((tmp_path / "table.json").read_text(), "it") == [cell()]
    with pytest.raises(ValueError, match="it is damaged"):
        read_table('{"cells": [{}]}', "it")


def test_the_shipped_table_has_every_arm_against_chance() -> None:
    cells = shipped_cells()
    assert {each.arm for each in cells} == set(ARMS)
    for each in cells:
        assert each.chance < each.best and each.value <= each.best + 1e-9 and each.seeds >= 1
        if each.arm == "random":
            assert abs(each.share) < 4 * max(each.deviation, 0.02) / each.seeds**0.5 + 0.02, each
    assert all(arm.agent in agent_names() for arm in ARMS.values())


def test_the_page_has_the_shipped_table() -> None:
    page = (Path(__file__).parents[1] / "docs" / "results" / "positive_control.md").read_text(encoding="utf-8")
    assert markdown_tables(shipped_cells()) in page


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": (1,)}, "layers must be whole numbers of at least 2"),
        ({"marks": ()}, "marks must be whole numbers of at least 1"),
        ({"kinds": ("other",)}, "kinds must be among independent, additive, pairwise, got 'other'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"noise": -1.0}, "noise must be a finite number of at least 0, got -1.0"),
        ({"arms": ("dqnn",)}, "did you mean 'dqn'"),
    ],
)
def test_what_cannot_be_planned_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changed)


def test_the_command_prints_and_writes_the_table(tmp_path: Path) -> None:
    out = tmp_path / "control"
    words = ("--arms", "random", BANDIT, "--kinds", "pairwise", "--layers", "4", "--marks", "5", "10", "--seeds", "2")
    done = called("control", *words, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs 4/4" in done.stdout and BANDIT in done.stdout
    content = json.loads((out / "table.json").read_text())
    assert [(each["arm"], each["decisions"], each["seeds"]) for each in content["cells"]] == [
        ("random", 5, 2),
        ("random", 10, 2),
        (BANDIT, 5, 2),
        (BANDIT, 10, 2),
    ]
    refused = called("control", "--arms", "dqnn", "--out", out)
    assert refused.returncode == 1 and "did you mean 'dqn'" in refused.stdout


def test_a_comparison_says_how_many_decisions_a_controller_had_and_what_so_many_are_good_for(tmp_path: Path) -> None:
    for name, settings in (
        ("dqn", {}),
        ("bandit", vars(DQNConfig(gamma=0.0, q_learning_rate=1e-2))),
        ("other", {"gamma": 0.5}),
    ):
        make_run(tmp_path / name, "dqn", 0, config={"label": name, "controller": settings})
    make_run(tmp_path / "albert", "albert", 0)
    cells = [
        cell(decisions=5),
        cell(decisions=5, kind="pairwise", share=-0.2),
        cell(decisions=5, n_layer=48, share=0.9),
        cell(decisions=400, share=0.8),
        cell(decisions=5, noise=0.5, share=0.7),
        cell(BANDIT, decisions=400),
    ]
    arms = {summary.arm.label: summary.arm for summary in load_comparison([tmp_path]).arms}
    made = arms["dqn"].runs[0].last["decision"]
    assert 5 < made < 400
    notes = {label: control_note(arm, cells) for label, arm in arms.items()}
    assert notes["dqn"] == (
        f"dqn made {made} decisions. After 5 it gets, where the best tying of 12 layers is known and rewards have no "
        "noise (the positive control), 3% on additive tasks and -20% on pairwise tasks of what there is to gain over "
        "chance."
    )
    assert (
        notes["bandit"]
        == f"bandit made {made} decisions, fewer than the least that the positive control looks at, 400."
    )
    assert notes["other"] is not None and "has no such controller" in notes["other"]
    assert notes["albert"] is None
    found = with_control(load_comparison([tmp_path])).notes
    assert sum(note.startswith(("dqn made", "bandit made", "other made")) for note in found) == 3


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rewards": ["shuffled"]}, "shuffled"),
        ({"wrappers": ["limit-changes", "settle"]}, "limit-changes and settle"),
        ({"rewards": ["log"], "wrappers": ["one-hot"]}, "log and one-hot"),
    ],
)
def test_the_control_says_nothing_of_other_rewards_or_actions(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    plain: dict[str, Any] = {"rewards": [], "wrappers": []}
    make_run(tmp_path / "dqn", "dqn", 0, config=plain)
    make_run(tmp_path / "other", "dqn", 0, config=plain | {"label": "other"} | settings)
    notes = with_control(load_comparison([tmp_path])).notes
    (own,) = (note for note in notes if note.startswith("dqn made 10 decisions"))
    (other,) = (note for note in notes if note.startswith("other made"))
    assert "fewer than the least" in own
    assert (
        other == f"other made 10 decisions. The positive control says nothing of it: there no controller has {named}."
    )


def test_a_run_with_more_decisions_is_held_against_the_latest_mark_before(tmp_path: Path) -> None:
    make_run(tmp_path / "dqn", "dqn", 0, records=make_records(70, 4, 0))
    (summary,) = load_comparison([tmp_path]).arms
    note = control_note(summary.arm, [cell(decisions=10), cell(decisions=59, share=0.5), cell(decisions=71)])
    assert note is not None and note.startswith("dqn made 70 decisions. After 59 it gets") and "50% on additive" in note


def test_who_goes_by_the_length_of_a_run_is_measured_in_one_of_that_length(tmp_path: Path) -> None:
    make_run(tmp_path / "sb3", "sb3-dqn", 0, records=make_records(70, 4, 0))
    (summary,) = load_comparison([tmp_path]).arms
    note = control_note(summary.arm, [cell("sb3-dqn", decisions=59, share=0.5)])
    assert note is not None and note.startswith("sb3-dqn made 70 decisions. In a run of 59 it gets")


def test_an_arm_is_an_agent_at_its_defaults_unless_it_is_known() -> None:
    assert find_arm("cycle").chosen == find_agent("cycle").settings()
    assert find_arm(BANDIT).chosen == DQNConfig(gamma=0.0, q_learning_rate=1e-2)
