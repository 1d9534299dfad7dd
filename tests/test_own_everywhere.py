"""A network in a user's own file, with an agent in another one: every command takes both, as it takes ours."""

from pathlib import Path

import pytest

from tests.own_code import CALLBACK, CONTROLLER, layer_tying, write
from tests.own_networks import DATA, TEXT
from tests.reliability.runs import outcome
from tying_env.runs import RunDirectory

SMALL = (
    "--tokenizer bytes --n-layer 4 --n-embd 16 --seq-len 16 --batch-size 4 --k 2 --total-steps 20 --validate-every 4 "
    "--validation-windows 8 --device cpu"
)


def test_a_network_without_a_test_split_is_refused_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "net.py", DATA)
    few = ["--k", "2", "--total-steps", "4", "--batch-size", "4", "--validate-every", "0", "--device", "cpu"]
    words = ["run", "--model", "net.py:module_in_it", "--agent", "random", *few, "--run-dir", "run"]
    code, out = layer_tying(capsys, *words)
    assert code == 1 and "split 'test': give the environment test=, or leave the test split alone: --no-measure" in out
    assert not Path("run").exists()
    assert layer_tying(capsys, *words, "--no-measure-test", "--run-dir", "other")[0] == 0


def test_every_command_takes_a_network_and_an_agent_of_the_users_own(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, source in (("net.py", TEXT), ("mine.py", CONTROLLER), ("stopping.py", CALLBACK)):
        write(tmp_path, name, source)

    def command(*words: str) -> str:
        code, out = layer_tying(capsys, *words)
        assert code == 0, out
        return out

    model, agent = ["--model", "net.py:make_network"], ["--agent", "mine.py:Mine"]
    small = [*SMALL.split(), "--dataset", str(text_folder)]
    tested = ["--test-windows", "4"]
    # A run, whole; the same, stopped and resumed.
    command("run", *model, *agent, *small, *tested, "--run-dir", "whole")
    command("run", *model, *agent, *small, *tested, "--callbacks", "stopping.py:StopAtFour", "--run-dir", "part")
    assert len(RunDirectory.open(Path("part")).read_metrics()) < 9
    command("run", "--resume", "part", *model, *agent, "--callbacks")
    assert outcome(Path("part")) == outcome(Path("whole"))
    # Two agents, two seeds, two workers; then their report once more.
    agents = ["--agents", "random", "mine.py:Mine"]
    command("compare", *agents, *model, *small, *tested, "--seeds", "2", "--jobs", "2", "--out", "compared")
    runs = sorted(path.parent for path in Path("compared/runs").glob("*/*/summary.json"))
    assert [f"{run.parent.name}/{run.name}" for run in runs] == [
        "Mine/seed0",
        "Mine/seed1",
        "random/seed0",
        "random/seed1",
    ]
    command("report", "compared/runs", "--out", "report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "Mine" in page
    assert "net.py:make_network" in page
    # A search of the user's own settings.
    out = command(
        "tune", *model, *agent, *small, "--search", "curiosity: 0.1 | 0.9", "--sampler", "grid", "--out", "tuned"
    )
    assert "curiosity" in out
    # What was trained, taken home and measured; nobody has to name the agent for that. An export does not say where the
    # data were.
    command("export", "whole", "home", *model)
    tested = [*model, "--windows", "4"]
    there = command("evaluate", "whole", *tested)
    home = command("evaluate", "home", *tested, "--dataset", str(text_folder))
    assert there.split()[-4:] == home.split()[-4:]
