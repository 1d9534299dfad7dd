"""A stranger's code fails: the error says whose it is, the run's checkpoint stays, and the mended code resumes it."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tying_agents import Controller, drive

from tests.conftest import Make
from tests.own_code import CALLBACK, CONTROLLER, REWARD, fails, layer_tying, small, write
from tests.reliability.runs import outcome
from tying_env.plugins import ForeignCodeError
from tying_env.runs import RunDirectory

Capture = pytest.CaptureFixture[str]

# Where the code fails -> what is changed in it: `old -> new`; the line that raises says so itself.
RAISES = {
    "act": ("        curious =", "        raise LookupError('on purpose')\n        curious ="),
    "update": ("        self.paid[int(", "        raise LookupError('on purpose')\n        self.paid[int("),
    "metrics": ('        return {"pat', "        raise LookupError('on purpose')\n        return {\"pat"),
    "begin": ("    def act(", "    def begin(self):\n        raise LookupError('on purpose')\n\n    def act("),
    "notes": ("    def act(", "    def notes(self):\n        raise LookupError('on purpose')\n\n    def act("),
    "initial_tying": (
        "    def act(",
        "    def initial_tying(self):\n        raise LookupError('on purpose')\n\n    def act(",
    ),
    "state_dict": ('        return {"paid', "        raise LookupError('on purpose')\n        return {\"paid"),
}


@pytest.mark.parametrize("method", RAISES)
def test_a_controller_that_raises_is_named_with_its_file_and_line(
    text_folder: Path, tmp_path: Path, capsys: Capture, method: str
) -> None:
    file = write(tmp_path, "memory_of_mine.py", CONTROLLER.replace(*RAISES[method]))
    line = file.read_text().splitlines().index("        raise LookupError('on purpose')") + 1
    out = fails(
        capsys, "--agent", f"{file}:Mine", *small(text_folder), "--run-dir", tmp_path / "run", "--checkpoint-every", "2"
    )
    assert f"error: the controller Mine ({file}) raised LookupError in {method}(): on purpose" in out
    assert f'File "{file}", line {line}, in {method} raise LookupError' in out
    assert "agents/tying_agents" not in out.partition("Traceback")[2], "the traceback begins in the user's code"


@pytest.mark.parametrize(
    ("where", "old", "new", "message"),
    [
        (
            "in its file",
            "from dataclasses",
            "1 / 0\nfrom dataclasses",
            "raised ZeroDivisionError while it was imported",
        ),
        ("in its grammar", "class Mine", "class class Mine", "raised SyntaxError while it was imported"),
        (
            "in its constructor",
            "        self.paid = [0.0]",
            "        raise SystemExit(0)\n        self.paid = [0.0]",
            "raised SystemExit while the controller was made",
        ),
    ],
)
def test_a_controller_that_cannot_be_made_leaves_nothing(
    text_folder: Path, tmp_path: Path, capsys: Capture, where: str, old: str, new: str, message: str
) -> None:
    file = write(tmp_path, "mine.py", CONTROLLER.replace(old, new, 1))
    out = fails(capsys, "--agent", f"{file}:Mine", *small(text_folder), "--run-dir", tmp_path / "run")
    assert f"error: {file}:Mine {message}" in out, where
    assert f'File "{file}", line' in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("absent.py:Mine", "absent.py:Mine: there is no file"),
        ("absent_module_of_doors:Mine", "there is no module 'absent_module_of_doors'"),
        ("mine.py:Min", "mine.py has no 'Min', expected a Controller class"),
        ("mine.py:np", "must be a Controller class"),
        ("settings.py:make", "the agent 'settings.py:make' must make a Controller, got int"),
        ("mine.py", "got 'mine.py'; name the class too: mine.py:MyController"),
        ("mine.py:", "got 'mine.py:'; name the class too: mine.py:MyController"),
        ("mine.py:Mine:x", "got 'mine.py:Mine:x'; name one class, behind one colon: mine.py:Mine"),
        ("mine.py:Mine.Settings", "name one class, behind one colon: mine.py:Mine"),
        ("settings.py:Plain", "the class Plain, which is neither a tying_agents.Controller nor an algorithm of Stable"),
        ("settings.py:Bare", "the setting 'width' of the agent 'settings.py:Bare' must have a default"),
        ("settings.py:Loose", "the Settings of the agent 'settings.py:Loose' must be a dataclass"),
    ],
)
def test_what_is_no_controller_is_refused_with_nothing_written(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "mine.py", CONTROLLER)
    settings = (
        "from dataclasses import dataclass\nfrom tying_agents import Controller\n\nclass Plain:\n    pass\n\n"
        "class Bare(Controller):\n    @dataclass\n    class Settings:\n        width: int\n\n"
        "class Loose(Controller):\n    class Settings:\n        width = 3\n\n"
        "def make(settings, context):\n    return 3\n"
    )
    write(tmp_path, "settings.py", settings)
    out = fails(capsys, "--agent", spec, *small(text_folder), "--run-dir", "run")
    assert message in out
    assert not (tmp_path / "run").exists()


def failing(source: str, before: str, condition: str) -> str:
    """Return the source with an error before a line of it, under a condition."""
    indent = " " * (len(before) - len(before.lstrip()))
    return source.replace(before, f"{indent}if {condition}:\n{indent}    raise LookupError('on purpose')\n{before}", 1)


@pytest.mark.parametrize(
    ("name", "before", "condition", "message"),
    [
        (
            "mine.py",
            "        self.paid[int(",
            "self.__dict__.setdefault('seen', []).append(0) or len(self.seen) == 5",
            "in update()",
        ),
        ("reward.py", "        self.total, self.count = self.total +", "self.count == 4", "the wrapper AgainstTheMean"),
        ("own_callback.py", '        if record["decision"] == 4', 'record["decision"] == 5', "in decision_made()"),
    ],
)
def test_a_run_whose_foreign_code_failed_keeps_its_checkpoint_and_is_resumed_when_the_code_is_mended(
    text_folder: Path, tmp_path: Path, capsys: Capture, name: str, before: str, condition: str, message: str
) -> None:
    quiet = CALLBACK.replace("== 4", "== -1")
    sources = {"mine.py": CONTROLLER, "reward.py": REWARD, "own_callback.py": quiet}
    files = {each: write(tmp_path, each, source) for each, source in sources.items()}
    own = ["--agent", f"{files['mine.py']}:Mine", "--rewards", f"{files['reward.py']}:AgainstTheMean"]
    own += ["--callbacks", f"{files['own_callback.py']}:StopAtFour"]
    common = [*small(text_folder), *own, "--checkpoint-every", "1"]
    assert layer_tying(capsys, "run", *common, "--run-dir", tmp_path / "whole")[0] == 0
    write(tmp_path, name, failing(sources[name], before.replace("== 4", "== -1"), condition))
    path = tmp_path / "run"
    out = fails(capsys, *common, "--run-dir", path)
    assert f"{name}" in out.partition("error:")[2]
    assert message in out
    assert f'File "{files[name]}", line' in out
    resume = f"layer-tying run --resume {path} {' '.join(own)}"
    assert f"resume with: {resume}" in out
    assert not (path / "summary.json").exists()
    decisions = len(RunDirectory.open(path).read_metrics())
    assert 0 < decisions < 9
    write(tmp_path, name, sources[name])
    code, out = layer_tying(capsys, *resume.split()[1:])
    assert code == 0, out
    assert "Resuming from" in out
    assert f"{files[name]} has changed since this run began (sha256 " in out
    assert "results may differ from what they would have been" in out
    assert outcome(path) == outcome(tmp_path / "whole")


ALGORITHM = """
import policy_of_mine
from stable_baselines3 import PPO


class Mine(PPO):
    policy_aliases = {**PPO.policy_aliases, "MlpPolicy": policy_of_mine.Policy}
"""
POLICY = """
from stable_baselines3.common.policies import ActorCriticPolicy


class Policy(ActorCriticPolicy):
    asked = 0

    def forward(self, *observation, **options):
        self.asked += 1
        return super().forward(*observation, **options)
"""


@pytest.mark.parametrize("where", ["in its policy", "as it is made"])
def test_an_algorithm_of_sb3_that_raises_is_named_and_its_run_kept(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "policy_of_mine", raising=False)
    early = "\n    def __init__(self, *given, **settings):\n        raise LookupError('on purpose')\n"
    write(tmp_path, "policy_of_mine.py", failing(POLICY, "        return super()", "self.asked == 4"))
    file = write(tmp_path, "algorithm.py", ALGORITHM + (early if where == "as it is made" else ""))
    path = tmp_path / "run"
    options = [*small(text_folder), "--checkpoint-every", "1", "--run-dir", path]
    out = fails(capsys, "--agent", f"{file}:Mine", *options)
    assert f"error: the algorithm Mine ({file}) raised LookupError: on purpose" in out
    if where == "as it is made":
        assert f'File "{file}", line' in out
        assert not path.exists()
        return
    assert f'File "{tmp_path}/policy_of_mine.py", line' in out
    assert f"resume with: layer-tying run --resume {path} --agent {file}:Mine" in out
    assert len(RunDirectory.open(path).read_metrics()) == 3
    assert [each.name for each in sorted((path / "checkpoints").iterdir())][-1] == "000003"


@pytest.mark.parametrize("moment", ["run_begins", "episode_begins", "validation_measured", "decision_made", "run_ends"])
def test_a_callback_that_raises_names_itself_and_the_moment(
    text_folder: Path, tmp_path: Path, capsys: Capture, moment: str
) -> None:
    source = CALLBACK.replace("decision_made", moment).replace("loop, record", "*told")
    file = write(
        tmp_path, "own.py", source.partition('        if record["d')[0] + "        raise OSError('on purpose')\n"
    )
    spec = f"{file}:StopAtFour"
    out = fails(capsys, "--agent", "random", "--callbacks", spec, *small(text_folder), "--run-dir", tmp_path / "run")
    assert f"error: {spec} raised OSError in {moment}(): on purpose" in out
    assert f'File "{file}", line' in out


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "    def __init__(self):\n        raise OSError('on purpose')\n",
            "raised OSError while the callback was made",
        ),
        ("    def __new__(cls):\n        return 3\n", "must make a tying_agents.Callback: a class that is called"),
        ("    def __init__(self, what):\n        pass\n", "raised TypeError while the callback was made"),
    ],
)
def test_a_callback_that_cannot_be_made_is_refused_with_nothing_written(
    text_folder: Path, tmp_path: Path, capsys: Capture, body: str, message: str
) -> None:
    file = write(tmp_path, "own.py", f"from tying_agents import Callback\n\n\nclass Own(Callback):\n{body}")
    options = ["--callbacks", f"{file}:Own", *small(text_folder), "--run-dir", tmp_path / "run"]
    out = fails(capsys, "--agent", "random", *options)
    assert f"{file}:Own {message}" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("moment", ["run_begins", "episode_begins", "decision_made"])
def test_a_run_that_a_callback_stops_at_any_moment_has_a_summary_and_a_checkpoint(
    text_folder: Path, tmp_path: Path, capsys: Capture, moment: str
) -> None:
    source = CALLBACK.replace("decision_made", moment).replace("loop, record", "loop, *told")
    body = source.partition('        if record["d')[0] + "        loop.stop('at once')\n"
    file = write(tmp_path, "own.py", body)
    path = tmp_path / "run"
    code, out = layer_tying(
        capsys, "run", "--agent", "dqn", "--callbacks", f"{file}:StopAtFour", *small(text_folder), "--run-dir", path
    )
    assert code == 0, out
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["stop_reason"], summary["decisions"]) == ("stopped", "at once", 1)
    assert layer_tying(capsys, "run", "--resume", path, "--callbacks")[0] == 0
    assert json.loads((path / "summary.json").read_text())["decisions"] == 9


def test_what_the_environment_raises_is_not_blamed_on_a_wrapper_around_it(make: Make) -> None:
    class Around(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            return self.env.step(action)

    class Still(Controller):
        def act(self, observation: Any) -> Any:
            return np.zeros(4, dtype=np.int64)

        def bad_update(self, transition: Any) -> None:
            raise KeyError("own")

    env = Around(make())
    inner: Any = env.unwrapped

    env.reset(seed=0)
    inner.should_stop = functools.partial(int, "no number")  # raises in the environment's own code
    with pytest.raises(ValueError, match="no number"):
        drive(Still(), env, seed=0)
    Still.update = Still.bad_update  # type: ignore[method-assign]
    with pytest.raises(
        ForeignCodeError, match=r"the controller Still \(.*test_foreign_code\.py\) raised KeyError in upd"
    ):
        drive(Still(), make(), seed=0)
