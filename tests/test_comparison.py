import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents.comparison import Arm, Plan, chosen_learning_rate, compare
from agents.run_config import RunConfig
from tying_env import EnvConfig
from tying_env.runs import RunDirectory

ROOT = Path(__file__).parents[1]
SMALL = [
    *("--tokenizer", "bytes", "--n-layer", "4", "--n-embd", "16", "--n-head", "2", "--seq-len", "16"),
    *("--batch-size", "4", "--k", "2", "--total-steps", "12", "--validate-every", "4", "--test-windows", "4"),
]


def arm(label: str, tiny: Any, **changed: Any) -> Arm:
    config = RunConfig(env=EnvConfig(**tiny | {"total_steps": 8}), test_windows=4, **changed)
    return Arm(label, lambda runs, seed: config)


def nothing(done: int, total: int) -> None: ...


def read(path: Path) -> list[dict[str, Any]]:
    return RunDirectory.open(path).read_metrics()


def test_arms_of_one_seed_see_the_same_weights_and_batches(tmp_path: Path, tiny: Any) -> None:
    arms = [arm("a", tiny, agent="albert"), arm("b", tiny, agent="random-static"), arm("c", tiny, agent="random")]
    plan = Plan(tmp_path / "out", (0, 1))
    compare(arms, plan, {"x": 1}, nothing)
    runs = {name: [read(tmp_path / "out" / "runs" / name / f"seed{s}") for s in (0, 1)] for name in "abc"}
    assert all(records[-1]["train_step"] == 8 for arms_runs in runs.values() for records in arms_runs)
    twin = Plan(tmp_path / "again", (0, 1))
    compare([arm("z", tiny, agent="albert")], twin, {"x": 1}, nothing)
    again = read(tmp_path / "again" / "runs" / "z" / "seed1")
    assert [r["train_loss"] for r in again] == [r["train_loss"] for r in runs["a"][1]]
    assert runs["a"][0][0]["train_loss"] != runs["a"][1][0]["train_loss"]


def test_a_comparison_goes_on_where_it_was(tmp_path: Path, tiny: Any) -> None:
    plan, seen = Plan(tmp_path / "out", (0, 1)), []
    arms = [arm("a", tiny, agent="random"), arm("b", tiny, agent="cycle")]
    compare(arms[:1], plan, {}, nothing)
    kept = tmp_path / "out" / "runs" / "a" / "seed0"
    before = (kept / "config.json").stat().st_mtime_ns
    half_made = tmp_path / "out" / "runs" / "b" / "seed1.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "config.json").write_text("{}")
    compare(arms, plan, {}, lambda done, total: seen.append((done, total)))
    assert (kept / "config.json").stat().st_mtime_ns == before
    assert seen[-1] == (4, 4)
    assert (2, 4) in seen
    assert len(read(tmp_path / "out" / "runs" / "b" / "seed1")) == 4
    assert not half_made.exists()


def test_each_arm_gets_its_own_learning_rate_by_validation_alone(tmp_path: Path, tiny: Any) -> None:
    plan = Plan(tmp_path / "out", (0,), learning_rates=(1e-5, 3e-2), tuning_seeds=(9,))
    follower = dataclasses.replace(arm("b", tiny, agent="albert"), rate_of="a")
    compare([arm("a", tiny, agent="conventional"), follower], plan, {}, nothing)
    assert chosen_learning_rate("a", plan) == 3e-2
    for folder in (tmp_path / "out" / "tuning").rglob("summary.json"):
        assert json.loads(folder.read_text())["test"] is None
    assert not (tmp_path / "out" / "tuning" / "b").exists()
    for name in "ab":
        final = RunDirectory.open(tmp_path / "out" / "runs" / name / "seed0")
        assert final.read_json("config.json")["env"]["learning_rate"] == 3e-2
        assert final.read_json("config.json")["label"] == name
        assert final.read_json("summary.json")["test"]["final"]["perplexity"] > 1


def test_an_arm_that_needs_another_comes_after_it(tmp_path: Path, tiny: Any) -> None:
    base = arm("a", tiny, agent="random")

    def configure(runs: Path, seed: int) -> RunConfig:
        layers = read(runs / "a" / f"seed{seed}")[-1]["independent_layers"]
        config = base.configure(runs, seed)
        return dataclasses.replace(config, agent="conventional", env=dataclasses.replace(config.env, n_layer=layers))

    plan = Plan(tmp_path / "out", (0, 1))
    compare([base, Arm("b", configure, after=("a",))], plan, {}, nothing)
    for seed in (0, 1):
        layers = read(tmp_path / "out" / "runs" / "a" / f"seed{seed}")[-1]["independent_layers"]
        assert read(tmp_path / "out" / "runs" / "b" / f"seed{seed}")[-1]["independent_layers"] == layers
    with pytest.raises(ValueError, match="the arm 'b' needs the arm 'a' before it"):
        compare([Arm("b", configure, after=("a",))], Plan(tmp_path / "x", (0,)), {}, nothing)
    with pytest.raises(ValueError, match="the arm 'a' is there twice"):
        compare([base, base], Plan(tmp_path / "x", (0,)), {}, nothing)


def test_a_folder_with_something_else_is_refused(tmp_path: Path, tiny: Any) -> None:
    arms = [arm("a", tiny, agent="random")]
    compare(arms, Plan(tmp_path / "out", (0,)), {"k": 5, "n_layer": 4}, nothing)
    with pytest.raises(ValueError, match="comparison with other settings: k was 5, now 6"):
        compare(arms, Plan(tmp_path / "out", (0,)), {"k": 6, "n_layer": 4}, nothing)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is no comparison"):
        compare(arms, Plan(tmp_path / "mine", (0,)), {}, nothing)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ()}, "seeds must be different"),
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"learning_rates": (1.0,)}, "needs at least one tuning seed"),
        ({"tuning_seeds": (0,)}, "must be other seeds"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"backend": "threads"}, "backend must be one of loky, ray, dask, got 'threads'"),
    ],
)
def test_wrong_plans_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**{"folder": tmp_path, "seeds": (0, 1)} | settings)


def test_a_missing_backend_is_named(tmp_path: Path, tiny: Any) -> None:
    for backend in ("ray", "dask"):
        if backend in sys.modules:
            continue
        with pytest.raises(ImportError, match="pip install"):
            compare([arm("a", tiny)], Plan(tmp_path / backend, (0,), backend=backend), {}, nothing)  # type: ignore[arg-type]


def command(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "160"},
    )


def test_compare_from_the_command_line(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--agents", "random", "dqn+shuffled", "ppo", "--seeds", "2", "--out", str(out), *SMALL]
    arguments += ["--dataset", str(text_folder), "--jobs", "1"]
    done = command("compare.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs 6/6" in done.stdout
    assert "dqn+shuffled" in done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    shuffled = RunDirectory.open(out / "runs" / "dqn+shuffled" / "seed0")
    assert shuffled.read_json("config.json")["rewards"] == ["shuffled"]
    rewards = [record["reward"] for record in shuffled.read_metrics()]
    assert rewards[1:] != [-record["perplexity"] for record in shuffled.read_metrics()][1:]
    again = command("compare.py", *arguments, "--jobs", "2")
    assert again.returncode == 0
    assert again.stdout.count("runs 6/6") >= 1
    other = command("compare.py", *arguments, "--k", "3")
    assert other.returncode == 1
    assert "other settings" in other.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agents", "random", "dqm"], "unknown agent 'dqm'"),
        (["--agents", "random", "dqn+loud"], "unknown reward 'loud'"),
        (["--agents", "dqn", "cycle"], "reference must be one of the arms dqn, cycle, got 'random'"),
        (["--agents", "random", "--seeds", "0"], "seeds must be different"),
        (["--agents", "random", "--backend", "mpi"], "mpi"),
    ],
)
def test_wrong_comparisons_are_refused_with_nothing_written(
    tmp_path: Path, text_folder: Path, arguments: list[str], message: str
) -> None:
    out = ["--out", str(tmp_path / "out"), "--dataset", str(text_folder), *SMALL]
    done = command("compare.py", *arguments, *out)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_the_finished_runs(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--agents", "random", "cycle", "--seeds", "8", "--jobs", "1", "--out", str(out), *SMALL]
    arguments += ["--dataset", str(text_folder), "--total-steps", "60"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "compare.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if len(list(out.glob("runs/*/*/summary.json"))) >= 2:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "goes on from what is in" in text
    finished = [path for path in out.glob("runs/*/*/summary.json") if ".unfinished" not in str(path)]
    assert 2 <= len(finished) < 16


def test_the_ablations_are_what_they_are_called(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--seeds", "2", "--jobs", "1", "--out", str(out), *SMALL, "--dataset", str(text_folder)]
    done = command("ablations.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {path.name: [read(path / f"seed{seed}") for seed in (0, 1)] for path in sorted((out / "runs").iterdir())}
    assert len(runs) == 14
    tyings = {name: [[r["tying"] for r in records] for records in seeds] for name, seeds in runs.items()}
    full = tyings["full method"]
    assert tyings["iv replayed trace"] == [full[1], full[0]]  # each in the run of another seed
    assert tyings["iii permuted trace"] != [full[1], full[0]]
    assert [t[0] for t in tyings["ii final tying"]] == [full[0][-1], full[1][-1]]
    ends = [records[-1]["independent_layers"] for records in runs["full method"]]
    assert len(tyings["i fewer layers"][0][0]) == round(sum(ends) / 2)
    assert len(set(tyings["random static"][0][0])) == round(sum(ends) / 2)
    assert all(r["storages"] == 4 for records in runs["v copied, not tied"] for r in records)  # shares nothing
    assert all(r["storages"] == r["independent_layers"] for records in runs["full method"] for r in records)
    config = RunDirectory.open(out / "runs" / "vi nothing frozen" / "seed0").read_json("config.json")
    assert config["env"]["freeze_at_start"] is False
    one = command("ablations.py", *arguments[2:], "--seeds", "1")
    assert one.returncode == 1
    assert "seeds must be at least 2" in one.stdout
