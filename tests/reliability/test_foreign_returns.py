"""What a stranger's controller returns is checked before it is used; a wrong answer is an error of its code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents import Controller, drive
from tying_agents.foreign import WrongReturn

from tests.conftest import Make
from tests.own_code import CONTROLLER, fails, layer_tying, small, write
from tying_env.plugins import ForeignCodeError
from tying_env.runs import RunDirectory

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
        ("{'paid': {1: 2.0}}", "must have texts as keys, got 1 in paid"),
        ("{'seen': [set()]}", "got seen[0]=set() (set)"),
        ("[1, 2]", "must return a dictionary from state_dict(), got [1, 2]"),
    ],
)
def test_a_state_that_a_checkpoint_would_not_give_back_is_refused(
    text_folder: Path, tmp_path: Path, capsys: Capture, state: str, message: str
) -> None:
    file = write(tmp_path, "mine.py", CONTROLLER.replace('return {"paid"', f'return {state}; {{"paid"'))
    path = tmp_path / "run"
    out = fails(capsys, "--agent", f"{file}:Mine", *small(text_folder), "--run-dir", path, "--checkpoint-every", "2")
    assert message in out
    assert f"Mine ({file})" in out


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
