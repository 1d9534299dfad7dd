"""A file never makes code run, whatever it names; and what a command refuses, it refuses at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.own_code import CALLBACK, CONTROLLER, forget, layer_tying, marking, small, write
from tests.run_folders import change, make_run
from tying_env.plugins import same_object
from tying_env.runs import RunDirectory

Capture = pytest.CaptureFixture[str]


def test_a_configuration_file_that_names_code_is_read_only_beside_the_same_import_string(
    tmp_path: Path, capsys: Capture
) -> None:
    marker = tmp_path / "marker"
    file = write(tmp_path, "mine.py", marking(marker, CONTROLLER))
    spec = f"{file}:Mine"
    toml, plain = tmp_path / "run.toml", tmp_path / "config.json"
    toml.write_text(f'agent = "{spec}"\n\n[controller]\ncuriosity = 0.25\n')
    plain.write_text(json.dumps({"agent": spec, "controller": {"curiosity": 0.25}}))
    for path in (toml, plain):
        code, out = layer_tying(capsys, "run", "--config", path, "--print-config")
        assert code == 1
        assert f"agent is '{spec}', code of your own, and a file never makes code run: add --agent {spec}" in out
        # Another agent overrules the file's, whose code is not run then.
        code, out = layer_tying(capsys, "run", "--config", path, "--agent", "cycle", "--print-config")
        assert code == 0, out
        assert 'agent = "cycle"' in out
        assert not marker.exists()
    for path in (toml, plain):
        code, out = layer_tying(capsys, "run", "--config", path, "--agent", spec, "--print-config")
        assert code == 0, out
        assert "curiosity = 0.25" in out
    assert marker.exists()


@pytest.mark.parametrize("option", ["agent", "rewards", "wrappers", "callbacks", "model"])
def test_a_run_directory_makes_no_code_run_that_its_resumer_has_not_named(
    tmp_path: Path, capsys: Capture, option: str
) -> None:
    marker = tmp_path / "marker"
    file = write(tmp_path, "evil.py", marking(marker))
    spec, path = f"{file}:Thing", tmp_path / "run"
    value: Any = spec if option in ("agent", "model") else [spec]
    plain = {"agent": "random", "seed": 0, "env": {}, "controller": {}}
    RunDirectory.create(path, plain | ({"env": {"model": value}} if option == "model" else {option: value}))
    code, out = layer_tying(capsys, "run", "--resume", path)
    assert code == 1
    assert f"a file never makes code run: add --{option} {spec}" in out
    assert not marker.exists()


@pytest.mark.parametrize("option", ["rewards", "wrappers", "callbacks"])
def test_code_hidden_in_a_table_of_a_file_is_not_run(tmp_path: Path, capsys: Capture, option: str) -> None:
    marker = tmp_path / "marker"
    spec = f"{write(tmp_path, 'evil.py', marking(marker))}:Thing"
    (tmp_path / "run.toml").write_text(f'{option} = {{"{spec}" = 1}}\n')
    RunDirectory.create(tmp_path / "run", {"agent": "random", "seed": 0, "env": {}, option: {spec: 1}})
    for arguments in (["--config", tmp_path / "run.toml"], ["--resume", tmp_path / "run"]):
        code, out = layer_tying(capsys, "run", *arguments)
        assert code == 1, out
        assert "a file never makes code run" in out
    assert not marker.exists()


def test_a_key_that_looks_like_a_nested_one_hides_no_code(tmp_path: Path, capsys: Capture) -> None:
    marker = tmp_path / "marker"
    spec = f"{write(tmp_path, 'evil.py', marking(marker))}:Thing"
    plain = {"agent": "random", "seed": 0, "controller": {}, "env": {"model": spec}, "env.model": "gpt2"}
    RunDirectory.create(tmp_path / "run", plain)
    code, out = layer_tying(capsys, "run", "--resume", tmp_path / "run")
    assert code == 1, out
    assert f"add --model {spec}" in out
    assert not marker.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('rewards = "clipped"', "rewards must be a list of str, got 'clipped'"),
        ('measure_test = "no"', "measure_test must be bool, got 'no'"),
        ("test_windows = 1.5", "test_windows must be int, got 1.5"),
        ("[controller]\nhidden_units = 12.5", "controller.hidden_units must be int, got 12.5"),
        ('[controller]\ngamma = "x"', "controller.gamma must be float, got 'x'"),
    ],
)
def test_a_value_of_another_type_in_a_file_is_named(tmp_path: Path, capsys: Capture, line: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(line + "\n")
    code, out = layer_tying(capsys, "run", "--config", tmp_path / "run.toml", "--print-config")
    assert code == 1
    assert message in out


def test_a_run_is_resumed_with_the_path_of_its_code_written_in_another_way(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    write(tmp_path, "a/mine.py", CONTROLLER)
    write(tmp_path, "stopping.py", CALLBACK)
    own = ["--agent", "a/mine.py:Mine", "--callbacks", "stopping.py:StopAtFour"]
    assert layer_tying(capsys, "run", *own, *small(text_folder), "--curiosity", "0.7", "--run-dir", "run")[0] == 0
    shutil.copyfile("a/mine.py", "a/other.py")
    for other in ("a/other.py:Mine", "a/mine.py:Controller", "mine.py:Mine"):
        code, out = layer_tying(capsys, "run", "--resume", "run", "--callbacks", "--agent", other)
        assert code == 1, "the same code elsewhere is not what the run was begun with"
        assert "a file never makes code run: add --agent a/mine.py:Mine" in out
    forget()
    code, out = layer_tying(capsys, "run", "--resume", "run", "--callbacks", "--agent", f"{tmp_path}/./a/mine.py:Mine")
    assert code == 0, out
    assert "has changed since" not in out, "its hash is compared, and is the same"
    assert len(RunDirectory.open(tmp_path / "run").read_metrics()) == 9
    options = ["--config", "run/config.json", "--agent", "./a/mine.py:Mine", "--callbacks", "--print-config"]
    code, out = layer_tying(capsys, "run", *options)
    assert code == 0, out
    assert "curiosity = 0.7" in out, "the file's settings are of the same agent"


@pytest.mark.parametrize(
    ("spec", "other", "same"),
    [
        ("a.py:B", "a.py:B", True),
        ("a.py:B", "./x/../a.py:B", True),
        ("a.py:B", "a.py:C", False),
        ("a.py:B", "b.py:B", False),
        ("package.a:B", "package.a:B", True),
        ("package.a:B", "package/a.py:B", False),
        ("~nobody-of-this-name/a.py:B", "a.py:B", False),
    ],
)
def test_import_strings_are_the_same_if_they_name_one_thing_in_one_file(spec: str, other: str, same: bool) -> None:
    assert same_object(spec, other) is same
    assert same_object(other, spec) is same


def test_what_is_refused_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """One process for all: whatever imports torch shows at the first command after it."""
    make_run(tmp_path / "over", "random", config={"layout": 2, "controller": {}})
    change(tmp_path / "over", "summary.json", train_step=20)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "report.html").touch()
    (tmp_path / "over" / "best.safetensors").touch()
    refused = {
        "run --resume over": "is finished: there is nothing to resume",
        "run --resume over --k 3": "env.k is 2 there, 3 here",
        "run --resume empty": "is not a run directory",
        "run --dataset nowhere": "unknown data set 'nowhere'",
        "run --dataset empty": "the folder empty has no train.txt",
        "run --model vit --dataset nowhere": "unknown images 'nowhere'",
        "run --agent dqn --n-layer 1": "at least 2 layers",
        "run --agent replay --trace nowhere": "there is no trace at nowhere",
        "run --gradient leader --replication copied": "does not apply to replication='copied'",
        "compare --agents random --dataset nowhere --out new": "unknown data set 'nowhere'",
        "compare --agents random random --out new": "the arm 'random' is there twice",
        "compare --agents random --out full": "exists already and is no comparison",
        "ablations --dataset nowhere --out new": "unknown data set 'nowhere'",
        "tune --search k:2..4 --dataset nowhere --out new": "unknown data set 'nowhere'",
        "tune --search k:2..4 --out full": "exists already and is no sweep",
        "evaluate empty": "is not a run directory",
        "evaluate over --dataset nowhere": "unknown data set 'nowhere'",
        "evaluate over --model mine.py:make": "over has the model 'gpt2'",
        "generate empty --prompt a": "is not a run directory",
        "export over full": "full exists already",
        "export empty new": "is not a run directory",
        "finetune empty --task sst2": "there is no network file empty/best.safetensors",
        "finetune over --task sst2 --data empty": "empty has no SST-2/train.tsv",
        "finetune over --task sst2 --adapters nobody": "got 'nobody'",
        "report empty --out new.html": "no runs found in empty",
        "report over --out report.html": "report.html exists already",
        "report over --out new.html --reference nobody": "there is no arm 'nobody'",
        "reproduce table1 --size small --dataset nowhere": "unknown data set 'nowhere'",
    }
    code = """
import contextlib, io, json, sys
from tying_agents.commands import start
found = {}
for line in json.loads(sys.argv[1]):
    command, *words = line.split()
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = start(command, words)
        except SystemExit as end:
            code = end.code
    heavy = [name for name in ("torch", "transformers", "matplotlib", "optuna") if name in sys.modules]
    found[line] = [code, " ".join(out.getvalue().replace("│", " ").split()), heavy]
print(json.dumps(found))
"""
    words = [sys.executable, "-c", code, json.dumps(list(refused))]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100)
    found = json.loads(done.stdout)
    assert {line: heavy for line, (_, _, heavy) in found.items() if heavy} == {}
    assert {line: out for line, (_, out, _) in found.items() if refused[line] not in out} == {}
    assert {line: code for line, (code, _, _) in found.items() if code not in (1, 2)} == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "over", "report.html"]
