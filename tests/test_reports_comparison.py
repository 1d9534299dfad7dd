"""Arms are compared: their tables by hand, and notes of all that a reader has to know."""

import json
from pathlib import Path

import pytest

from tests.run_folders import change, make_arms, make_records, make_run
from tying_env.files import to_json
from tying_env.reports.arms import group_into_arms
from tying_env.reports.cells import format_p
from tying_env.reports.comparison import choose_reference, load_comparison
from tying_env.reports.costs import cost_table
from tying_env.reports.loading import find_runs, load_run
from tying_env.reports.results import results_table


def notes_of(folder: Path) -> str:
    return "\n".join(load_comparison([folder]).notes)


def test_of_runs_of_one_seed_the_newest_finished_one_counts(tmp_path: Path) -> None:
    runs = {"c old": ("1", "finished"), "b new": ("2", "finished"), "a newer": ("3", "interrupted"), "d": ("4", None)}
    for name, (hour, status) in runs.items():
        config = {
            "started": f"2026-01-01T0{hour}:00:00+00:00",
            "controller": {"gamma": 0.9 if name == "c old" else 0.8},
        }
        make_run(tmp_path / name, "dqn", 3, status=status, config=config)
    make_run(tmp_path / "other", "dqn", 4, config={"controller": {"gamma": 0.8}})
    found = load_comparison([tmp_path])
    (arm,) = (summary.arm for summary in found.arms)
    assert [run.path.name for run in arm.runs] == ["b new", "other"]
    assert [run.path.name for run in arm.left_out] == ["a newer", "c old", "d"]
    notes = "\n".join(found.notes)
    assert f"dqn has seed 3 more than once: {tmp_path / 'b new'} counts, the newest finished run." in notes
    assert f"Left out: {tmp_path / 'c old'} (finished; differs in controller.gamma)." in notes
    assert f"Left out: {tmp_path / 'a newer'} (interrupted)." in notes
    assert f"Left out: {tmp_path / 'd'} (not ended)." in notes


def test_traces_of_their_own_are_no_difference_between_runs_of_an_arm(tmp_path: Path) -> None:
    for seed, trace in enumerate("pq"):
        config = {"controller": {"trace": trace, "groups": seed}, "file_sha256": f"hash of {trace}"}
        make_run(tmp_path / trace, "replay", seed, config=config)
    notes = notes_of(tmp_path)
    assert "The runs of replay differ in controller.groups." in notes
    assert [summary.arm.label for summary in load_comparison([tmp_path]).arms] == ["replay"]


def test_another_text_under_one_traces_name_is_another_arm(tmp_path: Path) -> None:
    for seed in range(2):
        config = {"controller": {"trace": "p"}, "file_sha256": f"hash {seed}"}
        make_run(tmp_path / str(seed), "replay", seed, config=config)
    labels = [summary.arm.label for summary in load_comparison([tmp_path]).arms]
    assert labels == ["replay", "replay (file_sha256 hash 1)"]


def test_a_rate_on_the_edge_of_the_grid_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    for label, rate in (("dqn", 0.001), ("random", 0.01), ("cycle", 0.1)):
        make_run(tmp_path / "runs" / label / "seed0", label, env={"learning_rate": rate})
        for tried in ("0.001", "0.01", "0.1"):
            (tmp_path / "tuning" / label / f"lr{tried}").mkdir(parents=True)
    notes = notes_of(tmp_path)
    assert "edge of the grid for dqn (0.001, the least of 0.001, 0.01, 0.1)" in notes
    assert "edge of the grid for cycle (0.1, the greatest of 0.001, 0.01, 0.1)" in notes
    assert "random (" not in notes


def test_what_an_arm_spent_beside_training_and_what_it_did_not_learn_are_told(tmp_path: Path) -> None:
    records = make_records(10, 4, 0)
    make_run(tmp_path / "a", "hill-climbing", records=[*records[:-1], records[-1] | {"counterfactual_steps": 1200.0}])
    make_run(tmp_path / "t", "tree-search", records=[*records[:-1], records[-1] | {"trial_steps": 520}])
    make_run(tmp_path / "b", "ppo", config={"controller": {"sb3_n_steps": 10}})
    change(tmp_path / "b", "summary.json", learns_every=10)
    make_run(tmp_path / "c", "a2c", config={"controller": {"sb3_n_steps": 9}})
    change(tmp_path / "c", "summary.json", learns_every=9)
    notes = notes_of(tmp_path)
    # A run of an earlier version, and one whose trials are paid for.
    assert "hill-climbing also trained 1,200 steps a run on counterfactuals" in notes
    trained = records[-1]["train_step"]
    assert (
        f"tree-search spent 520 of its training steps a run on trials; its network was trained for {trained}" in notes
    )
    assert "ppo never learned before its last decision: it learns after every 10 decisions and made 10." in notes
    assert "a2c never" not in notes


def test_patterns_that_decide_nothing_are_not_set_against_chance(tmp_path: Path) -> None:
    records = make_records(10, 4, 0)
    for record in records:
        record |= {"tying": [0, 0, 2, 2], "independent_layers": 2}
    make_run(tmp_path / "a", "cycle", records=records)
    make_run(tmp_path / "b", "copies", env={"replication": "copied"})
    pattern, copied = cost_table(load_comparison([tmp_path])).rows
    assert pattern[1:4] == ("2.00 of 4\n(chance 2.08)", "–", "–")
    assert copied[1:4] == ("4.00 of 4\n(chance 2.08)", "–", "–")  # copies share nothing


def test_tyings_that_change_with_as_many_groups_are_not_set_against_chance(tmp_path: Path) -> None:
    records = make_records(10, 4, 0)
    for i, record in enumerate(records):
        record |= {"tying": [0, 0, 2, 2] if i % 2 else [0, 1, 0, 1], "independent_layers": 2}
    make_run(tmp_path / "a", "random-redrawn", records=records)
    assert cost_table(load_comparison([tmp_path])).rows[0][1:4] == ("2.00 of 4\n(chance 2.08)", "–", "–")


def test_results_are_per_byte_where_tokens_are_bytes(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn")
    assert "(per byte)" in results_table(load_comparison([tmp_path])).title
    make_run(tmp_path / "b", "cycle", env={"tokenizer": "gpt2"})
    assert "(per token)" in results_table(load_comparison([tmp_path])).title


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
    assert dqn.against.difference is not None and dqn.against.difference.mean == pytest.approx(-1)
    assert dqn.against.difference.p_value == dqn.against.corrected_p == pytest.approx(2 / 2**6)
    assert dqn.chance is not None and dqn.chance.decisions == 60
    assert found.notes == ()
    (dqn_row, random_row) = results_table(found).rows
    assert dqn_row[:2] == ("dqn", "6/6")
    # +-0.1 about -1, of a mean of 12.5; s = 0.10954, t(0.9925; 5) = 3.7312 (98.5%), and 1.806 s with six seeds
    assert dqn_row[4] == "-1.00 (-8.0%)\n[-1.16, -0.84]"
    assert dqn_row[5:] == ("0.031", "0.031", "0.20")
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
    assert cycle[4] == "-4.00 (-28.6%)\n(one seed:\nno interval)"
    assert cycle[5:] == ("–", "–", "–")


def test_equal_differences_have_no_interval(tmp_path: Path) -> None:
    make_arms(tmp_path, seeds=2)
    for seed in range(2):
        make_run(tmp_path / f"x{seed}", "cycle", seed, perplexity=12 + seed)
    row = results_table(load_comparison([tmp_path])).rows[-1]
    assert row[4] == "+2.00 (+19.0%)\n(all seeds equal:\nno interval)"
    assert row[7] == "none:\np ≥ 0.500"


def test_few_seeds_cannot_be_significant_and_the_notes_say_so(tmp_path: Path) -> None:
    found = load_comparison([make_arms(tmp_path / "three", seeds=3)])
    assert "cannot give less than p = 0.250, however large the difference; 6 are the fewest" in "\n".join(found.notes)
    assert results_table(found).rows[0][7] == "none:\np ≥ 0.250"
    assert "cannot give" not in notes_of(make_arms(tmp_path / "six", seeds=6))


def test_holms_correction_can_need_more_seeds_and_the_notes_say_how_many(tmp_path: Path) -> None:
    make_arms(tmp_path, seeds=6)
    assert "p (Holm)" not in notes_of(tmp_path)  # 1 x 0.031
    for seed in range(6):
        make_run(tmp_path / "cycle" / str(seed), "cycle", seed, perplexity=5 + seed + 0.1 * seed)
    expected = (
        "With 2 arms compared and 6 pairs of seeds no p (Holm) below 0.05 can come out: the least is 0.062. 7 seeds"
    )
    assert expected in notes_of(tmp_path)


def test_arms_that_act_and_end_alike_are_said_to_be_the_same(tmp_path: Path) -> None:
    make_arms(tmp_path)
    before = results_table(load_comparison([tmp_path])).rows
    for seed in range(6):  # as `random`, but for rounding
        make_run(tmp_path / "twin" / str(seed), "twin", seed, perplexity=(10 + seed) * (1 + 1e-9 * seed))
    found = load_comparison([tmp_path])
    assert results_table(found).rows[-1][4:] == ("the same", "–", "–", "–")
    assert results_table(found).rows[:2] == before  # none the worse by Holm's correction
    assert "twin did the same as random in every seed that both have (0, 1, 2, 3, 4, 5)" in "\n".join(found.notes)


@pytest.mark.parametrize("what", ["one tying", "one test result", "one validation", "the end"])
def test_arms_that_differ_in_anything_are_not_the_same(tmp_path: Path, what: str) -> None:
    make_arms(tmp_path, seeds=3)
    for seed in range(3):
        make_run(tmp_path / "twin" / str(seed), "twin", seed, perplexity=10 + seed)
    assert load_comparison([tmp_path]).arms[-1].against.same
    records, run = make_records(10, 4, 1), tmp_path / "twin" / "1"
    if what == "one tying":
        records[7] |= {"tying": [0, 0, 0, 0] if records[7]["tying"].any() else [0, 1, 2, 3]}
    elif what == "one validation":
        records[7] |= {"validation_perplexity": records[7]["validation_perplexity"] + 0.01}
    elif what == "the end":
        records = records[:-1]
    else:
        change(run, "summary.json", best_validation_perplexity=11.5)
    (run / "metrics.jsonl").write_text("".join(to_json(record) + "\n" for record in records))
    found = load_comparison([tmp_path])
    assert not found.arms[-1].against.same
    assert results_table(found).rows[-1][4].startswith("+0.00 (+0.0%)")


def test_different_yardsticks_and_software_are_told_of(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "dqn", env={"tokenizer": "gpt2"}, config={"git_commit": "1", "episodes": 3})
    make_run(tmp_path / "b", "random", 0, config={"git_commit": "2", "controller": {"groups": 1}})
    make_run(tmp_path / "c", "random", 1, config={"git_commit": "2", "controller": {"groups": 2}})
    notes = notes_of(tmp_path)
    assert "Arms differ in tokenizer: their results are not on one scale" in notes
    assert "The runs of random differ in controller.groups" in notes
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


def test_equivalence_is_shown_where_the_whole_interval_is_within_the_margin(tmp_path: Path) -> None:
    make_arms(tmp_path)  # -1 ± 0.1 by seed, of a mean of 12.5: -8.8 to -7.2 % and a little
    for margin, said in ((5.0, "not shown"), (7.9, "not shown"), (10.0, "yes")):
        table = results_table(load_comparison([tmp_path], margin=margin))
        assert table.headings[-1] == f"within {margin:g}%"
        assert [row[-1] for row in table.rows] == ([said, "–"] if table.rows[0][0] == "dqn" else ["–", said])
    assert "within" not in " ".join(results_table(load_comparison([tmp_path])).headings)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"equivalence must be a number of per cent above 0, got"):
            load_comparison([tmp_path], margin=wrong)


def test_bits_are_per_base_where_all_data_are_dna(tmp_path: Path) -> None:
    for name, tokenizer in (("dna", "dna"), ("text", "bytes")):
        make_run(tmp_path / name / "one", "random", env={"tokenizer": tokenizer})
    for folders, bits in ((["dna"], "base"), (["text"], "byte"), (["dna", "text"], "byte")):
        paths = [tmp_path / folder for folder in folders]
        assert results_table(load_comparison(paths)).headings[3] == f"bits/{bits}"
        title = results_table(load_comparison(paths, metric="bits-per-byte")).title
        assert title == f"Test bits per {bits} of the best network (bits/{bits}), lower is better"


def test_accuracy_is_a_share_of_what_is_classified_and_the_first_perplexity_that_of_the_first_decision(
    tmp_path: Path,
) -> None:
    for seed in range(6):
        for agent, first in (("a", 30.0), ("b", 33.0)):
            records = make_records(4, 4, seed)
            records[0]["perplexity"] = first + seed
            run = make_run(tmp_path / agent / str(seed), agent, seed, env={"model": "speech"}, records=records)
            summary = json.loads((run / "summary.json").read_text())
            summary["test"]["best"]["accuracy"] = 0.5
            (run / "summary.json").write_text(to_json(summary))
    found = load_comparison([tmp_path], reference="a", metric="first-perplexity")
    assert [arm.centre for arm in found.arms] == [32.5, 35.5]
    assert found.arms[1].against.difference is not None and found.arms[1].against.difference.mean == 3
    table = results_table(found)
    assert table.title.startswith("Perplexity of the first decision (per utterance), lower is better")
    assert table.rows[0][3] == "0.500"  # beside it what the best network came to
    title = results_table(load_comparison([tmp_path], reference="a", metric="test-accuracy")).title
    assert title.startswith("Test accuracy of the best network (share of utterances), higher is better")
