"""Sweeps: trials and their values, the page, pruning and failing, and the way to compare."""

import json
import math
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState
from tying_agents.commands.compare import main as compare
from tying_agents.commands.compare import parse_arm
from tying_agents.commands.many_runs import as_run
from tying_agents.commands.tune import main as tune
from tying_agents.commands.tune import next_commands, parse
from tying_agents.config_files import overlaid, read_config_file
from tying_agents.loop import Loop
from tying_agents.many.tuning.plan import STORAGE, Sweep, refuse_other_sweep
from tying_agents.many.tuning.result import read_result
from tying_agents.many.tuning.search import parse_searches, with_values
from tying_agents.many.tuning.study import claim, opened
from tying_agents.many.tuning.trial import Reporter, said_before
from tying_agents.run_config import RunConfig
from tying_agents.settings import DQNConfig

from tests.own_code import CONTROLLER, write
from tests.pictures import AS_SOURCE
from tests.sweeps import RATES, TOTAL_STEPS, base, options, trials_of
from tying_env.reports import page as pages
from tying_env.reports.sweep_page import render_sweep, sweep_pictures
from tying_env.runs import RunDirectory


@pytest.fixture(scope="module")
def swept(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep of five trials."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    arguments = ["--search", RATES, "gradient: shared | leader", "--trials", "5", "--pruner", "none"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_as_source", AS_SOURCE)
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
        assert list(trial.intermediate_values) == [TOTAL_STEPS // 2, TOTAL_STEPS]
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


def test_a_folder_in_which_another_process_is_beginning_the_same_sweep_is_not_refused(tmp_path: Path) -> None:
    for name in ("study.lock", "sweep.json.tmp"):
        (tmp_path / name).touch()
    refuse_other_sweep(Sweep(tmp_path, RunConfig(), parse_searches([RATES], RunConfig()), (0,)))


@pytest.mark.usefixtures("figures")
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


@pytest.mark.filterwarnings("error")  # optuna's, of a step that is reported twice
def test_what_is_measured_again_after_a_crash_is_reported_once() -> None:
    trial = optuna.create_study().ask()
    inner = SimpleNamespace(train_step=0, config=SimpleNamespace(total_steps=40, validate_every=10))
    loop = SimpleNamespace(inner=inner, train_step=0, total_steps=40, finished=False)

    def measure(reporter: Reporter, step: int, perplexity: float) -> None:
        inner.train_step = loop.train_step = step
        reporter.validation_measured(cast(Loop, loop), {"validation_perplexity": perplexity})

    reporter = Reporter(trial, [], last=True)
    measure(reporter, 10, 9.0)
    measure(reporter, 20, 8.0)
    for step in (10, 20, 30):
        measure(again := Reporter(trial, [], last=True), step, 5.0)
        assert not again.pruned
    assert said_before(trial) == {10: 9.0, 20: 8.0, 30: 5.0}


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
    assert tune([*arguments, *options(out, text_folder), "--agent", "conventional", "--total-steps", "16"]) == 0
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
    config = base(total_steps=40, validate_every=5)
    searches = parse_searches(["dropout: 0..0.9"], config)
    sweep = Sweep(tmp_path, config, searches, (1000,), trials=16, sampler="random", pruner=pruner)
    pruned, complete = [], []
    with opened(sweep) as study:
        while (claimed := claim(study, sweep)) is not None:
            trial, value = claimed.trial, claimed.trial.params["dropout"]
            for step in range(5, 41, 5):  # in place of a run
                trial.report(value + 1 / step, step)
                if step < 40 and trial.should_prune():
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


def test_an_error_of_own_code_ends_the_sweep_also_if_it_speaks_of_memory(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    act = "        curious ="
    file = write(tmp_path, "memory.py", CONTROLLER.replace(act, f"        raise LookupError('no memory of it')\n{act}"))
    out = tmp_path / "out"
    assert tune(["--search", RATES, "--agent", f"{file}:Mine", *options(out, text_folder)]) == 1
    assert f"the controller Mine ({file}) raised LookupError in act(): no memory of it" in capsys.readouterr().out
    assert [trial.state for trial in trials_of(out)] == [TrialState.RUNNING], "it is resumed when the code is mended"
