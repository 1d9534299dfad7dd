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
from tying_env.reports.loading import find_runs, find_unfinished, load_run

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


def test_of_runs_of_one_seed_the_newest_finished_one_counts(tmp_path: Path) -> None:
    runs = {"c old": ("1", "finished"), "b new": ("2", "finished"), "a newer": ("3", "interrupted"), "d": ("4", None)}
    for name, (hour, status) in runs.items():
        config = {"started": f"2026-01-01T0{hour}:00:00+00:00", "dqn": {"gamma": 0.9 if name == "c old" else 0.8}}
        make_run(tmp_path / name, "dqn", 3, status=status, config=config)
    make_run(tmp_path / "other", "dqn", 4, config={"dqn": {"gamma": 0.8}})
    found = load_comparison([tmp_path])
    (arm,) = (summary.arm for summary in found.arms)
    assert [run.path.name for run in arm.runs] == ["b new", "other"]
    assert [run.path.name for run in arm.left_out] == ["a newer", "c old", "d"]
    notes = "\n".join(found.notes)
    assert f"dqn has seed 3 more than once: {tmp_path / 'b new'} counts, the newest finished run." in notes
    assert f"Left out: {tmp_path / 'c old'} (finished; differs in dqn.gamma)." in notes
    assert f"Left out: {tmp_path / 'a newer'} (interrupted)." in notes
    assert f"Left out: {tmp_path / 'd'} (not ended)." in notes


def test_traces_of_their_own_are_no_difference_between_runs_of_an_arm(tmp_path: Path) -> None:
    for seed, trace in enumerate("pq"):
        make_run(tmp_path / trace, "replay", seed, config={"pattern": {"trace": trace, "groups": seed}})
    notes = "\n".join(load_comparison([tmp_path]).notes)
    assert "The runs of replay differ in pattern.groups." in notes


def test_runs_of_one_label_with_other_settings_are_told_apart(tmp_path: Path) -> None:
    first = load_run(make_run(tmp_path / "a"))
    other = load_run(make_run(tmp_path / "b", env={"learning_rate": 0.1, "tokenizer": "gpt2"}))
    again = load_run(make_run(tmp_path / "c", seed=1, env={"learning_rate": 0.1, "tokenizer": "gpt2"}))
    arms = group_into_arms([first, other, again])
    assert [arm.label for arm in arms] == ["random", "random (tokenizer gpt2, learning_rate 0.1)"]
    assert [arm.seeds for arm in arms] == [(0,), (0, 1)]


def test_a_comparison_has_its_arms_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    for name, agent in (("z", "random"), ("a", "cycle"), ("m", "albert"), ("b", "dqn")):
        make_run(tmp_path / "runs" / name / "seed0", agent)
    (tmp_path / "runs" / "z" / "seed1.unfinished").mkdir()
    (tmp_path / "runs" / "z" / "seed1.unfinished" / "config.json").write_text("{")
    (tmp_path / "comparison.json").write_text('{"arms": ["m", "z", "a"]}')
    assert [path.parent.name for path in find_runs([tmp_path])] == ["m", "z", "a", "b"]
    assert find_unfinished([tmp_path]) == [tmp_path / "runs" / "z" / "seed1.unfinished"]


def test_a_rate_on_the_edge_of_the_grid_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    for label, rate in (("dqn", 0.001), ("random", 0.01), ("cycle", 0.1)):
        make_run(tmp_path / "runs" / label / "seed0", label, env={"learning_rate": rate})
        for tried in ("0.001", "0.01", "0.1"):
            (tmp_path / "tuning" / label / f"lr{tried}").mkdir(parents=True)
    notes = "\n".join(load_comparison([tmp_path]).notes)
    assert "edge of the grid for dqn (0.001, the least of 0.001, 0.01, 0.1)" in notes
    assert "edge of the grid for cycle (0.1, the greatest of 0.001, 0.01, 0.1)" in notes
    assert "random (" not in notes


def test_what_an_arm_spent_beside_training_and_what_it_did_not_learn_are_told(tmp_path: Path) -> None:
    records = make_records(10, 4, 0)
    records[-1] |= {"counterfactual_steps": 1200.0}
    make_run(tmp_path / "a", "hill-climbing", records=records)
    make_run(tmp_path / "b", "ppo", config={"sb3": {"sb3_n_steps": 10}}, records=make_records(10, 4, 0))
    make_run(tmp_path / "c", "a2c", config={"sb3": {"sb3_n_steps": 9}}, records=make_records(10, 4, 0))
    notes = "\n".join(load_comparison([tmp_path]).notes)
    assert "hill-climbing also trained 1,200 steps a run on counterfactuals" in notes
    assert "ppo never learned before its last decision: it learns after every 10 decisions and made 10." in notes
    assert "a2c never" not in notes


def test_patterns_that_decide_nothing_are_not_set_against_chance(tmp_path: Path) -> None:
    records = make_records(10, 4, 0)
    for record in records:
        record |= {"tying": [0, 0, 2, 2], "independent_layers": 2}
    make_run(tmp_path / "a", "cycle", records=records)
    make_run(tmp_path / "b", "copies", env={"replication": "copied"}, records=make_records(10, 4, 0))
    pattern, copied = cost_table(load_comparison([tmp_path])).rows
    assert pattern[1:4] == ("2.00 of 4\n(chance 2.08)", "–", "–")
    assert copied[1:4] == ("4.00 of 4\n(chance 2.08)", "–", "–")  # copies share nothing


def test_results_are_per_byte_where_tokens_are_bytes(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn")
    assert "(per byte)" in results_table(load_comparison([tmp_path])).title
    make_run(tmp_path / "b", "cycle", env={"tokenizer": "gpt2"})
    assert "(per token)" in results_table(load_comparison([tmp_path])).title


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
    assert dqn_row[:2] == ("dqn", "6/6")
    assert dqn_row[4].startswith("-1.00\n[-1.")
    assert dqn_row[5:7] == ("0.031", "0.031")
    assert random_row[2].startswith("12.50\n[")
    assert random_row[4:] == ("reference", "–", "–", "–")
    assert cost_table(found).rows[1][5] == "2.0"  # seconds a run


def test_an_arm_does_not_change_the_numbers_of_another(tmp_path: Path) -> None:
    make_arms(tmp_path)
    before = results_table(load_comparison([tmp_path])).rows[0][:6]
    assert before[0] == "dqn"
    for seed in range(3):
        make_run(tmp_path / f"cycle{seed}", "cycle", seed, perplexity=3 + seed**2)
    assert before in [row[:6] for row in results_table(load_comparison([tmp_path])).rows]


def test_runs_without_a_result_are_told_of(tmp_path: Path) -> None:
    make_arms(tmp_path)
    make_run(tmp_path / "x", "dqn", 6, status="diverged")
    make_run(tmp_path / "y", "dqn", 7, status=None, records=[])
    found = load_comparison([tmp_path])
    assert results_table(found).rows[0][1] == "6/8"
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
    *_, cycle, albert = results_table(found).rows
    assert albert[2] == "10.00\n(one seed:\nno interval)"
    assert albert[4] == "no seed in common"
    assert cycle[4] == "-4.00\n(one seed:\nno interval)"
    assert cycle[5:] == ("–", "–", "–")


def test_equal_differences_have_no_interval(tmp_path: Path) -> None:
    make_arms(tmp_path, seeds=2)
    for seed in range(2):
        make_run(tmp_path / f"x{seed}", "cycle", seed, perplexity=12 + seed)
    row = results_table(load_comparison([tmp_path])).rows[-1]
    assert row[4] == "+2.00\n(all seeds equal:\nno interval)"
    assert row[7] == "–"


def test_few_seeds_cannot_be_significant_and_the_notes_say_so(tmp_path: Path) -> None:
    assert "cannot give less than p = 0.250;" in "\n".join(load_comparison([make_arms(tmp_path, seeds=3)]).notes)


def test_different_yardsticks_and_software_are_told_of(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn", env={"tokenizer": "gpt2"}, config={"git_commit": "1", "episodes": 3})
    make_run(tmp_path / "b", "random", 0, config={"git_commit": "2", "pattern": {"groups": 1}})
    make_run(tmp_path / "c", "random", 1, config={"git_commit": "2", "pattern": {"groups": 2}})
    notes = "\n".join(load_comparison([tmp_path]).notes)
    assert "Arms differ in tokenizer: their results are not on one scale" in notes
    assert "The runs of random differ in pattern.groups" in notes
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
    assert results_table(found).rows[-1] == ("cycle", "0/1", "no result", "–", "no result", "–", "–", "–")
    assert cost_table(found).rows[-1] == ("cycle", *["–"] * 6)


def test_small_probabilities_are_not_written_as_zero() -> None:
    assert (format_p(0.0004), format_p(0.0312), format_p(1.0)) == ("< 0.001", "0.031", "1.000")
