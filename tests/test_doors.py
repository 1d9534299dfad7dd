"""Code from outside comes in by its import string or as an installed package: controllers, rewards, callbacks, SB3."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.own_code import CALLBACK, CONTROLLER, REWARD, forget, layer_tying, marking, small, write
from tests.reliability.runs import outcome
from tying_env.env import LayerTyingEnv
from tying_env.runs import RunDirectory

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let help texts and tables have room."""
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is no part of the package, with a user's files in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, source in (("mine.py", CONTROLLER), ("reward.py", REWARD), ("stopping.py", CALLBACK)):
        write(folder, name, source)
    return folder


def about(path: Path) -> dict[str, Any]:
    return RunDirectory.open(path).read_json("config.json")


def test_a_run_with_a_controller_a_reward_and_a_callback_in_files_is_resumed_to_the_same_bits(
    text_folder: Path, tmp_path: Path, outside: Path, capsys: Capture
) -> None:
    own = ["--agent", f"{outside}/mine.py:Mine", "--rewards", "log-perplexity", f"{outside}/reward.py:AgainstTheMean"]
    stopping = ["--callbacks", f"{outside}/stopping.py:StopAtFour"]
    common = [*small(text_folder), "--checkpoint-every", "3", "--curiosity", "0.7", *own]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert layer_tying(capsys, "run", *common, "--run-dir", whole)[0] == 0
    code, out = layer_tying(capsys, "run", *common, *stopping, "--run-dir", parts)
    assert code == 0, "a callback that stops a run has had its way"
    assert "stopped: four are enough" in out
    resume = f"resume with: layer-tying run --resume {parts} {' '.join([*own, *stopping])}"
    assert resume in out
    summary = RunDirectory.open(parts).read_json("summary.json")
    assert (summary["status"], summary["stop_reason"], summary["decisions"]) == ("stopped", "four are enough", 4)
    forget()  # as in another process
    code, out = layer_tying(capsys, "run", *resume.split()[4:])
    assert code == 0, out
    assert "Resuming from" in out
    assert "has changed since" not in out, "it has not changed"
    assert outcome(parts) == outcome(whole)
    state = outcome(parts)["state"]
    assert [each["wrapper"] for each in state["wrappers"]] == ["AgainstTheMean"]
    assert state["wrappers"][0]["count"] == 9
    assert about(parts)["controller"] == {"curiosity": 0.7, "patience": 2}
    assert sorted(about(parts)["code"]) == sorted([own[1], own[4], stopping[1]])


def test_callbacks_can_be_left_out_when_a_run_is_resumed(
    text_folder: Path, tmp_path: Path, outside: Path, capsys: Capture
) -> None:
    path, marker = tmp_path / "run", tmp_path / "marker"
    spec = f"{outside}/stopping.py:StopAtFour"
    run = [*small(text_folder), "--agent", "random", "--callbacks", spec, "--run-dir", path]
    assert layer_tying(capsys, "run", *run)[0] == 0
    write(outside, "stopping.py", marking(marker, CALLBACK))
    code, out = layer_tying(capsys, "run", "--resume", path)
    assert code == 1
    assert f"add --callbacks {spec}, or --callbacks alone to do without" in out
    code, out = layer_tying(capsys, "run", "--resume", path, "--callbacks")
    assert code == 0, out
    assert RunDirectory.open(path).read_json("summary.json")["status"] == "finished"
    assert not marker.exists()


def test_settings_of_a_controller_in_a_file_are_options_that_help_shows_and_a_run_applies(
    text_folder: Path, tmp_path: Path, outside: Path, capsys: Capture
) -> None:
    agent = ["--agent", f"{outside}/mine.py:Mine"]
    code, out = layer_tying(capsys, "run", *agent, "--help")
    assert code == 0
    plain = " ".join(out.replace("│", " ").split())
    assert "--curiosity FLOAT Probability of trying a layer. (default: 0.5)" in plain
    assert "--patience INT (default: 2)" in plain
    assert "--hidden-units" not in plain, "which is an option of the DQN"
    options = [*small(text_folder), *agent, "--patience", "5", "--run-dir", tmp_path / "run"]
    assert layer_tying(capsys, "run", *options)[0] == 0
    assert {record["patience_given"] for record in RunDirectory.open(tmp_path / "run").read_metrics()} == {5}
    code, out = layer_tying(capsys, "run", *options, "--hidden-units", "3")
    assert code == 1
    assert "--hidden-units is an option of dqn" in out


@pytest.mark.parametrize("name", ["seed", "n_layer", "resume", "print_config", "help"])
def test_a_setting_that_has_the_name_of_another_option_is_refused_by_name(
    outside: Path, capsys: Capture, name: str
) -> None:
    file = write(outside, "mine.py", CONTROLLER.replace("patience: int", f"{name}: int"))
    code, out = layer_tying(capsys, "run", "--agent", f"{file}:Mine", "--help")
    assert code == 1
    assert f"the setting {name!r} of the agent '{file}:Mine' has the name of another option" in out
    assert f"own_{name}" in out
    code, out = layer_tying(capsys, "compare", "--agents", f"{file}:Mine", "--help")
    assert code == (1 if name in ("seed", "n_layer", "help") else 0), out


def test_agents_in_files_are_compared_by_workers_each_with_settings_of_its_own_class(
    text_folder: Path, tmp_path: Path, outside: Path, capsys: Capture
) -> None:
    other = CONTROLLER.replace("Mine", "Other").replace("curiosity", "boldness").replace("patience", "calm")
    write(outside, "other.py", other)  # both call their settings' class Settings
    agents = [f"{outside}/mine.py:Mine", f"{outside}/other.py:Other", "random"]
    folder = tmp_path / "comparison"
    options = ["--agents", *agents, "--curiosity", "0.25", "--boldness", "0.75", "--seeds", "1", "--jobs", "2"]
    rewards = ["--rewards", f"{outside}/reward.py:AgainstTheMean"]
    arm = f"calm: --agent {outside}/other.py:Other --calm 9"
    code, out = layer_tying(capsys, "compare", *options, "--arms", arm, *rewards, *small(text_folder), "--out", folder)
    assert code == 0, out
    assert about(folder / "runs/Mine/seed0")["controller"] == {"curiosity": 0.25, "patience": 2}
    assert about(folder / "runs/Other/seed0")["controller"] == {"boldness": 0.75, "calm": 2}
    assert about(folder / "runs/calm/seed0")["controller"] == {"boldness": 0.75, "calm": 9}
    assert (folder / "report.html").exists()
    write(outside, "other.py", other.replace("return np.minimum", "1 / 0; return np.minimum"))
    code, out = layer_tying(
        capsys, "compare", "--agents", agents[1], "--seeds", "2", *rewards, *small(text_folder), "--out", tmp_path / "b"
    )
    assert code == 1
    assert "ZeroDivisionError in act()" in out
    assert out.count("Traceback") == 1, "the user's, without the worker's"
    assert 'other.py", line' in out
    assert "joblib" not in out


def test_a_controller_in_a_module_is_named_by_its_module(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_package_of_doors"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helpers.py").write_text("CURIOSITY = 0.125\n")
    source = (
        f"from own_package_of_doors.helpers import CURIOSITY\n{CONTROLLER.replace('float = 0.5', 'float = CURIOSITY')}"
    )
    (package / "controllers.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    agent = "own_package_of_doors.controllers:Mine"
    code, out = layer_tying(capsys, "run", "--agent", agent, *small(text_folder), "--run-dir", tmp_path / "run")
    assert code == 0, out
    assert about(tmp_path / "run")["controller"]["curiosity"] == 0.125
    assert list(about(tmp_path / "run")["code"]) == [agent]


def test_an_installed_package_names_its_agents_in_an_entry_point(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "doors_plugin.py").write_text(CONTROLLER)
    info = tmp_path / "doors_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doors-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[layer_tying.agents]\nfrom-a-package = doors_plugin:Mine\n")
    assert layer_tying(capsys, "run", "--agent", "from-a-package")[0] == 1, "before it is installed"
    monkeypatch.syspath_prepend(tmp_path)
    code, out = layer_tying(capsys, "run", "--help")
    assert "from-a-package" in out
    assert "doors_plugin" not in sys.modules, "a name is no reason to import it"
    path = tmp_path / "run"
    options = ["--agent", "from-a-package", "--patience", "4", *small(text_folder), "--run-dir", path]
    code, out = layer_tying(capsys, "run", *options)
    assert code == 0, out
    assert about(path)["controller"]["patience"] == 4
    assert list(about(path)["code"]) == ["doors_plugin:Mine"]
    code, out = layer_tying(capsys, "run", "--agent", "from-a-packag")
    assert "did you mean 'from-a-package'?" in out


@pytest.mark.parametrize("agent", ["sb3_contrib:TRPO", "stable_baselines3:PPO"])
def test_an_algorithm_of_stable_baselines3_comes_in_by_its_import_string(
    text_folder: Path, tmp_path: Path, capsys: Capture, agent: str
) -> None:
    path = tmp_path / "run"
    code, out = layer_tying(
        capsys, "run", "--agent", agent, "--sb3-n-steps", "4", *small(text_folder), "--run-dir", path
    )
    assert code == 0, out
    assert about(path)["agent"] == agent
    assert about(path)["controller"]["sb3_n_steps"] == 4
    assert len(RunDirectory.open(path).read_metrics()) == 9


def test_an_algorithm_that_takes_no_discrete_actions_is_refused_by_name_before_anything_is_written(
    text_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    options = ["--agent", "stable_baselines3:SAC", *small(text_folder), "--run-dir", tmp_path / "run"]
    code, out = layer_tying(capsys, "run", *options)
    assert code == 1
    assert "the agent 'stable_baselines3:SAC' does not take the actions" in out
    assert not (tmp_path / "run").exists()


def test_what_a_controller_needs_and_the_environment_lacks_is_refused_before_anything_is_written(
    text_folder: Path, tmp_path: Path, outside: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = CONTROLLER.replace("    def __init__", '    needs = frozenset({"forks"})\n\n    def __init__')
    file = write(outside, "mine.py", source)
    options = ["--agent", f"{file}:Mine", *small(text_folder), "--run-dir", tmp_path / "run"]
    owner = next(kind for kind in LayerTyingEnv.__mro__ if "fork" in vars(kind))
    with monkeypatch.context() as patch:
        patch.delattr(owner, "fork")
        code, out = layer_tying(capsys, "run", *options)
    assert code == 1
    assert "Mine needs forks, which this environment does not offer: LayerTyingEnv has no fork()" in out
    assert not (tmp_path / "run").exists()
    write(outside, "mine.py", source.replace('"forks"', '"wings"'))
    code, out = layer_tying(capsys, "run", *options)
    assert code == 1
    assert "needs 'wings'; known needs: forks, probes, gradients, gates, masks, sizes" in out


def test_the_readmes_controller_is_an_agent_and_one_that_cannot_choose_is_refused(
    tmp_path: Path, capsys: Capture, text_folder: Path
) -> None:
    source = textwrap.dedent(
        """
        from tying_agents import Controller

        class KeepEverything(Controller):
            def act(self, observation):
                return observation

        class Nothing(Controller):
            pass
        """
    )
    file = write(tmp_path, "keep.py", source)
    code, out = layer_tying(
        capsys, "run", "--agent", f"{file}:KeepEverything", *small(text_folder), "--run-dir", tmp_path / "run"
    )
    assert code == 0, out
    code, out = layer_tying(capsys, "run", "--agent", f"{file}:Nothing", "--print-config")
    assert code == 1
    assert "cannot choose: the class Nothing has no act()" in out
