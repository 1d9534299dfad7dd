"""What a stranger's controller returns is checked before it is used; a wrong answer is an error of its code."""

import math
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from tying_agents import Callback, Controller, drive
from tying_agents.foreign import WrongReturn
from tying_agents.foreign_wrappers import Checked
from tying_agents.running.agents import drive_agent

from tests.conftest import Make
from tests.own_code import CONTROLLER, REWARD, fails, layer_tying, small, write
from tying_env.plugins import ForeignCodeError
from tying_env.runs import RunDirectory
from tying_env.wrappers import ImprovementReward

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("np.zeros(3, dtype=int)", "of the shape (4,) from act(), got the shape (3,)"),
        ("np.zeros(4)", "got [0.0, 0.0, 0.0, 0.0] (float64)"),
        ("np.array([0, 0, 0, 4])", "one of MultiDiscrete([1 2 3 4]), got [0, 0, 0, 4] (int64)"),
        ("[0, 0, -1, 0]", "got [0, 0, -1, 0] (int64)"),
        ("None", "got the shape ()"),
        ("[[0], [0, 0]]", "got [[0], [0, 0]]: "),
        ("'zero'", "got the shape ()"),
    ],
)
def test_an_action_that_is_none_names_the_controller_and_what_was_expected(
    make: Make, tmp_path: Path, returned: str, message: str
) -> None:
    class Wrong(Controller):
        def act(self, observation: Any) -> Any:
            return eval(returned, {"np": np})

    with pytest.raises(WrongReturn) as caught:
        drive(Wrong(), make(), seed=0)
    assert f"the controller Wrong ({__file__}) must return whole numbers" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("method", "returned", "message"),
    [
        ("initial_tying", [0, 0, 1, 0], "must return None or a tying of the shape (4,) from initial_tying()"),
        ("initial_tying", [0, 0], "got [0, 0]"),
        ("metrics", {"reward": 1.0}, "none that a record has already, got 'reward'"),
        ("metrics", {"perplexity": 1.0}, "none that a record has already, got 'perplexity'"),
        ("metrics", {"own": "text"}, "must return numbers by name from metrics(), got own='text' (str)"),
        ("metrics", None, "must return numbers by name from metrics(), got None"),
        ("notes", "a text", "must return a list of sentences from notes(), got 'a text'"),
        ("notes", None, "must return a list of sentences from notes(), got None"),
        ("notes", [3], "must return a list of sentences from notes(), got [3]"),
    ],
)
def test_other_things_that_a_controller_returns_are_checked_too(
    make: Make, method: str, returned: Any, message: str
) -> None:
    class Wrong(Controller):
        def act(self, observation: Any) -> Any:
            return np.zeros(4, dtype=np.int64)

    setattr(Wrong, method, lambda self: returned)
    with pytest.raises(WrongReturn) as caught:
        drive(Wrong(), make(), seed=0)
    assert "the controller Wrong (" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{'paid': {1: 2.0}}", "as keys, got 1 in paid"),
        ("{'seen': [set()]}", "got seen[0]=set() (set)"),
        ("{'a/b': 1}", "must have texts without '/' as keys, got 'a/b'"),
        ("{'seen': np.array([None])}", "got seen=array([None], dtype=object) (ndarray)"),
        ("[1, 2]", "must return a dictionary from state_dict(), got [1, 2]"),
        ("None", "must return a dictionary from state_dict(), got None"),
    ],
)
def test_a_state_that_a_checkpoint_would_not_give_back_is_refused_before_the_run_begins(
    text_folder: Path, tmp_path: Path, capsys: Capture, state: str, message: str
) -> None:
    file = write(tmp_path, "mine.py", CONTROLLER.replace('return {"paid"', f'return {state}; {{"paid"'))
    path = tmp_path / "run"
    out = fails(capsys, "--agent", f"{file}:Mine", *small(text_folder), "--run-dir", path)
    assert message in out
    assert f"Mine ({file})" in out
    assert not path.exists()


class Still(Controller):
    """Ties all layers to the first."""

    def act(self, observation: Any) -> Any:
        return np.zeros(4, dtype=np.int64)


class Raises(Still):
    """Cannot say what it remembers."""

    def state_dict(self) -> Any:
        raise LookupError("on purpose")

    def load_state_dict(self, state: Any) -> None: ...


class OnlySaves(Still):
    """Has a state that nobody can give back to it."""

    def state_dict(self) -> Any:
        return {"seen": 1}


class OnlyLoads(Still):
    """Takes a state that it never gave."""

    def load_state_dict(self, state: Any) -> None: ...


class Inherits(Raises):
    """Has the other half from the class above."""

    def state_dict(self) -> Any:
        return {"seen": 1}


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("OnlySaves", TypeError, r"OnlySaves \(.*must have both .*, or neither: it lacks load_state_dict$"),
        ("OnlyLoads", TypeError, r"OnlyLoads \(.*must have both .*, or neither: it lacks state_dict$"),
        ("Raises", ForeignCodeError, r"Raises \(.* raised LookupError in state_dict\(\): on purpose"),
    ],
)
def test_a_controller_that_cannot_be_saved_is_refused_when_it_is_made(
    make: Make, kind: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        drive_agent(f"{__name__}:{kind}", make())
    assert drive_agent(f"{__name__}:Inherits", make()).decisions == 9


@pytest.mark.parametrize(
    ("needs", "error", "message"),
    [
        ("forks", TypeError, r"must be a set of names, such as .*, got 'forks'"),
        (None, TypeError, "must be a set of names, such as .*, got None"),
        ({"fork"}, ValueError, "needs 'fork'; known needs: forks, probes, gradients, gates, masks, sizes"),
    ],
)
def test_needs_that_are_none_are_refused(make: Make, needs: Any, error: type[Exception], message: str) -> None:
    class Needy(Still):
        pass

    Needy.needs = needs
    with pytest.raises(error, match=message):
        drive(Needy(), make(), seed=0)


class Around(gym.Wrapper[Any, Any, Any, Any]):
    """Puts something into the place of what comes out."""

    changes: ClassVar[dict[str, Any]] = {}

    def reset(self, **given: Any) -> Any:
        return self.changes.get("reset", self.env.reset(**given))

    def step(self, action: Any) -> Any:
        names = ("observation", "reward", "terminated", "truncated", "info")
        told = dict(zip(names, self.env.step(action), strict=True)) | self.changes
        return self.changes.get("step", tuple(told[name] for name in names))


WRONG = [
    ({"step": 1}, "(observation, reward, terminated, truncated, info) from step(), got 1"),
    ({"step": (0, 0.0, False, {})}, "(observation, reward, terminated, truncated, info) from step(), got (0, 0.0"),
    ({"reset": 3}, "(observation, info) from reset(), got 3"),
    ({"reset": ("x", {})}, "from reset() an observation in MultiDiscrete([1 2 3 4]), got 'x'"),
    ({"observation": "x"}, "from step() an observation in MultiDiscrete([1 2 3 4]), got 'x'"),
    ({"observation": None}, "from step() an observation in MultiDiscrete([1 2 3 4]), got None"),
    ({"reward": None}, "a finite number as the reward, got None (NoneType)"),
    ({"reward": "1"}, "a finite number as the reward, got '1' (str)"),
    ({"reward": math.nan}, "a finite number as the reward, got nan (float)"),
    ({"reward": -math.inf}, "a finite number as the reward, got -inf (float)"),
    ({"truncated": None}, "True or False as truncated, got None (NoneType)"),
    ({"info": {}}, "info as it is, or with more in it, from step(): it lacks 'tying'"),
    ({"info": None}, "info as it is, or with more in it, from step(), got None"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
@pytest.mark.parametrize("inside", [False, True])
def test_what_comes_out_of_a_wrapper_is_checked_and_names_it(
    make: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str, inside: bool
) -> None:
    monkeypatch.setattr(Around, "changes", changes)
    env: Any = Around(make())
    with pytest.raises(WrongReturn) as caught:
        drive(Still(), ImprovementReward(Checked(env)) if inside else env, seed=0)
    assert f"the wrapper Around ({__file__}) must return {message}" in str(caught.value)


def test_a_wrapper_that_is_right_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Around, "changes", {})
    kept: list[list[Any]] = [[], []]

    class Keeps(Callback):
        def __init__(self, into: list[Any]) -> None:
            self.into = into

        def decision_made(self, loop: Any, record: Any) -> None:
            self.into.append((record["reward"], record["tying"].tolist()))

    drive(Still(), make(), [Keeps(kept[0])], seed=0)
    drive(Still(), Around(make()), [Keeps(kept[1])], seed=0)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 9
    monkeypatch.setattr(Around, "changes", {"reward": np.float32(2.0)})
    assert drive(Still(), Around(make()), seed=0).decisions == 9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('return {"total": self.total,', 'return {"total": {1},', "must hold numbers, texts, lists, dictionaries"),
        ('return {"total": self.total,', 'raise LookupError; return {"total": 1,', "raised LookupError"),
        ("def load_state_dict", "def load", "must have both state_dict and load_state_dict, or neither"),
        ("def reward(self", "def reward(self, reward): return None\n\n    def other(self", "as the reward, got None"),
        (
            "def reward(self",
            "def step(self, action):\n        *told, info = self.env.step(action)\n"
            "        return *told, info | {'own': {1}}\n\n    def reward(self",
            "must put only numbers, texts, lists and dictionaries into info, got own={1}",
        ),
    ],
)
def test_a_wrapper_in_a_file_that_is_wrong_is_named_before_there_is_anything_to_lose(
    text_folder: Path, tmp_path: Path, capsys: Capture, old: str, new: str, message: str
) -> None:
    file, path = write(tmp_path, "reward.py", REWARD.replace(old, new)), tmp_path / "run"
    out = fails(
        capsys, "--agent", "random", "--rewards", f"{file}:AgainstTheMean", *small(text_folder), "--run-dir", path
    )
    assert message in out
    assert "AgainstTheMean" in out.partition("error:")[2]
    assert not (path / "metrics.jsonl").exists() or not (path / "metrics.jsonl").read_text()


def test_a_run_whose_controller_chose_wrongly_is_resumed_when_it_is_mended(
    text_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert issubclass(WrongReturn, ForeignCodeError)
    wrong = CONTROLLER.replace(
        "        return np.minimum(", "        if 0.0 not in self.paid[:2]: return [1]\n        return np.minimum("
    )
    file, path = write(tmp_path, "mine.py", wrong), tmp_path / "run"
    options = [*small(text_folder), "--checkpoint-every", "1", "--curiosity", "1", "--run-dir", path]
    out = fails(capsys, "--agent", f"{file}:Mine", *options)
    assert (
        f"the controller Mine ({file}) must return whole numbers of the shape (4,) from act(), got the shape (1,)"
        in out
    )
    assert f"resume with: layer-tying run --resume {path} --agent {file}:Mine" in out
    assert 0 < len(RunDirectory.open(path).read_metrics()) < 9
    write(tmp_path, "mine.py", CONTROLLER)
    code, out = layer_tying(capsys, "run", "--resume", path, "--agent", f"{file}:Mine")
    assert code == 0, out
    assert len(RunDirectory.open(path).read_metrics()) == 9
