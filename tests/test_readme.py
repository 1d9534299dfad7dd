"""Every command and every example of the README runs, at a size that takes seconds."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from tying_agents.callbacks import Callback
from tying_agents.commands import COMMANDS as COMMAND_MODULES
from tying_agents.commands import ablations
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.command_line import called
from tests.reliability.runs import Watcher, interrupt
from tying_env import EnvConfig
from tying_env.reports import html

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STARTED = (ROOT / "docs" / "getting_started.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README + STARTED, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


def test_the_readme_has_examples_and_commands() -> None:
    assert len(PYTHON_BLOCKS) >= 2
    assert sum(command.startswith("python scripts/") for command in COMMANDS) >= 3
    assert sum(command.startswith("layer-tying ") for command in COMMANDS) >= 3
    assert 'gym.make("tying_env:LayerTying-GPT2-v0")' in README


@pytest.mark.parametrize("code", PYTHON_BLOCKS)
def test_python_examples_run(code: str, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shortened = code.replace("total_timesteps=60", "total_timesteps=20")
    monkeypatch.setattr(gym.spec("LayerTying-GPT2-v0"), "kwargs", tiny | {"total_steps": 30})
    exec(compile(shortened, "README.md", "exec"), {})
    assert capsys.readouterr().out


def make_run(text_folder: Path, folder: Path, *callbacks: Callback) -> None:
    small = {"n_layer": 3, "n_embd": 16, "n_head": 2, "seq_len": 16, "batch_size": 2, "k": 1, "total_steps": 5}
    env = EnvConfig(tokenizer="bytes", dataset=str(text_folder), **small)  # type: ignore[arg-type]
    run(RunConfig("random", run_dir=folder, env=env, test_windows=2), callbacks)


def stop_run(text_folder: Path, folder: Path) -> None:
    """Leave a run that was stopped at its second decision."""
    make_run(text_folder, folder, Watcher(lambda decision: interrupt() if decision == 2 else None))


# These start an interpreter, a script's help and a run; the others are called in this one, which is quicker.
STARTED = (
    next(command for command in COMMANDS if command.startswith("python scripts/run_agent.py --help")),
    next(command for command in COMMANDS if command.startswith("layer-tying run")),
)

# The installed command -> the script that does the same.
SCRIPTS = {name: f"scripts/{'run_agent' if name == 'run' else name}.py" for name in COMMAND_MODULES}
del SCRIPTS["completion"]  # there is nothing to complete for scripts


def as_script(command: str) -> list[str]:
    words = shlex.split(command)
    return ["python", SCRIPTS[words[1]], *words[2:]] if words[0] == "layer-tying" else words


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = "--n-layer 3 --n-embd 16 --n-head 2 --seq-len 16 --batch-size 2 --total-steps 5"
    small += " --validation-windows 4 --test-windows 2"
    words, installed = as_script(command), command.startswith("layer-tying ")
    before = [as_script(each) for each in COMMANDS[: COMMANDS.index(command)]]
    if words in before and command not in STARTED:
        return  # the command and its script are one, and it has run already
    script, options = words[1], words[2:]
    if words[0] == "make":
        arguments = [*words, "-n", "-C", str(ROOT)]  # what it would run; the scripts themselves are run above
    elif words[0] == "tensorboard":
        arguments = [str(Path(sys.executable).parent / "tensorboard"), *words[1:], "--inspect"]
        (tmp_path / "runs").mkdir()
    elif words[0] == "source":
        assert (ROOT / script).exists() or not (ROOT / ".venv").exists()
        return
    elif script == "scripts/run_agent.py" and "--resume" in options:
        stop_run(text_folder, tmp_path / options[-1])
    elif script == "scripts/run_agent.py":
        options = ["--tokenizer", "bytes", *options, *small.split(), "--dataset", str(text_folder), "--run-dir", "run"]
    elif script in ("scripts/evaluate.py", "scripts/generate.py"):
        make_run(text_folder, tmp_path / options[0])
        options += ["--tokens", "2", "--prompt", "The"] if script == "scripts/generate.py" else []
    elif script in ("scripts/compare.py", "scripts/ablations.py"):
        options += f"{small} --tokenizer bytes --dataset {text_folder} --seeds 2 --jobs 1".split()
    elif script == "scripts/report.py":
        make_run(text_folder, tmp_path / "runs" / "one")
    else:
        pytest.fail(f"nobody checks {command!r}")
    if words[0] == "python" and command not in STARTED:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(html, "run_pictures", lambda *_: [])  # tests/test_reports_page.py has them
        name = next(name for name, path in SCRIPTS.items() if path == script)
        if name == "ablations":  # its 28 runs are made in test_comparison_scripts.py
            monkeypatch.setattr(ablations, "make_and_report", lambda arms, *given: 0 if len(arms) == 14 else 1)
        done = called(name, *options, columns=100, prog=None if installed else script)
    else:
        if words[0] == "python":
            module = ["-m", "tying_env", shlex.split(command)[1]]
            arguments = [sys.executable, *(module if installed else [str(ROOT / script)]), *options]
        path = os.pathsep.join([str(ROOT), str(ROOT / "agents"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = os.environ | {"COLUMNS": "100", "PYTHONPATH": path}
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--help" not in options or "--group-lr" in done.stdout
    if words[0] == "make" and "ARGS" in command:
        assert words[-1].removeprefix("ARGS=") in done.stdout


def test_every_command_stands_beside_its_script() -> None:
    for name, script in SCRIPTS.items():
        assert f"| `layer-tying {name}` | `python {script}` |" in README
        assert (ROOT / script).is_file()


def test_no_placeholder_is_left() -> None:
    assert "@@" not in README
    assert "best validation perplexity" in README  # what a run prints


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_no_line_is_a_word_to_be_filled_in(page: Path) -> None:
    lines = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
    assert [line for line in lines if re.fullmatch(r"\s*[A-Z][A-Z_]+\s*", line)] == []


TREE = README.split("## What is where")[1].split("```")[1]


@pytest.mark.parametrize("folder", ["tying_env", "agents/tying_agents", "scripts"])
def test_the_tree_has_everything(folder: str) -> None:
    _, inside = TREE.split(f"\n{folder}/ ")
    listed = {line.split()[0] for line in re.split(r"\n(?=\S)", inside)[0].splitlines()[1:]}
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / folder).glob("[!_.]*")}
    assert listed == there - {"py.typed"}


def test_paths_in_the_tree_exist() -> None:
    tree = TREE
    folder = Path()
    for line in tree.strip("\n").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = Path(name)
            assert (ROOT / folder).is_dir(), name
        else:
            assert (ROOT / folder / name).exists(), name
