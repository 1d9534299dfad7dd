from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.traces import ReplayController, header, line, read_trace
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run
from tying_agents.settings import GroupsConfig, ReplayConfig

from tests.controllers import make_controller
from tying_env import EnvConfig, partition
from tying_env.kinds import Kinds

THREE = Kinds.alike(3)


def recorded(tmp_path: Path, tiny: Any, name: str, **settings: Any) -> Any:
    config = RunConfig(run_dir=tmp_path / name, env=EnvConfig(**tiny), test_windows=4, **settings)
    directory, _ = run(config)
    return directory


def test_a_run_writes_its_tyings_as_text_and_replaying_them_repeats_the_run(tmp_path: Path, tiny: Any) -> None:
    first = recorded(tmp_path, tiny, "first", agent="dqn", seed=5)
    trace = read_trace(first.path)
    assert trace.start is None
    assert [t.tolist() for t in trace.tyings] == [record["tying"] for record in first.read_metrics()]
    pattern = ReplayConfig(trace=first.path)
    again = recorded(tmp_path, tiny, "again", agent="replay", seed=5, controller=pattern)
    for a, b in zip(first.read_metrics(), again.read_metrics(), strict=True):
        assert {k: a[k] for k in ("tying", "reward", "train_loss")} == {
            k: b[k] for k in ("tying", "reward", "train_loss")
        }
    assert (first.path / "trace.txt").read_text() == (again.path / "trace.txt").read_text()
    other = recorded(tmp_path, tiny, "other", agent="replay", seed=6, controller=pattern)
    assert [r["tying"] for r in other.read_metrics()] == [t.tolist() for t in trace.tyings]
    assert [r["reward"] for r in other.read_metrics()] != [r["reward"] for r in first.read_metrics()]


def test_a_trace_without_its_end_can_be_replayed_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(header(THREE, None) + "5 0 0 2\n10 0 1 1\n")
    trace = read_trace(file)
    assert (trace.k, trace.whole) == (5, False)
    (note,) = ReplayController(trace, Kinds.alike(3)).notes()
    assert "stops after 2 decisions without its end" in note
    file.write_text(header(THREE, None) + "5 0 0 2\n10 0 1 1\nend 12\n")
    assert ReplayController(read_trace(file), Kinds.alike(3)).notes() == []


def test_a_trace_is_replayed_at_its_own_steps_only(tmp_path: Path, tiny: Any) -> None:
    first = recorded(tmp_path, tiny, "first", agent="random")
    pattern = ReplayConfig(trace=first.path)
    with pytest.raises(ValueError, match="has a decision every 2 training steps, this run every 3: replay it with --k"):
        recorded(tmp_path, {**tiny, "k": 3}, "other", agent="replay", controller=pattern)
    assert not (tmp_path / "other").exists()
    final = ReplayConfig(trace=first.path, final=True)
    recorded(tmp_path, {**tiny, "k": 3}, "final", agent="replay", controller=final)


def test_of_several_episodes_the_last_is_replayed(tmp_path: Path, tiny: Any) -> None:
    first = recorded(tmp_path, tiny, "first", agent="random", episodes=2)
    trace = read_trace(first.path)
    records = first.read_metrics()
    assert trace.whole
    assert [t.tolist() for t in trace.tyings] == [r["tying"] for r in records if r["episode"] == 2]
    again = recorded(tmp_path, tiny, "again", agent="replay", controller=ReplayConfig(trace=first.path))
    assert [r["tying"] for r in again.read_metrics()] == [t.tolist() for t in trace.tyings]


def test_a_permuted_replay_applies_one_permutation_throughout(tmp_path: Path, tiny: Any) -> None:
    first = recorded(tmp_path, tiny, "first", agent="random", seed=5)
    tyings = read_trace(first.path).tyings
    permuted = recorded(
        tmp_path, tiny, "permuted", agent="replay", controller=ReplayConfig(trace=first.path, permute=3)
    )
    applied = [record["tying"] for record in permuted.read_metrics()]
    candidates = [
        order
        for order in __import__("itertools").permutations(range(4))
        if [partition.permute(t, order).tolist() for t in tyings] == applied
    ]
    assert len(candidates) >= 1
    assert applied != [t.tolist() for t in tyings]


def test_the_final_tying_can_be_trained_from_scratch(tmp_path: Path, tiny: Any) -> None:
    first = recorded(tmp_path, tiny, "first", agent="random", seed=1)
    last = read_trace(first.path).tyings[-1].tolist()
    final = recorded(tmp_path, tiny, "final", agent="replay", controller=ReplayConfig(trace=first.path, final=True))
    assert all(record["tying"] == last for record in final.read_metrics())
    assert read_trace(final.path).start is not None
    assert read_trace(final.path).start.tolist() == last  # type: ignore[union-attr]


def test_a_trace_of_a_fixed_pattern_begins_with_it(tmp_path: Path, tiny: Any) -> None:
    first = recorded(tmp_path, tiny, "first", agent="cycle")
    again = recorded(tmp_path, tiny, "again", agent="replay", controller=ReplayConfig(trace=first.path))
    assert [r["reward"] for r in again.read_metrics()] == [r["reward"] for r in first.read_metrics()]


def test_a_replay_holds_its_last_tying_and_can_be_restored(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(header(THREE, None) + line(5, np.array([0, 0, 2])) + line(10, np.array([0, 1, 1])))
    controller = ReplayController(read_trace(file), Kinds.alike(3))
    seen = [controller.act(np.zeros(3, dtype=np.int64)).tolist() for _ in range(4)]
    assert seen == [[0, 0, 2], [0, 1, 1], [0, 1, 1], [0, 1, 1]]
    controller.load_state_dict({"next": 0})
    assert controller.act(np.zeros(3, dtype=np.int64)).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a tying trace"),
        ("hello\nworld\n", "not a tying trace"),
        ("# tying trace, x layers\nstart frozen\n0 0 0\n", "line 1"),
        (header(THREE, None), "holds no decision"),
        (header(THREE, None) + "0 0 0\n", r"line 3 is damaged: .*shape \(3,\)"),
        (header(THREE, None) + "5 0 0 2\n10 0 1 x\n", "line 4 is damaged: .*'x'"),
        (header(THREE, None) + "0 0 2 2\n", r"line 3 is damaged: .*action\[1\] is 2"),
        (header(THREE, None) + "0 0 0 1\n", "not a tying in canonical form"),
        ("# tying trace, 3 layers\nstart 0 1\n0 0 0 0\n", "line 2 is damaged"),
        (header(THREE, None) + "x 0 0 2\n", "line 3 is damaged: it must begin with a training step, got 'x'"),
        (header(THREE, None) + "5 0 0 2\n10 0 0 2", "line 4 is damaged: it is cut off"),
        (header(THREE, None) + "5 0 0 2\n10 0 0 2\n20 0 0 0\n", "line 5 is damaged: training step 20 where 15 is due"),
        (header(THREE, None) + "10 0 0 2\n15 0 0 2\n", "line 3 is damaged: training step 10 where 5 is due"),
        (header(THREE, np.array([0, 0, 0])) + "5 0 0 2\n", "line 3 is damaged: training step 5 where 0 is due"),
        (header(THREE, None) + "10 0 0 2\n5 0 0 2\n", "line 3 is damaged"),
        (header(THREE, np.array([0, 0, 0])) + "0 0 0 2\n0 0 0 2\n", "line 4 is damaged: .*must rise"),
        (header(THREE, None) + "5 0 0 2\n10 0 0 0\nend 30\n", "'end 30' does not follow training step 10"),
        (header(THREE, None) + "5 0 0 2\nend 10\n" + header(THREE, None) + "5 0 0 1\n", "line 7 .*canonical"),
    ],
)
def test_damaged_traces_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_trace(file)


def test_other_wrong_traces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trace at"):
        read_trace(tmp_path)
    (tmp_path / "trace.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_trace(tmp_path)
    (tmp_path / "trace.txt").write_text(header(THREE, None) + "5 0 0 2\n")
    with pytest.raises(ValueError, match="the trace is of 3 layers, the environment has 4"):
        make_controller("replay", 4, 0, ReplayConfig(trace=tmp_path))
    with pytest.raises(ValueError, match="needs --trace"):
        make_controller("replay", 4, 0)


def test_patterns_from_settings(tmp_path: Path) -> None:
    zeros = np.zeros(6, dtype=np.int64)

    def tying(agent: Any, **settings: Any) -> list[int]:
        return make_controller(agent, 6, 0, find_agent(agent).settings(**settings)).act(zeros).tolist()

    assert tying("periodic", period=2) == [0, 1, 0, 1, 0, 1]
    assert tying("sandwich", untied_first=1, untied_last=2) == [0, 1, 1, 1, 4, 5]
    assert tying("sandwich", untied_first=0, untied_last=0) == [0] * 6
    assert len(set(tying("random-static", groups=4))) == 4
    assert len(set(tying("random-static"))) == 2  # H_6 = 2.45
    file = tmp_path / "pattern.txt"
    file.write_text("0 0 1\n3 3 4\n")
    assert tying("pattern", pattern=file) == [0, 0, 0, 3, 3, 3]
    for settings, agent, message in (
        ({"period": 7}, "periodic", "period must be between 1 and the number of layers 6, got 7"),
        ({"untied_first": 5, "untied_last": 1}, "sandwich", "must leave a trunk"),
        ({"groups": 7}, "random-static", "n_groups must be between 1 and the number of layers 6, got 7"),
        ({}, "pattern", "needs --pattern FILE"),
    ):
        with pytest.raises(ValueError, match=message):
            tying(agent, **settings)
    with pytest.raises(FileNotFoundError, match="no pattern file"):
        tying("pattern", pattern=tmp_path / "none")
    file.write_text("0 0 9 0 0 0")
    with pytest.raises(ValueError, match=r"pattern.txt is not a pattern for 6 layers: action\[2\] is 9"):
        tying("pattern", pattern=file)
    file.write_bytes(b"\x80\x00\x01")
    with pytest.raises(ValueError, match=r"pattern.txt is not a pattern for 6 layers: it is not UTF-8 text"):
        tying("pattern", pattern=file)
    with pytest.raises(ValueError, match="groups must be at least 0"):
        GroupsConfig(groups=-1)


def test_the_trace_of_a_run_without_the_frozen_start_says_so(tmp_path: Path, tiny: dict[str, Any]) -> None:
    env = EnvConfig(**tiny | {"freeze_at_start": False, "total_steps": 6})
    run(RunConfig("random", run_dir=tmp_path / "run", env=env, test_windows=4))
    assert (tmp_path / "run" / "trace.txt").read_text().splitlines()[1] == "start independent"
    settings = ReplayConfig(trace=tmp_path / "run")
    run(RunConfig("replay", run_dir=tmp_path / "again", env=env, test_windows=4, controller=settings))
    first, second = ((tmp_path / name / "trace.txt").read_text() for name in ("run", "again"))
    assert first == second


def test_a_trace_is_of_the_units_it_was_recorded_on(tmp_path: Path, tiny: Any) -> None:
    parts = recorded(tmp_path, {**tiny, "units": "sublayers"}, "parts", agent="random")
    assert (parts.path / "trace.txt").read_text().startswith("# tying trace, 8 units of kinds 0 0 0 0 4 4 4 4\n")
    kinds = Kinds.one_after_the_other((4, 4), ("attention", "feed-forward"))
    assert ReplayController(read_trace(parts.path), kinds).last.shape == (8,)
    with pytest.raises(ValueError, match=r"of 8 units of 2 kinds \(lowest .*\[0, 0, 0, 0, 4, 4, 4, 4\]\), .* 8 layers"):
        ReplayController(read_trace(parts.path), Kinds.alike(8))
    file = tmp_path / "blocks.txt"
    file.write_text(header(Kinds.alike(8), None) + "5 0 0 0 0 4 4 4 4\n")
    with pytest.raises(ValueError, match="the trace is of 8 layers, the environment has 8 units of 2 kinds"):
        ReplayController(read_trace(file), kinds)


@pytest.mark.parametrize(
    "words", ["0 layers", "8 units of kinds 0 0 2 2", "4 units of kinds 0 0 1 2", "4 units of kinds"]
)
def test_units_that_cannot_be_are_refused(tmp_path: Path, words: str) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(f"# tying trace, {words}\nstart frozen\n5 0 0 0 0\n")
    with pytest.raises(ValueError, match=r"trace.txt line 1 must read '# tying trace, N layers' or .* kinds \.\.\.'"):
        read_trace(file)
