"""Runs are found, loaded and put together into arms; damaged ones are named."""

from pathlib import Path

import pytest

from tests.run_folders import make_records, make_run
from tying_env.reports.arms import comparability_notes, group_into_arms, settings_of, varying_settings
from tying_env.reports.loading import Run, find_runs, find_unfinished, load_run
from tying_env.reports.metrics import METRICS_BY_KEY


def test_runs_are_found_at_any_depth_and_once(tmp_path: Path) -> None:
    make_run(tmp_path / "b")
    make_run(tmp_path / "a" / "deep" / "run", seed=1)
    make_run(tmp_path / "b" / "inside", seed=2)  # what a run keeps in itself is not another run
    assert find_runs([tmp_path / "b", tmp_path]) == [tmp_path / "b", tmp_path / "a" / "deep" / "run"]


def test_networks_that_lie_among_runs_are_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    for name, text in (("exported", '{"architectures": ["GPT2LMHeadModel"]}'), ("hub", '{"model_type": "llama"}')):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.json").write_text(text)
    (tmp_path / "runs" / "exported" / "tying.json").write_text("{}")
    assert find_runs([tmp_path]) == [tmp_path / "runs" / "a"]
    with pytest.raises(FileNotFoundError, match="no runs found in"):
        find_runs([tmp_path / "runs" / "exported"])


def test_of_a_comparison_the_tuning_runs_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    for name in ("tuning/dqn/lr0.1/seed9", "runs/dqn/seed0"):
        make_run(tmp_path / name)
    assert find_runs([tmp_path]) == [tmp_path / "runs/dqn/seed0"]


def test_no_runs_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no runs found in {tmp_path}"):
        find_runs([tmp_path])
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="no runs found"):
        find_runs([])


@pytest.mark.parametrize("line", ["{", "[1]", '{"decision": 3, "repl', "\x00"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3 is damaged"):
        load_run(run)


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_text('{"agent": "dqn"')
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        load_run(run)
    (run / name).write_text("[]")
    with pytest.raises(ValueError, match=f"{name} is damaged: it holds no object"):
        load_run(run)


def test_a_config_of_something_else_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="not of a run: it has no 'agent'"):
        load_run(tmp_path)


def test_a_label_names_the_arm_and_the_agent_does_without_one(tmp_path: Path) -> None:
    labelled = make_run(tmp_path / "a", "dqn", config={"label": "dqn+shuffled"})
    assert load_run(labelled).label == "dqn+shuffled"
    assert load_run(make_run(tmp_path / "b", "dqn", config={"label": None})).label == "dqn"


def test_records_are_those_of_the_last_episode(tmp_path: Path) -> None:
    episodes = [record | {"episode": e} for e in (1, 2) for record in make_records(3, 4, e, start=3 * (e - 1))]
    run = load_run(make_run(tmp_path / "run", records=episodes))
    assert run.column("decision") == [4, 5, 6]
    assert run.column("train_step") == [2, 4, 6]


def test_conventional_memory_is_four_copies_of_every_parameter(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run"))
    assert run.conventional_memory() == 3_000 * 4 * 4
    assert max(run.memory()) <= run.conventional_memory()  # type: ignore[operator]
    assert load_run(make_run(tmp_path / "going", status=None)).conventional_memory() is None


def test_runs_of_one_label_with_other_settings_are_told_apart(tmp_path: Path) -> None:
    first = load_run(make_run(tmp_path / "a"))
    other = load_run(make_run(tmp_path / "b", env={"learning_rate": 0.1, "tokenizer": "gpt2"}))
    again = load_run(make_run(tmp_path / "c", seed=1, env={"learning_rate": 0.1, "tokenizer": "gpt2"}))
    arms = group_into_arms([first, other, again])
    assert [arm.label for arm in arms] == ["random", "random (tokenizer gpt2, learning_rate 0.1)"]
    assert [arm.seeds for arm in arms] == [(0,), (0, 1)]
    reused = load_run(make_run(tmp_path / "0", env={"attention": "reused"}))
    assert [arm.label for arm in group_into_arms([reused, first])] == ["random (attention reused)", "random"]


def test_each_seed_of_an_arm_may_start_from_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    def run(seed: int, checkpoint: str | None, label: str = "tied") -> Run:
        name = f"{label}-{seed}-{checkpoint}"
        return load_run(make_run(tmp_path / name, seed=seed, env={"init_from": checkpoint}, config={"label": label}))

    own = [run(seed, f"stack{seed}") for seed in (0, 1)]
    arms = group_into_arms([*own, run(0, "stack1", "other"), run(0, "stack0", "other"), run(1, "stack1", "other")])
    assert [(arm.label, arm.seeds) for arm in arms] == [
        *[("tied", (0, 1)), ("other", (0, 1))],
        ("other (init_from stack0)", (0,)),  # one seed from two checkpoints: they are compared
    ]
    notes = comparability_notes(arms[:1], arms[0], METRICS_BY_KEY["test-perplexity"])
    assert "The runs of tied differ in init_from." in notes


def test_a_comparison_has_its_arms_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    for name, agent in (("z", "random"), ("a", "cycle"), ("m", "albert"), ("b", "dqn")):
        make_run(tmp_path / "runs" / name / "seed0", agent)
    (tmp_path / "runs" / "z" / "seed1.unfinished").mkdir()
    (tmp_path / "runs" / "z" / "seed1.unfinished" / "config.json").write_text("{")
    (tmp_path / "comparison.json").write_text('{"arms": ["m", "z", "a"]}')
    assert [path.parent.name for path in find_runs([tmp_path])] == ["m", "z", "a", "b"]
    assert find_unfinished([tmp_path]) == [tmp_path / "runs" / "z" / "seed1.unfinished"]


def test_where_a_run_was_made_does_not_matter(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / d, seed=s, env={"device": d})) for s, d in enumerate(("cpu", "cuda"))]
    (arm,) = group_into_arms(runs)
    assert arm.seeds == (0, 1)
    assert "device" not in settings_of(runs[0])


def test_what_arms_differ_in_is_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn", config={"controller": {"gamma": 0.9}})
    make_run(tmp_path / "b", "layer-sweep-dqn", env={"learning_rate": 0.1}, config={"controller": {"gamma": 0.8}})
    make_run(tmp_path / "c", "random")  # it has no gamma
    arms = group_into_arms([load_run(path) for path in find_runs([tmp_path])])
    assert varying_settings(arms) == ["agent", "learning_rate", "controller.gamma"]
