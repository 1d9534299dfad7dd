"""What a command says when code of the user's own fails, has changed or is not named; and what to type next."""

import pickle
import re
from pathlib import Path

import pytest
from tying_agents import commands
from tying_agents.commands import start
from tying_agents.commands.typed import command_line
from tying_agents.many.one_run import saying_which
from tying_agents.many.other_code import trials_of_other_code
from tying_agents.run_config import RunConfig
from tying_agents.running.own_code import changed_code, in_words

from tests.command_line import called
from tests.own_code import CALLBACK, CONTROLLER, REWARD, layer_tying, small, write
from tests.run_folders import make_run
from tests.sweeps import options
from tying_env.plugins import ForeignCodeError, describe_object, foreign_code

Capture = pytest.CaptureFixture[str]
AGAIN = "finished runs stay: mend it and give the same command again"
FAILING = CONTROLLER.replace("def act(self, observation):", "def act(self, observation):\n        raise KeyError('k')")


@pytest.mark.parametrize(
    ("prog", "command"),
    [
        ("layer-tying run", "layer-tying run"),
        ("python -m tying_env run", "python -m tying_env run"),
        ("scripts/run_agent.py", "python scripts/run_agent.py"),
        ("../my code/scripts/run_agent.py", "python '../my code/scripts/run_agent.py'"),
    ],
)
def test_the_command_that_resumes_a_run_is_the_one_that_was_typed(
    prog: str, command: str, text_folder: Path, tmp_path: Path
) -> None:
    stopping = f"{write(tmp_path, 'stopping.py', CALLBACK)}:StopAtFour"
    words = [*small(text_folder), "--agent", "random", "--callbacks", stopping]
    done = called("run", *words, "--run-dir", tmp_path / "run", prog=prog)
    assert done.returncode == 0, done.stdout
    assert f"resume with:   {command} --resume {tmp_path}/run --callbacks {stopping}\n" in done.stdout


def test_of_several_processes_the_command_begins_as_many_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    assert command_line("a/run.py", ["--k", "2"]) == "torchrun --nproc-per-node 2 a/run.py --k 2"
    assert command_line("python -m tying_env run", []).startswith("torchrun --nproc-per-node 2 -m tying_env run")
    monkeypatch.setenv("WORLD_SIZE", "4")  # on two machines
    assert command_line("a/run.py", ["--k", "2"]) == "python a/run.py --k 2"


def test_the_program_is_called_by_its_path_where_its_name_does_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "layer-tying"
    program.touch(mode=0o755)
    seen: list[str | None] = []
    monkeypatch.setattr(commands, "start", lambda command, argv, prog: seen.append(prog) or 0)
    monkeypatch.setattr("sys.argv", [str(program), "run"])
    for path in ("", str(tmp_path)):
        monkeypatch.setenv("PATH", path)
        assert commands.main() == 0
    monkeypatch.setattr("sys.argv", ["a notebook"])
    commands.main(["run"])
    commands.main(["run"], "python -m tying_env")
    assert seen == [f"{program} run", "layer-tying run", "layer-tying run", "python -m tying_env run"]


def test_changed_code_is_told_in_words_and_short_hashes(tmp_path: Path) -> None:
    mine, new = write(tmp_path, "mine.py", CONTROLLER), write(tmp_path, "new.py", CALLBACK)
    # A second name of a file that was there before is no change.
    config = RunConfig(agent=f"{mine}:Mine", callbacks=(f"{new}:StopAtFour", f"{mine}:Another"))
    now = {spec: describe_object(spec)["sha256"] for spec in (f"{mine}:Mine", f"{new}:StopAtFour")}
    assert changed_code({"code": now}, config) == {}
    found = in_words(changed_code({"code": {f"{mine}:Mine": "0c5ccc32" + 56 * "0"}}, config))
    assert found == (
        f"{mine} has changed since this run began (sha256 0c5ccc32 then, {now[f'{mine}:Mine'][:8]} now); "
        f"{new} was no part of this run when it began (sha256 {now[f'{new}:StopAtFour'][:8]} now)"
    )


def test_all_code_that_has_to_be_named_is_listed_at_once_as_the_command_to_type(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, source in (("mine.py", CONTROLLER), ("reward.py", REWARD), ("stopping.py", CALLBACK)):
        write(tmp_path, name, source)
    rewards, callbacks = ["log-perplexity", "reward.py:AgainstTheMean"], ["stopping.py:StopAtFour"]
    own = ["--agent", "mine.py:Mine", "--rewards", *rewards, "--callbacks", *callbacks]
    assert layer_tying(capsys, "run", *small(text_folder), *own, "--run-dir", "one")[0] == 0
    code, out = layer_tying(capsys, "run", "--resume", "one", "--device=cpu", "--rewards", "log-perplexity")
    assert code == 1
    assert (
        "agent is 'mine.py:Mine' and rewards is 'reward.py:AgainstTheMean' and callbacks is 'stopping.py:StopAtFour', "
        "code of your own, and a file never makes code run: add --agent"
    ) in out
    whole = f"layer-tying run --resume one --device=cpu {' '.join(own)}"
    assert out.endswith(f"the whole command: {whole}")
    assert layer_tying(capsys, *whole.split()[1:])[0] == 0
    # Of a sweep and a configuration file, too.
    code, out = layer_tying(capsys, "tune", "--search", "k: 2..3", "--config", "one/config.json", *own[:2])
    assert code == 1
    assert "the whole command: layer-tying tune --search 'k: 2..3' --config one/config.json --agent" in out


def test_a_failed_arm_is_named_with_what_to_do_and_the_finished_runs_stay(
    text_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out_dir = write(tmp_path, "mine.py", FAILING), tmp_path / "out"
    words = ["--agents", "cycle", f"{file}:Mine", "--seeds", "1", "--jobs", "1", "--out", out_dir, *small(text_folder)]
    code, out = layer_tying(capsys, "compare", *words)
    assert code == 1
    assert f"error: the run of arm Mine, seed 0 ({out_dir}/runs/Mine/seed0) failed: " in out
    assert AGAIN in out
    assert f'File "{file}", line' in out
    assert (out_dir / "runs" / "cycle" / "seed0" / "summary.json").exists()
    write(tmp_path, "mine.py", CONTROLLER)

    def no_runs(*arguments: object) -> None:
        raise ValueError("no runs today")

    monkeypatch.setattr("tying_agents.many.comparison.make_comparison", no_runs)
    told = f"{file} has changed: the unfinished runs of Mine were begun by other code error: no runs today"
    assert layer_tying(capsys, "compare", *words) == (1, told)
    (out_dir / "runs" / "Mine" / "seed0.unfinished").rename(out_dir / "runs" / "Mine" / "seed0")
    told = f"{file} has changed: the finished runs of Mine were made by other code error: no runs today"
    assert layer_tying(capsys, "compare", *words) == (1, told)
    write(tmp_path, "mine.py", FAILING)
    assert layer_tying(capsys, "compare", *words) == (1, "error: no runs today")


def test_a_failed_trial_is_named_likewise(text_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    file, out_dir = write(tmp_path, "mine.py", FAILING), tmp_path / "out"
    words = ["--search", "k: 2..3", "--trials", "1", "--agent", f"{file}:Mine"]
    code, out = layer_tying(capsys, "tune", *words, *options(out_dir, text_folder))
    assert code == 1
    folder = out_dir / "trials" / "0000" / "seed1000"
    assert f"error: the run of trial 0, seed 1000 ({folder}) failed: " in out
    assert AGAIN in out
    write(tmp_path, "mine.py", CONTROLLER)
    base = RunConfig(agent=f"{file}:Mine")
    told = [f"{file} has changed: the unfinished runs of earlier trials were begun by other code"]
    assert trials_of_other_code(out_dir / "trials", base) == told


def test_an_error_keeps_its_kind_and_says_which_run_it_is_of() -> None:
    config = RunConfig(agent="random", seed=3, run_dir=Path("out/x"))
    for kind in (ValueError, OSError, ImportError, TypeError):
        with pytest.raises(kind) as seen, saying_which(config, "arm x"):
            raise kind("bad")
        assert str(seen.value) == f"the run of arm x, seed 3 (out/x) failed: bad; {AGAIN}"
    with pytest.raises(RuntimeError, match="a bug") as bug, saying_which(config, "arm x"):
        raise RuntimeError("a bug")
    assert bug.value.__notes__ == [f"the run of arm x, seed 3 (out/x) failed; {AGAIN}"]
    with pytest.raises(ForeignCodeError) as own, saying_which(config, "arm x"), foreign_code("m.py:A", "now"):
        raise KeyError("k")
    for each in (own.value, pickle.loads(pickle.dumps(own.value))):
        assert re.match(r"the run of arm x, seed 3 \(out/x\) failed: m.py:A raised KeyError now", str(each))
        assert each.traceback().endswith("KeyError: 'k'\n")


def test_generate_explains_a_network_of_your_own_alike_with_and_without_model(tmp_path: Path, capsys: Capture) -> None:
    make_run(tmp_path / "own", env={"model": "net.py:make"})
    make_run(tmp_path / "gpt2")
    for name in ("own", "gpt2"):
        (tmp_path / name / "best.safetensors").touch()
    model = ["--model", "net.py:make"]
    outs = [layer_tying(capsys, "generate", tmp_path / "own", "--prompt", "a", *more) for more in ([], model)]
    assert outs[0] == outs[1]
    assert outs[0][0] == 1
    assert (
        "only a GPT-2 or another decoder of transformers can continue a text, not a network of your own" in outs[0][1]
    )
    code, out = layer_tying(capsys, "generate", tmp_path / "gpt2", "--prompt", "a", *model)
    assert code == 1
    assert "--model is for a network of code of the user's own" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--lr", "1e-3"], "there is no option --lr: it is called --learning-rate here"),
        (["compare", "--lr=1e-3", "--out", "x"], "there is no option --lr: it is called --learning-rate here"),
        (["run", "--layers", "3"], "there is no option --layers: it is called --n-layer here"),
        (["run", "--model", "vit", "--dataset", "a.npy"], "images must be in an .npz file"),
    ],
)
def test_what_is_called_otherwise_elsewhere_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(words[0], words[1:]) == 1
    assert message in " ".join(capsys.readouterr().out.split())
