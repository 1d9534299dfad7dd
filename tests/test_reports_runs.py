import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tying_env import partition
from tying_env.files import to_json
from tying_env.reports.arms import group_into_arms, settings_of, varying_settings
from tying_env.reports.comparison import (
    choose_reference,
    cost_table,
    format_p,
    load_comparison,
    results_table,
)
from tying_env.reports.loading import find_runs, load_run

ENV: dict[str, Any] = {
    "dataset": "sotu",
    "tokenizer": "bytes",
    "n_layer": 4,
    "learning_rate": 1e-3,
    "k": 2,
    "freeze_at_start": True,
    "total_steps": 20,
    "validate_every": 4,
    "device": "auto",
    "dtype": "float32",
}


def make_records(n: int, n_layer: int, seed: int, start: int = 0) -> list[dict[str, Any]]:
    """Records of random actions every two steps, in which perplexity falls."""
    rng = np.random.default_rng(seed)
    before, records = np.zeros(n_layer, dtype=np.int64), []
    for i in range(1, n + 1):
        tying = partition.canonicalise(partition.uniform_random_action(n_layer, rng))
        changed = partition.events(before, tying)
        parameters = 1_000 + 500 * len(partition.leaders(tying))
        records.append(
            {
                "decision": start + i,
                "tying": tying,
                "validation_perplexity": float("inf") if i < 2 else 100.0 / (i // 2) + seed,
                "independent_layers": len(partition.leaders(tying)),
                "trainable_parameters": parameters,
                "tied_events": changed.tied,
                "untied_events": changed.untied,
                "train_step": 2 * i,
                "tokens": 128 * i,
                "diverged": False,
                "weights_bytes": 4 * parameters,
                "gradients_bytes": 4 * parameters,
                "optimizer_state_bytes": 8 * parameters,
            }
        )
        before = tying
    return records


def make_run(
    path: Path,
    agent: str = "random",
    seed: int = 0,
    *,
    perplexity: float = 10.0,
    status: str | None = "finished",
    env: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    records: list[dict[str, Any]] | None = None,
) -> Path:
    """Write a run directory as a run leaves it; status None: it has not ended."""
    path.mkdir(parents=True)
    settings = ENV | (env or {})
    written = {"agent": agent, "seed": seed, "test_windows": 8, "env": settings, **(config or {})}
    (path / "config.json").write_text(to_json(written))
    lines = make_records(10, settings["n_layer"], seed) if records is None else records
    (path / "metrics.jsonl").write_text("".join(to_json(record) + "\n" for record in lines))
    if status is not None:
        result = {"perplexity": perplexity, "bits_per_byte": perplexity / 5, "mean_loss": 2.0, "tokens": 64}
        summary = {
            "status": status,
            "best_validation_perplexity": perplexity + 1,
            "test": {"best": result, "final": result} if status == "finished" else None,
            "parameters_conventional": 3_000,
            "tokens_per_second": 500.0 + seed,
            "seconds": 2.0,
        }
        (path / "summary.json").write_text(to_json(summary))
    return path


def make_arms(folder: Path, seeds: int = 6) -> Path:
    """Write two arms: dqn is better than random by one, give or take."""
    for seed in range(seeds):
        make_run(folder / "random" / str(seed), "random", seed, perplexity=10 + seed)
        make_run(folder / "dqn" / str(seed), "dqn", seed, perplexity=9 + seed + 0.1 * (-1) ** seed)
    return folder


def change(path: Path, name: str, **entries: Any) -> None:
    """Change entries of a JSON file of a run."""
    (path / name).write_text(to_json(json.loads((path / name).read_text()) | entries))


def test_runs_are_found_at_any_depth_and_once(tmp_path: Path) -> None:
    make_run(tmp_path / "b")
    make_run(tmp_path / "a" / "deep" / "run", seed=1)
    make_run(tmp_path / "b" / "inside", seed=2)  # what a run keeps in itself is not another run
    assert find_runs([tmp_path / "b", tmp_path]) == [tmp_path / "b", tmp_path / "a" / "deep" / "run"]


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


def test_an_arm_may_not_have_a_seed_twice(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / name, "dqn", 3)) for name in "ab"]
    with pytest.raises(ValueError, match=r"arm 'dqn' has seed 3 twice: .*a and .*b"):
        group_into_arms(runs)


def test_an_arm_may_not_mix_settings(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / str(s), seed=s, env={"learning_rate": 10.0**-s})) for s in (1, 2)]
    with pytest.raises(ValueError, match=r"mixes settings: learning_rate is 0.1 in .*, 0.01 in .*label"):
        group_into_arms(runs)


def test_where_a_run_was_made_does_not_matter(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / d, seed=s, env={"device": d})) for s, d in enumerate(("cpu", "cuda"))]
    (arm,) = group_into_arms(runs)
    assert arm.seeds == (0, 1)
    assert "device" not in settings_of(runs[0])


def test_what_arms_differ_in_is_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn", config={"dqn": {"gamma": 0.9}})
    make_run(tmp_path / "b", "random", env={"learning_rate": 0.1}, config={"dqn": {"gamma": 0.8}})
    arms = group_into_arms([load_run(path) for path in find_runs([tmp_path])])
    assert varying_settings(arms) == ["agent", "learning_rate", "dqn.gamma"]


def test_the_reference_is_random_unless_another_is_named(tmp_path: Path) -> None:
    for agent in ("cycle", "dqn", "random"):
        make_run(tmp_path / agent, agent)
    arms = group_into_arms([load_run(path) for path in find_runs([tmp_path])])
    assert choose_reference(arms).label == "random"
    assert choose_reference(arms[:2]).label == "cycle"
    assert choose_reference(arms, "dqn").label == "dqn"
    with pytest.raises(ValueError, match=r"no arm 'sac' .*'cycle', 'dqn', 'random'"):
        choose_reference(arms, "sac")


def test_the_comparison_of_two_arms(tmp_path: Path) -> None:
    found = load_comparison([make_arms(tmp_path)])
    dqn, random = found.arms
    assert random.centre == pytest.approx(12.5)
    assert dqn.difference is not None and dqn.difference.mean == pytest.approx(-1)
    assert dqn.difference.p_value == dqn.corrected_p == pytest.approx(2 / 2**6)
    assert dqn.chance is not None and dqn.chance.decisions == 60
    assert found.notes == ()
    (dqn_row, random_row) = results_table(found).rows
    assert dqn_row[:2] == ("dqn", "6 of 6")
    assert dqn_row[4].startswith("-1.00\n[-1.")
    assert dqn_row[5:7] == ("0.031", "0.031")
    assert random_row[2].startswith("12.50\n[")
    assert random_row[4:] == ("reference", "–", "–", "–")
    assert cost_table(found).rows[1][5] == "502"  # mean of 500 ... 505, to even


def test_an_arm_does_not_change_the_numbers_of_another(tmp_path: Path) -> None:
    make_arms(tmp_path)
    before = results_table(load_comparison([tmp_path])).rows[0][:6]
    for seed in range(3):
        make_run(tmp_path / f"cycle{seed}", "cycle", seed, perplexity=3 + seed**2)
    assert results_table(load_comparison([tmp_path])).rows[1][:6] == before


def test_runs_without_a_result_are_told_of(tmp_path: Path) -> None:
    make_arms(tmp_path)
    make_run(tmp_path / "x", "dqn", 6, status="diverged")
    make_run(tmp_path / "y", "dqn", 7, status=None, records=[])
    found = load_comparison([tmp_path])
    assert results_table(found).rows[0][1] == "6 of 8"
    notes = "\n".join(found.notes)
    assert "dqn, seed 6: diverged: no result" in notes
    assert "dqn, seed 7: not ended: no result" in notes
    assert "looks better than it is" in notes


def test_unequal_seeds_are_told_of(tmp_path: Path) -> None:
    make_arms(tmp_path)
    make_run(tmp_path / "x", "cycle", 4)
    make_run(tmp_path / "y", "cycle", 9)
    make_run(tmp_path / "z", "albert", 8)
    found = load_comparison([tmp_path])
    notes = "\n".join(found.notes)
    assert "cycle has results of the seeds 4, 9, random of 0, 1, 2, 3, 4, 5: pairing covers the seeds 4 only" in notes
    assert "pairing covers nothing: they have no seed in common" in notes
    assert "albert has one seed with a result" in notes
    albert, cycle, *_ = results_table(found).rows
    assert albert[2] == "10.00\n(one seed: no interval)"
    assert albert[4] == "no seed in common"
    assert cycle[4] == "-4.00\n(one seed: no interval)"
    assert cycle[5:] == ("–", "–", "–")


def test_equal_differences_have_no_interval(tmp_path: Path) -> None:
    make_arms(tmp_path, seeds=2)
    for seed in range(2):
        make_run(tmp_path / f"x{seed}", "cycle", seed, perplexity=12 + seed)
    row = results_table(load_comparison([tmp_path])).rows[0]
    assert row[4] == "+2.00\n(all seeds equal: no interval)"
    assert row[7] == "–"


def test_few_seeds_cannot_be_significant_and_the_notes_say_so(tmp_path: Path) -> None:
    assert "cannot give less than p = 0.25" in "\n".join(load_comparison([make_arms(tmp_path, seeds=3)]).notes)


def test_different_yardsticks_and_software_are_told_of(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn", env={"tokenizer": "gpt2"}, config={"git_commit": "1", "episodes": 3})
    make_run(tmp_path / "b", "random", 0, config={"git_commit": "2", "pattern": {"trace": "p"}})
    make_run(tmp_path / "c", "random", 1, config={"git_commit": "2", "pattern": {"trace": "q"}})
    notes = "\n".join(load_comparison([tmp_path]).notes)
    assert "Arms differ in tokenizer: their results are not on one scale" in notes
    assert "The runs of random differ in pattern.trace" in notes
    assert "the same git commit" in notes
    assert "each run's last one" in notes


def test_no_result_at_all_names_the_metrics_that_there_are(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    change(run, "summary.json", test=None)
    with pytest.raises(ValueError, match=r"has no test perplexity .*; try --metric validation-perplexity"):
        load_comparison([tmp_path])
    assert load_comparison([tmp_path], metric="validation-perplexity").arms[0].centre == 11
    change(run, "summary.json", status="diverged")
    with pytest.raises(ValueError, match="no run has finished"):
        load_comparison([tmp_path])
    with pytest.raises(ValueError, match="metric must be one of test-perplexity, "):
        load_comparison([tmp_path], metric="loss")


def test_an_arm_without_any_result_stays_in_the_tables(tmp_path: Path) -> None:
    make_arms(tmp_path)
    make_run(tmp_path / "x", "cycle", 0, status="diverged")
    found = load_comparison([tmp_path])
    assert results_table(found).rows[0] == ("cycle", "0 of 1", "no result", "–", "no result", "–", "–", "–")
    assert cost_table(found).rows[0] == ("cycle", *["–"] * 6)


def test_small_probabilities_are_not_written_as_zero() -> None:
    assert (format_p(0.0004), format_p(0.0312), format_p(1.0)) == ("< 0.001", "0.031", "1.000")
