"""A run that is made longer ends with the same bits as one that was begun with that length."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from tying_agents.controllers.traces import read_trace
from tying_agents.registry import agent_names, find_agent
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run
from tying_agents.running.saved import OtherSettings, RunIsOver

from tests.reliability.conftest import BRIEF
from tests.reliability.runs import Watcher, contents, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.runs import Checkpoints, RunDirectory
from tying_env.runs.run_directory import SUMMARY

CONSTANT = {"schedule": "constant"}
# Of 10 steps the last 5 have falling rates; of 20, the last 10.
WSD = {"schedule": "wsd", "wsd_decay_share": 0.5}


def longer(config: RunConfig, total_steps: int) -> RunConfig:
    return dataclasses.replace(config, env=dataclasses.replace(config.env, total_steps=total_steps))


def without_trace(path: Path) -> dict[str, Any]:
    return {name: value for name, value in outcome(path).items() if name != "trace.txt"}


@pytest.fixture(scope="module")
def whole(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The longer run as it is when it is made in one go."""
    # The warm-up is a tenth of the length where nothing is said: it stays the shorter run's.
    tiny = BRIEF | {"dataset": str(text_folder)} | CONSTANT | {"total_steps": 20, "warmup_steps": 1}
    return finish(small(tiny, tmp_path_factory.mktemp("longer") / "whole"))


@pytest.mark.parametrize("agent", ["dqn", "albert"])
def test_a_finished_run_is_trained_on(agent: str, tiny: dict[str, Any], tmp_path: Path, whole: Path) -> None:
    if agent != "dqn":
        whole = finish(small(tiny | CONSTANT | {"total_steps": 20, "warmup_steps": 1}, tmp_path / "whole", agent))
    expected = without_trace(whole)
    config, watcher = small(tiny | CONSTANT, tmp_path / "run", agent), Watcher()
    path = finish(config)
    ended = (path / "trace.txt").read_text()
    assert resume(path, [watcher], longer(config, 20))[1] == "finished"
    assert watcher.notes[1] == "The run is made longer: 20 training steps."
    assert without_trace(path) == expected
    # The trace tells that the run had ended before, and is replayed as that of the longer run.
    trace = (whole / "trace.txt").read_text()
    assert (path / "trace.txt").read_text() == ended + trace.removeprefix(ended.removesuffix("end 10\n"))
    assert list(map(list, read_trace(path).tyings)) == list(map(list, read_trace(whole).tyings))
    with pytest.raises(RunIsOver, match="is finished"):
        resume(path, [watcher])


@pytest.mark.parametrize("schedule", [CONSTANT, WSD], ids=["constant", "wsd"])
def test_a_stopped_run_is_made_longer(schedule: dict[str, Any], tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | schedule | {"warmup_steps": 2}
    expected = outcome(finish(small(tiny | {"total_steps": 20}, tmp_path / "whole")))
    config = small(tiny, tmp_path / "run")
    assert run(config, [Watcher(lambda n: interrupt() if n == 3 else None)])[1] == "interrupted"
    stop = Watcher(lambda n: interrupt() if n == 6 else None)
    assert resume(tmp_path / "run", [stop], longer(config, 20))[1] == "interrupted"
    resume_until_it_ends(tmp_path / "run")  # its config.json has the new length
    assert outcome(tmp_path / "run") == expected


@pytest.mark.parametrize("moment", ["checkpoint", "config", "summary"])
def test_a_crash_leaves_the_shorter_run_or_the_longer_one(
    moment: str, tiny: dict[str, Any], tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = without_trace(whole)
    config = small(tiny | CONSTANT, tmp_path / "run", keep_checkpoints=1)
    path = finish(config)

    def crash(*given: Any, **named: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        if moment == "checkpoint":
            patched.setattr(Checkpoints, "_fill", crash)
        elif moment == "config":
            patched.setattr(RunDirectory, "write_json", crash)
        else:
            unlink = Path.unlink
            patched.setattr(
                Path, "unlink", lambda path, **named: crash() if path.name == SUMMARY else unlink(path, **named)
            )
        with pytest.raises(OSError, match="no space left"):
            resume(path, [Watcher()], longer(config, 20))
    if moment == "summary":  # it is the longer run already
        assert resume(path, [Watcher()])[1] == "finished"
    else:
        with pytest.raises(RunIsOver, match="is finished"):
            resume(path, [Watcher()])
        assert resume(path, [Watcher()], longer(config, 20))[1] == "finished"
    assert without_trace(path) == expected


def test_a_run_without_a_checkpoint_begins_anew_and_longer(tiny: dict[str, Any], tmp_path: Path, whole: Path) -> None:
    expected = outcome(whole)
    config = small(tiny | CONSTANT, tmp_path / "run", checkpoint_every=0)

    def die(decision: int) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run(config, [Watcher(die)])
    assert resume(tmp_path / "run", [Watcher()], longer(config, 20))[1] == "finished"
    assert outcome(tmp_path / "run") == expected


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], int, str]] = [
    (
        "cosine",
        {},
        {},
        12,
        r"total_steps is 6 there, 12 here: the cosine schedule .* To train its network on: .*--init",
    ),
    ("linear", {"schedule": "linear"}, {}, 12, "the linear schedule"),
    ("wsd", WSD, {}, 12, "the wsd schedule has lowered the learning rate since training step 3, and 6 are done"),
    ("shorter", CONSTANT, {}, 5, "total_steps is 6 there, 5 here: a run is not made shorter"),
    ("episodes", CONSTANT, {"episodes": 2}, 12, "its 2 episodes are all of one length"),
    ("sb3", CONSTANT, {"agent": "a2c"}, 12, "the agent a2c goes by the length of the run"),
    ("epsilon", CONSTANT, {"agent": "repaired-dqn"}, 12, "the agent repaired-dqn goes by the length of the run"),
    ("rule", CONSTANT, {"agent": "merge-alike"}, 12, "the agent merge-alike goes by the length of the run"),
    ("seldom", CONSTANT, {"agent": "change-little"}, 12, "the agent change-little goes by the length of the run"),
    (
        "search",
        CONSTANT,
        {"agent": "annealing"},
        12,
        "its controller, or a wrapper, looks ahead as long as the run has",
    ),
    ("settle", CONSTANT, {"wrappers": ("settle",)}, 12, "the wrapper settle goes by the share of the run"),
    ("cut", CONSTANT | {"k": 4}, {}, 12, "its last decision was cut short by the end of the run, to 2 of 4"),
    ("others", CONSTANT | {"learning_rate": 0.5}, {}, 12, "env.learning_rate is 0.5 there, 0.001 here"),
]


@pytest.mark.parametrize(("env", "more", "steps", "why"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_run_that_goes_by_its_length_says_so(
    env: dict[str, Any], more: dict[str, Any], steps: int, why: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config = small(tiny | {"total_steps": 6} | env, tmp_path / "run", **{"agent": "random"} | more)
    path = finish(config)
    before, asked = contents(path), longer(config, steps)
    if "learning_rate" in env:
        asked = dataclasses.replace(asked, env=dataclasses.replace(asked.env, learning_rate=0.001))
    with pytest.raises(OtherSettings, match=why):
        resume(path, [Watcher()], asked)
    assert contents(path) == before


# Some take settings of their own, or another environment.
NOT_ALONE = ("pattern", "replay", "shared-attention", "shared-feed-forward", "prior", "halving", "probe-then-tie")
AGENTS = [name for name in agent_names() if find_agent(name).kind == "controller" and name not in NOT_ALONE]


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_is_trained_on_as_if_it_had_been_so_long_or_says_why_not(
    agent: str, tiny: dict[str, Any], tmp_path: Path, full: bool
) -> None:
    if not full and agent not in ("layer-sweep-dqn", "evolution", "thompson", "tree-search"):
        pytest.skip("with --reliability")
    tiny = tiny | CONSTANT | {"total_steps": 12, "warmup_steps": 1}
    path = finish(config := small(tiny, tmp_path / "run", agent))
    try:
        assert resume(path, [Watcher()], longer(config, 24))[1] == "finished"
    except OtherSettings as error:
        assert re.search("goes by the length of the run|looks ahead", str(error))
    else:
        assert without_trace(path) == without_trace(
            finish(small(tiny | {"total_steps": 24}, tmp_path / "whole", agent))
        )


def test_an_end_in_the_midst_of_a_trace_is_followed_by_what_began_there(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    head = "# tying trace, 2 layers\nstart frozen\n5 0 0\n10 0 1\n"
    file.write_text(f"{head}end 15\n15 0 0\nend 20\n")
    assert [list(tying) for tying in read_trace(file).tyings] == [[0, 0], [0, 1], [0, 0]]
    file.write_text(f"{head}end 14\n15 0 0\nend 20\n")
    with pytest.raises(ValueError, match="line 5 is damaged: 'end 14' is not the last line, and what follows does not"):
        read_trace(file)
