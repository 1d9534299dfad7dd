"""Arms compared in pairs: a table and a correction of their own."""

from pathlib import Path

import pytest

from tests.run_folders import make_arms, make_run
from tying_env.reports.comparison import load_comparison
from tying_env.reports.pairs import labels_of
from tying_env.reports.results import pairs_table, results_table


def test_pairs_have_a_table_and_a_correction_of_their_own(tmp_path: Path) -> None:
    make_arms(tmp_path)
    for seed in range(6):
        make_run(tmp_path / "cycle" / str(seed), "cycle", seed, perplexity=5 + seed + 0.1 * seed)
    assert pairs_table(load_comparison([tmp_path])) is None
    found = load_comparison([tmp_path], pairs=["dqn : random", "cycle:dqn"])
    table = pairs_table(found)
    assert table is not None
    for row, (arm, other) in zip(table.rows, (("dqn", "random"), ("cycle", "dqn")), strict=True):
        assert row[:3] == (arm, other, "6")
        assert row[4:6] == ("0.031", "0.062")  # twice the least that six seeds can give
    against_dqn = {row[0]: row for row in results_table(load_comparison([tmp_path], "dqn")).rows}
    assert table.rows[1][3] == against_dqn["cycle"][4]
    assert "With 2 pairs compared and 6 pairs of seeds no p (Holm) below 0.05" in "\n".join(found.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dqn", "two labels with a colon between them, got 'dqn'"),
        (":", "there is no arm '' in the pair ':'"),
        ("dqn:rando", r"no arm 'rando' in the pair 'dqn:rando'; the labels are 'dqn', 'random'"),
        ("dqn:dqn", "an arm and itself"),
        ("random: dqn", "'random: dqn' is asked for twice"),
    ],
)
def test_pairs_that_are_none_are_refused(tmp_path: Path, name: str, message: str) -> None:
    make_arms(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_comparison([tmp_path], pairs=["dqn:random", name])


def test_labels_with_colons_can_be_paired() -> None:
    known = ["net.py:make", "random", "a: b"]
    assert labels_of(["net.py:make:random"], known) == [("net.py:make", "random")]
    assert labels_of(["a: b:net.py:make"], known) == [("a: b", "net.py:make")]
    with pytest.raises(ValueError, match=r"no arm 'net.py' in the pair 'net.py:mak:random'"):
        labels_of(["net.py:mak:random"], known)
