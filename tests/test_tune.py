"""Sweeps: what is searched and refused, trials that resume, processes side by side, pruning, and the way to compare."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tying_agents.commands.compare import main as compare
from tying_agents.commands.compare import parse_arm
from tying_agents.commands.many_runs import as_run
from tying_agents.commands.tune import main as tune
from tying_agents.commands.tune import next_commands, parse
from tying_agents.config_files import overlaid, read_config_file
from tying_agents.many.tuning.plan import STORAGE, Sweep
from tying_agents.many.tuning.result import read_result
from tying_agents.many.tuning.search import parse_searches, possible, with_values
from tying_agents.many.tuning.study import claim, opened
from tying_agents.run_config import RunConfig
from tying_agents.settings import DQNConfig

from tests.conftest import TINY
from tying_env import EnvConfig
from tying_env.reports.sweep_page import render_sweep, sweep_pictures
from tying_env.runs import RunDirectory

ROOT = Path(__file__).parents[1]
RATES = "learning-rate: log 1e-4..1e-1"


def options(out: Path, text_folder: Path, *more: str) -> list[str]:
    settings = TINY | {"dataset": str(text_folder)}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["--out", str(out), *words, *more]


def trials_of(out: Path) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{out / STORAGE}")
    try:
        return optuna.load_study(study_name="sweep", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def base(**env: Any) -> RunConfig:
    return RunConfig(env=EnvConfig(**TINY | env))


def found(text: str, config: RunConfig | None = None) -> Any:
    return parse_searches([text], config or base())[0]


# ---- what is searched


@pytest.mark.parametrize(
    ("text", "group", "probes"),
    [
        ("learning-rate: log 1e-4..1e-2", "env", (1e-4, 1e-2)),
        ("n_embd: 16..64 step 16", "env", (16, 64)),
        ("hidden-units: log 8..512", "controller", (8, 512)),
        ("--epsilon-floor: 0..0.3", "controller", (0.0, 0.3)),
        ("gradient: shared | leader", "env", ("shared", "leader")),
        ("freeze-at-start: true | false", "env", (True, False)),
        ("dropout: 0 | 0.1 | 0.2", "env", (0.0, 0.1, 0.2)),
        ("rewards: none | log-perplexity+clipped", "", ((), ("log-perplexity", "clipped"))),
        ("episodes: 1..3", "", (1, 3)),
    ],
)
def test_any_setting_of_environment_agent_and_run_can_be_searched(text: str, group: str, probes: Sequence[Any]) -> None:
    search = found(text)
    assert (search.group, search.probes()) == (group, tuple(probes))
    assert [type(value) for value in search.probes()] == [type(value) for value in probes]
    for value in probes:
        config = with_values(base(), [(search, value)])
        assert getattr(getattr(config, group) if group else config, search.name) == value


def test_what_the_storage_keeps_is_read_back_as_the_value() -> None:
    for text in ("rewards: none | log-perplexity+clipped", "freeze-at-start: true | false", "dropout: 0 | 0.1"):
        search = found(text)
        stored = json.loads(json.dumps(search.stored()))
        assert [search.value(each) for each in stored] == list(search.choices)
    assert found("n-embd: 16..64 step 16").grid() == (16, 32, 48, 64)
    assert found("dropout: 0..0.4 step 0.1").grid() == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))
    assert found(RATES).grid() is None


def test_a_value_that_needs_another_searched_one_is_accepted() -> None:
    searches = parse_searches(["double-q: true | false", "target-every: 0..10 step 5"], base())
    assert isinstance(possible(searches, base()).controller, DQNConfig)
    with pytest.raises(ValueError, match="double_q needs target_every of at least 2"):
        parse_searches(["double-q: true | false"], base())


WRONG = [
    ([], "nothing is searched"),
    (["learning-rat: 0..1"], "did you mean learning-rate?"),
    (["groups: 1..3"], "there is no setting 'groups' of the agent 'dqn'"),
    (["learning-rate"], 'must read "NAME: SPEC"'),
    (["learning-rate: 1e-3"], "one value is no search"),
    (["learning-rate: 1e-2..1e-4"], "the range must go up"),
    (["learning-rate: log 0..1"], "must begin above 0, got 0"),
    (["learning-rate: 0..inf"], "high must be a finite number, got 'inf'"),
    (["learning-rate: -1..1"], "learning_rate must be a finite number above 0, got -1.0"),
    (["learning-rate: log 1e-4..1e-2 step 2"], "a logarithmic range has no step"),
    (["learning-rate: 1e-4..1e-2 by 3"], "a range must read"),
    (["n-layer: 2..4.5"], "high must be a whole number, got '4.5'"),
    (["n-layer: 2..7 step 2"], "HIGH must be LOW and a number of steps: 6 or 8, got 7"),
    (["n-embd: 16..33"], "33"),
    (["gradient: shared | leaders"], "gradient must be one of 'shared', 'leader', got 'leaders'"),
    (["gradient: 0..1"], "gradient is no number"),
    (["double-q: true | yes"], "double-q must be true or false, got 'yes'"),
    (["dropout: 0 | 0.0"], "choices must be different ones, got '0.0' twice"),
    ([RATES, "learning_rate: 1e-3 | 1e-2"], "learning-rate is searched twice"),
    (["seed: 0..5"], "seed cannot be searched"),
    (["agent: dqn | random"], "compare agents with `layer-tying compare`"),
    (["device: cpu | cuda"], "device cannot be searched"),
    (["validate-every: 0 | 5"], "validate_every must be at least 1"),
]


@pytest.mark.parametrize(("searches", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_searches_are_refused(searches: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_searches(searches, base())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "did you mean learning-rate?"),
        (["--trials", "0"], "trials must be at least 1, got 0"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--sampler", "grid"], "learning-rate has endlessly many values"),
        (["--sampler", "cmaes"], "cmaes"),
        (["--validate-every", "0"], "validate_every must be at least 1"),
        (["--dataset", "no/such/folder"], "no/such/folder"),
        (["--agent", "replay"], "needs --trace"),
        (["--groups", "2"], "--groups is an option of random-static"),
    ],
)
def test_wrong_sweeps_are_refused_with_nothing_written(
    arguments: list[str], message: str, text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    searched = ["--search", RATES if arguments else "learning-rat: 0..1"]
    assert tune([*searched, *options(out, text_folder), *arguments]) == 1
    assert message in " ".join(capsys.readouterr().out.split())
    assert not out.exists()


# ---- a sweep


@pytest.fixture(scope="module")
def swept(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep of five trials."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    arguments = ["--search", RATES, "gradient: shared | leader", "--trials", "5", "--pruner", "none"]
    assert tune([*arguments, *options(out, text_folder)]) == 0
    return out


def test_a_trial_is_worth_its_runs_best_validation_perplexity(swept: Path) -> None:
    trials = trials_of(swept)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    for trial in trials:
        run = RunDirectory.open(swept / "trials" / f"{trial.number:04d}" / "seed1000")
        summary, about = run.read_json("summary.json"), run.read_json("config.json")
        assert trial.value == summary["best_validation_perplexity"]
        assert summary["test"] is None  # no trial sees the test split
        assert about["seed"] == 1000
        assert about["env"]["learning_rate"] == trial.params["learning_rate"]
        assert about["env"]["gradient"] == trial.params["gradient"]
        assert max(trial.intermediate_values) == TINY["total_steps"]
        assert min(trial.intermediate_values.values()) == trial.value
    assert len({trial.params["learning_rate"] for trial in trials}) == 5


def test_the_best_settings_are_a_configuration_for_run(swept: Path) -> None:
    best = min(trials_of(swept), key=lambda trial: trial.value or 0)
    config = overlaid(RunConfig(), read_config_file(swept / "best.toml"), "best.toml")
    assert config.env.learning_rate == best.params["learning_rate"]
    assert config.env.gradient == best.params["gradient"]
    assert (config.env.n_embd, config.seed, config.run_dir, config.measure_test) == (16, 0, None, True)


def test_the_page_stands_alone_and_has_every_trial(swept: Path) -> None:
    page = (swept / "tuning.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert page.count("data:image/") == 3
    assert "importances need at least 10 complete trials, and there are 5" in page
    for trial in trials_of(swept):
        assert f"{trial.value:,.2f}" in page


def test_the_same_command_makes_nothing_again_and_a_longer_one_adds(
    swept: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trials_of(swept)
    arguments = ["--search", RATES, "gradient: shared | leader", "--pruner", "none", *options(swept, text_folder)]
    assert tune([*arguments, "--trials", "5"]) == 0
    assert trials_of(swept) == before
    assert tune([*arguments, "--trials", "6"]) == 0
    assert trials_of(swept)[:5] == before and len(trials_of(swept)) == 6
    assert trials_of(swept)[5].params["learning_rate"] not in [t.params["learning_rate"] for t in before]
    capsys.readouterr()
    assert tune([*arguments, "--k", "3"]) == 1
    assert "env.k is 2 there, 3 here. Choose another --out" in capsys.readouterr().out
    other = ["--search", "learning-rate: log 1e-4..1e-2", *options(swept, text_folder)]
    assert tune(other) == 1
    assert "holds a sweep with other settings" in capsys.readouterr().out


def test_a_folder_with_something_else_is_left_alone(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert tune(["--search", RATES, *options(tmp_path, text_folder)]) == 1
    assert "is no sweep" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_importances_name_the_setting_that_matters_and_the_page_says_what_is_at_an_edge(tmp_path: Path) -> None:
    searches = parse_searches(["weight-decay: 0..0.5", RATES, "gradient: shared | leader"], base())
    sweep = Sweep(tmp_path, base(), searches, (1000,), trials=40, sampler="random")
    with opened(sweep) as study:
        while (claimed := claim(study, sweep)) is not None:
            if len(study.trials) == 10:
                assert read_result(sweep).importances == {}
                assert "at least 10 complete trials, and there are 9" in read_result(sweep).why_none
            params = claimed.trial.params
            study.tell(claimed.trial, math.exp(5 + 4 * params["weight_decay"] + (params["gradient"] == "leader") / 4))
            claimed.release()
    result = read_result(sweep)
    assert next(iter(result.importances)) == "weight-decay"
    assert sum(result.importances.values()) == pytest.approx(1)
    assert min(result.importances, key=lambda name: result.importances[name]) == "learning-rate"
    assert any("best weight-decay lies at the edge" in note for note in result.notes)
    pictures = sweep_pictures(result)
    assert [picture.name for picture in pictures if picture.figure is None] == ["curves"]  # nothing was reported
    page = render_sweep(result, pictures)
    assert page.count("data:image/") == 3
    assert "no trial has measured validation perplexity" in page


def test_a_storage_that_is_none_is_named(swept: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = (swept / STORAGE).read_bytes()
    (swept / STORAGE).write_bytes(b"no database at all" * 99)
    arguments = ["--search", RATES, "gradient: shared | leader", "--pruner", "none", *options(swept, text_folder)]
    assert tune(arguments) == 1
    assert "study.sqlite3 cannot be used: file is not a database" in " ".join(capsys.readouterr().out.split())
    (swept / STORAGE).write_bytes(kept)


def test_options_of_the_agent_hold_for_all_trials_and_for_the_comparison() -> None:
    argv = ["--agent", "dqn", "--hidden-units", "16", "--n-layer", "6", "--rewards", "log-perplexity", "clipped"]
    parsed = parse(argv, "layer-tying tune")
    searches = parse_searches(["gamma: 0..0.9"], parsed.run)
    sweep = Sweep(Path("unused"), as_run(parsed.run), searches, (1000,))
    best = with_values(sweep.base, [(searches[0], 0.25)])
    train, line = next_commands(sweep, parsed, best, "best.toml")
    assert train == "layer-tying run --config best.toml"
    words = shlex.split(line)
    arm = words[words.index("--arms") + 1]
    assert arm == "tuned: --agent dqn --gamma 0.25"
    rest = words[words.index("--arms") + 2 :]
    assert rest == ["--rewards", "log-perplexity", "clipped", "--n-layer", "6", "--hidden-units", "16"]
    assert parse_arm(arm, sweep.base, None).configure(Path(), 0).controller == DQNConfig(gamma=0.25)


def test_compare_accepts_the_line_that_a_sweep_prints(
    swept: Path, text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--search", RATES, "gradient: shared | leader", "--trials", "5", "--pruner", "none"]
    assert tune([*arguments, *options(swept, text_folder)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("compare it:"))
    words = shlex.split(line.partition(":")[2])
    assert words[:2] == ["layer-tying", "compare"]
    out = tmp_path / "compared"
    more = ["--seeds", "1", "--jobs", "1", "--test-windows", "4", "--out", str(out)]
    assert compare([*words[2:], *more]) == 0
    best = overlaid(RunConfig(), read_config_file(swept / "best.toml"), "best.toml")
    about = {name: json.loads((out / "runs" / name / "seed0/config.json").read_text()) for name in ("tuned", "dqn")}
    assert about["tuned"]["env"] == json.loads(json.dumps(vars(best.env)))
    assert about["dqn"]["env"] == about["tuned"]["env"] | {"learning_rate": 1e-3, "gradient": "shared"}


# ---- pruning and failing


def test_a_bad_trial_is_stopped_early(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--search", "learning-rate: 1e-2 | 2e-2 | 5e-3 | 1e-7", "--sampler", "grid", "--seed", "5"]
    assert tune([*arguments, *options(out, text_folder), "--agent", "conventional", "--total-steps", "40"]) == 0
    trials = {trial.params["learning_rate"]: trial for trial in trials_of(out)}
    assert list(trials)[3] == 1e-7, "choose another --seed: the bad one must come when the others can be its measure"
    assert [trials[rate].state for rate in (1e-2, 2e-2, 5e-3)] == [TrialState.COMPLETE] * 3

    def run(rate: float) -> RunDirectory:
        return RunDirectory.open(out / "trials" / f"{trials[rate].number:04d}" / "seed1000")

    bad = trials[1e-7]
    assert bad.state == TrialState.PRUNED
    assert len(run(1e-7).read_metrics()) < len(run(1e-2).read_metrics())
    assert run(1e-7).read_json("summary.json")["stop_reason"].startswith("pruned")
    assert not (run(1e-7).path / "checkpoints").exists()
    assert bad.value == list(bad.intermediate_values.values())[-1]


@pytest.mark.parametrize("pruner", ["median", "hyperband", "successive-halving", "none"])
def test_each_pruner_ends_the_bad_trials_and_no_pruner_ends_none(pruner: Any, tmp_path: Path) -> None:
    config = base(total_steps=100, validate_every=5)
    searches = parse_searches(["dropout: 0..0.9"], config)
    sweep = Sweep(tmp_path, config, searches, (1000,), trials=16, sampler="random", pruner=pruner)
    pruned, complete = [], []
    with opened(sweep) as study:
        while (claimed := claim(study, sweep)) is not None:
            trial, value = claimed.trial, claimed.trial.params["dropout"]
            for step in range(5, 101, 5):  # in place of a run
                trial.report(value + 1 / step, step)
                if step < 100 and trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    pruned.append(value)
                    break
            else:
                study.tell(trial, value)
                complete.append(value)
            claimed.release()
    assert bool(pruned) == (pruner != "none")
    assert min(complete) == min([*complete, *pruned])


def test_a_trial_that_diverges_fails_with_its_reason(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--search", "learning-rate: 1e-2 | 1e30", "--sampler", "grid", *options(out, text_folder)]
    assert tune([*arguments, "--max-grad-norm", "1e30"]) == 0
    trials = {trial.params["learning_rate"]: trial for trial in trials_of(out)}
    assert trials[1e-2].state == TrialState.COMPLETE
    assert trials[1e30].state == TrialState.FAIL
    assert "seed 1000 diverged at training step" in trials[1e30].user_attrs["failure"]
    assert "1 of 2 trials failed" in " ".join(capsys.readouterr().out.split())


def test_settings_that_do_not_go_together_fail_the_trial_alone(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    searches = ["n-head: 2 | 3", "n-embd: 16 | 24"]
    assert tune(["--search", *searches, "--sampler", "grid", "--pruner", "none", *options(out, text_folder)]) == 0
    states = {(t.params["n_head"], t.params["n_embd"]): t for t in trials_of(out)}
    assert states[3, 16].state == TrialState.FAIL
    assert "n_embd" in states[3, 16].user_attrs["failure"]
    assert [t.state for key, t in states.items() if key != (3, 16)] == [TrialState.COMPLETE] * 3


def test_equal_settings_are_not_run_again(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tune(["--search", "gradient: shared | leader", "--trials", "4", *options(out, text_folder)]) == 0
    trials = trials_of(out)
    assert len(trials) == 4
    assert len(list(out.glob("trials/*/seed1000"))) == len({trial.params["gradient"] for trial in trials})
    for trial in trials:
        assert trial.value == trials[trial.user_attrs.get("same_as", trial.number)].value


# ---- stopped, killed, side by side


def begin(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "tune.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "160"},
    )


def wait_for(process: subprocess.Popen[str], there: Any) -> None:
    for _ in range(1200):
        if there():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it did not come so far")


def results(out: Path) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.value, t.params, t.intermediate_values) for t in trials_of(out)]


def metrics(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.glob("trials/*/*/metrics.jsonl"))}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_sweep_ends_like_one_that_was_not(how: signal.Signals, text_folder: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    arguments = ["--search", RATES, "epsilon-floor: 0..0.3", "--trials", "3", "--seeds", "2", "--pruner", "none"]
    settings = ["--total-steps", "60", "--checkpoint-every", "5"]
    process = begin([*arguments, *options(out, text_folder), *settings])
    # In the second trial, past a checkpoint of its second run.
    wait_for(process, lambda: list(out.glob("trials/0001/seed1001.unfinished/checkpoints/*")))
    os.killpg(process.pid, how)
    text, _ = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130, text
        assert "The same command resumes from what is in the folder." in text
    assert [trial.state for trial in trials_of(out)] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert tune([*arguments, *options(out, text_folder), *settings]) == 0
    assert (out / "trials/0001/seed1001/resumes.jsonl").exists()
    assert tune([*arguments, *options(whole, text_folder), *settings]) == 0
    assert results(out) == results(whole)
    assert metrics(out) == metrics(whole)


def test_two_processes_share_the_trials(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--search", RATES, "--trials", "6", "--sampler", "random", *options(out, text_folder)]
    first, second = begin(arguments), begin(arguments)
    texts = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), texts
    trials = trials_of(out)
    assert len(trials) == 6 and not any(trial.state == TrialState.RUNNING for trial in trials)
    assert len({trial.params["learning_rate"] for trial in trials}) == 6
    assert "database is locked" not in "".join(texts)


def test_several_jobs_make_as_many_trials(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tune(["--search", RATES, "--trials", "3", "--jobs", "2", *options(out, text_folder)]) == 0
    assert len(trials_of(out)) == 3
    assert not any(trial.state == TrialState.RUNNING for trial in trials_of(out))


def test_a_trial_that_another_process_is_at_work_on_is_not_taken(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, base(), parse_searches([RATES], base()), (1000,), trials=2)
    with opened(sweep) as study:
        first = claim(study, sweep)
        second = claim(study, sweep)
        assert first is not None and second is not None
        assert (first.trial.number, second.trial.number) == (0, 1)
        assert claim(study, sweep) is None
        first.release()  # as a process that ends
        again = claim(study, sweep)
        assert again is not None
        assert (again.trial.number, again.trial.params) == (0, first.trial.params)
        again.release()
        second.release()


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "grid"])
def test_equal_seeds_search_the_same_and_other_seeds_do_not(sampler: Any, tmp_path: Path) -> None:
    searches = parse_searches(["learning-rate: 1e-4 | 1e-3 | 1e-2 | 1e-1", "n-layer: 1..6", "dropout: 0 | 0.1"], base())

    def drawn(name: str, seed: int) -> list[dict[str, Any]]:
        folder = tmp_path / name
        folder.mkdir()
        sweep = Sweep(folder, base(), searches, (1000,), trials=13, sampler=sampler, seed=seed)
        points = []
        for _ in range(13):  # a process of its own for each
            with opened(sweep) as study:
                claimed = claim(study, sweep)
                assert claimed is not None
                points.append(claimed.trial.params)
                study.tell(claimed.trial, float(claimed.trial.params["n_layer"]))
                claimed.release()
        return points

    first = drawn("a", 3)
    assert first == drawn("b", 3)
    assert first != drawn("c", 4)
    assert len({str(point) for point in first}) > 6


def test_help_answers_without_optuna() -> None:
    code = (
        "import sys; from tying_agents.commands import start\n"
        "try: start('tune', ['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('optuna', 'torch', 'sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--search" in done.stdout
