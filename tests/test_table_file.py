"""The file of the tying table: read as it was written, and refused by name when it is not what it should be."""

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.tables import made_up_table, written
from tying_env.table import PACKAGED, TyingTable, open_table, write_table
from tying_env.table.file import TEST, VALIDATION, _digest

ROOT = Path(__file__).parents[1]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = made_up_table(missing=7)
    again = open_table(written(tmp_path, table))
    assert again.settings == table.settings and list(again.corpora) == ["other", "sotu"]
    for name in ("tyings", "points", "parameters", "memory"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    for name, corpus in table.corpora.items():
        for field in ("learning_rates", "seeds", "losses", "seconds"):
            np.testing.assert_array_equal(getattr(again.corpora[name], field), getattr(corpus, field))


def test_rows_are_found_by_tying() -> None:
    table = made_up_table()
    assert len(table.tyings) == 203
    assert [table.row(tying) for tying in table.tyings] == list(range(203))
    with pytest.raises(ValueError, match=r"\[0, 1, 1, 2, 0, 0\] is not a tying in canonical form"):
        table.row([0, 1, 1, 2, 0, 0])
    with pytest.raises(ValueError, match="one entry per layer"):
        table.row([0, 1, 1])


def test_seeds_that_are_not_whole_do_not_count() -> None:
    corpus = made_up_table(seeds=3, missing=1).corpora["sotu"]
    assert corpus.whole_seeds.tolist() == [0, 1]
    assert corpus.at_rate().shape == (2, 203, 3, 3)
    with pytest.raises(ValueError, match="no seed has every tying"):
        made_up_table(seeds=1, missing=1).corpora["sotu"].at_rate()


def test_each_tying_is_shown_at_its_best_rate_by_validation() -> None:
    corpus = made_up_table(rates=3).corpora["sotu"]
    for tying in (0, 17, 202):
        by_hand = [corpus.losses[rate, :, tying, VALIDATION, -1].mean() for rate in range(3)]
        assert corpus.best_rates[tying] == int(np.argmin(by_hand))
        np.testing.assert_array_equal(corpus.at_rate()[:, tying], corpus.losses[corpus.best_rates[tying], :, tying])
    np.testing.assert_array_equal(corpus.at_rate(2e-3), corpus.losses[1])
    with pytest.raises(ValueError, match=r"one of 0.001, 0.002, 0.004, got 0.003"):
        corpus.at_rate(3e-3)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole), size=60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            again = open_table(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # bits that zip files keep twice or do not use
            np.testing.assert_array_equal(again.corpora["sotu"].losses, made_up_table().corpora["sotu"].losses)
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a tying table, or is damaged"):
            open_table(path)


def test_changed_numbers_other_versions_and_other_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    arrays = dict(np.load(path))
    np.savez(tmp_path / "changed.npz", **arrays | {"parameters": arrays["parameters"] + 1})
    with pytest.raises(ValueError, match="is damaged or was changed: its sha256 is"):
        open_table(tmp_path / "changed.npz")
    np.savez(tmp_path / "later.npz", **arrays | {"version": np.array(2)})
    with pytest.raises(ValueError, match="is a tying table of version 2; this package reads version 1"):
        open_table(tmp_path / "later.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="is not a tying table: it has no version"):
        open_table(tmp_path / "other.npz")
    earlier = {name: each for name, each in arrays.items() if name not in ("sotu/processors", "sha256")}
    np.savez(tmp_path / "earlier.npz", **earlier, sha256=np.array(_digest(earlier)))
    with pytest.raises(ValueError, match="is of an earlier version: it has no 'sotu/processors'; layer-tying tabulate"):
        open_table(tmp_path / "earlier.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="is not a tying table"):
        open_table(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", arrays["parameters"])
    with pytest.raises(ValueError, match=r"one\.npy is not a tying table, or is damaged: it holds one array"):
        open_table(tmp_path / "one.npy")
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "none.npz")


def test_a_pickle_in_the_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, version=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a tying table, or is damaged: Object arrays cannot be loaded"):
        open_table(path)


def test_a_table_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    with pytest.raises(TypeError):
        write_table(TyingTable(object(), *[None] * 5), path)  # type: ignore[arg-type]
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_table_is_opened_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from tying_env.table import open_table; import gymnasium, tying_env\n"
        f"table = open_table({str(written(tmp_path))!r})\n"
        f"gymnasium.make('LayerTying-Table-v0', table={str(tmp_path / 'table.npz')!r}, budget=96).reset(seed=0)\n"
        "print(len(table.tyings), [m for m in ('torch', 'transformers', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "203 []"


def test_the_packages_own_table_is_whole_and_in_the_wheel() -> None:
    table = open_table()
    assert (table.n_layer, len(table.tyings), table.points[-1], len(table.points)) == (6, 203, 384, 12)
    for name, seeds, rates in (("sotu", 5, [2e-3, 4e-3, 8e-3]), ("wikitext-2", 3, [4e-3, 8e-3])):
        corpus = table.corpus(name)
        assert len(corpus.whole_seeds) == len(corpus.seeds) == seeds and corpus.learning_rates.tolist() == rates
        # Conventional training at its best rate is far below the frequencies of bytes, some 20.
        assert np.exp(corpus.at_rate()[:, -1, TEST, -1].mean()) < 11
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["tying_env"]
    assert any(PACKAGED.match(pattern) for pattern in patterns) and PACKAGED.stat().st_size < 3e6


def test_a_digest_of_a_corpus_does_not_depend_on_the_others() -> None:
    table = made_up_table()
    alone = dataclasses.replace(table, corpora={"sotu": table.corpora["sotu"]})
    later = dataclasses.replace(table.corpora["sotu"], seconds=table.corpora["sotu"].seconds + 1)
    assert table.sha256_of("sotu") == alone.sha256_of("sotu") != table.sha256_of("other")
    assert dataclasses.replace(table, corpora={"sotu": later}).sha256_of("sotu") == table.sha256_of("sotu")
    fewer = dataclasses.replace(table.corpora["sotu"], losses=table.corpora["sotu"].losses + 1e-9)
    assert dataclasses.replace(table, corpora={"sotu": fewer}).sha256_of("sotu") != table.sha256_of("sotu")
