"""Token files on disk: every text is tokenized once, and later runs map the tokens into memory.

Each text and tokenizer have a folder of their own in the cache, named by a hash of all that decides its tokens:

    <cache>/<key>/train.bin, validation.bin, test.bin    token ids, little-endian uint16 (uint32 of large vocabularies)
                  manifest.json                          counts and hashes of these files; written last
                  lock                                   held by the process that writes here

A folder whose files are not what its manifest says is written again, never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_dir

from tying_env.data.corpus import SPLITS, Split, TextSource, open_source
from tying_env.data.tokenizers import TokenArray, Tokenizer, load_tokenizer
from tying_env.files import written_whole

CACHE_VARIABLE = "TYING_ENV_CACHE"

_MANIFEST = "manifest.json"
_FORMAT = 1  # part of every key: raise it when the same text and tokenizer are to give other files

_log = logging.getLogger("tying_env")


@dataclass(frozen=True, eq=False)
class Corpus:
    """The tokens of a data set. Copies share them, and pickles map the same files again."""

    name: str
    """The data set as it was asked for."""
    tokenizer: Tokenizer
    folder: Path
    """Where the token files lie."""
    train: TokenArray
    """Token ids mapped from disk, read-only. # (N_train,)"""
    validation: TokenArray
    """Token ids mapped from disk, read-only. # (N_validation,)"""
    test: TokenArray
    """Token ids mapped from disk, read-only. # (N_test,)"""

    def __deepcopy__(self, memo: dict[int, Any]) -> Corpus:
        return self

    def __reduce__(self) -> tuple[Callable[..., Corpus], tuple[str, Tokenizer, Path]]:
        return _map_corpus, (self.name, self.tokenizer, self.folder)


def load_corpus(dataset: str, tokenizer: str | Tokenizer = "gpt2", cache_dir: str | Path | None = None) -> Corpus:
    """Return the tokens of a data set, from the cache where they are in it.

    Documents are separated by `<|endoftext|>` where the tokenizer has it, and else by nothing.

    Args:
        dataset: A name or a path, see `tying_env.data.corpus.open_source`.
        tokenizer: A name, see `tying_env.data.tokenizers.load_tokenizer`; or a tokenizer.
        cache_dir: Folder of the cache. None: the environment variable TYING_ENV_CACHE, else the user's cache folder.

    Raises:
        ValueError: Unknown data set or tokenizer, or two that do not suit each other; a split without text, or with
            text that is not UTF-8.
        FileNotFoundError: A file or package that the data set or the tokenizer needs is missing.
        ConnectionError, ImportError: A data set of the hub cannot be had, see `open_source`.
        OSError: The cache folder cannot be written; what was whole in it stays so.
    """
    chosen = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
    source = open_source(dataset)
    if chosen.name == "dna" and not source.dna:
        raise ValueError(
            "tokenizer='dna' reads the bases of a FASTA file (.fasta, .fa, .fna, also .gz), "
            f"got the data set {dataset!r}"
        )
    if source.dna and chosen.name not in ("dna", "bytes"):  # a genome is one word to others, and words are short
        raise ValueError(
            f"a FASTA file is read base by base, with tokenizer 'dna' or 'bytes': got {chosen.name!r} for {dataset!r}"
        )
    folder = _cache_folder(cache_dir) / _content_key(source, chosen)
    # Without the lock first: a cache that is whole may well lie where this process may only read.
    if _fault(folder, chosen) is not None:
        with _naming_the_folder(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):
                _write_missing_tokens(source, chosen, folder)
    return _map_corpus(dataset, chosen, folder)


def _cache_folder(cache_dir: str | Path | None) -> Path:
    return Path(cache_dir or os.environ.get(CACHE_VARIABLE) or user_cache_dir("tying_env")).expanduser()


def _content_key(source: TextSource, tokenizer: Tokenizer) -> str:
    """Return a hash of all that decides the tokens, the whole text included.

    To read all the text at every start costs little (10 MB: 0.05 s), and it serves every source alike: also the data
    sets of the hub, whose fingerprints are no public part of `datasets`.
    """
    digest = hashlib.sha256(f"{_FORMAT} {tokenizer.identity} {source.rows}".encode())
    for split in SPLITS:
        digest.update(f"\0{split}\0".encode())
        characters = 0
        for text in source.texts(split):
            characters += len(text)
            data = text.encode()
            if source.rows == "documents":  # where a document ends matters; where a line ends, its newline says
                digest.update(f"{len(data)}:".encode())
            digest.update(data)
        if characters == 0:
            raise ValueError(f"the {split} split of the data set {source.name!r} has no text")
    return digest.hexdigest()[:32]


def _fault(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Return why the token files cannot be used as they are, None if they can."""
    size = _on_disk(tokenizer).itemsize
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        for split in SPLITS:
            entry = manifest["splits"][split]
            path = _token_file(folder, split)
            found = path.stat().st_size
            if found != entry["tokens"] * size:
                return f"{path} has {found} bytes where {entry['tokens'] * size} were written"
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    return f"{path} is not as it was written (its sha256 differs)"
    except OSError as error:
        return str(error)
    except (ValueError, KeyError, TypeError) as error:
        return f"{folder / _MANIFEST} is not readable ({error!r})"
    return None


def _write_missing_tokens(source: TextSource, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the token files unless they are there (another process may have written them while this one waited)."""
    fault = _fault(folder, tokenizer)
    if fault is None:
        return
    if (folder / _MANIFEST).exists():
        _log.warning("The cached tokens of %r are damaged and are made again: %s", source.name, fault)
    _log.info("Tokenizing %r (%s) ...", source.name, tokenizer.name)
    splits, dtype = {}, _on_disk(tokenizer)
    for split in SPLITS:
        path = _token_file(folder, split)
        sha256 = _write_whole(path, (tokens.astype(dtype).tobytes() for tokens in _encode(source, split, tokenizer)))
        splits[split] = {"tokens": path.stat().st_size // dtype.itemsize, "sha256": sha256}
    manifest = {"dataset": source.name, "tokenizer": tokenizer.name, "identity": tokenizer.identity, "splits": splits}
    _write_whole(folder / _MANIFEST, [json.dumps(manifest, indent=2).encode()])
    counts = ", ".join(f"{split} {entry['tokens']:,}" for split, entry in splits.items())
    _log.info("Tokenized %r (%s): %s tokens", source.name, tokenizer.name, counts)


def _encode(source: TextSource, split: Split, tokenizer: Tokenizer) -> Iterator[TokenArray]:
    """Yield the tokens of a split, some millions at a time."""
    if source.rows == "lines":
        yield from tokenizer.encode_stream(source.texts(split))
        return
    for index, document in enumerate(source.texts(split)):
        if index > 0 and tokenizer.end_of_text is not None:
            yield np.array([tokenizer.end_of_text], dtype=tokenizer.dtype)
        yield from tokenizer.encode_stream([document])


def _write_whole(path: Path, blocks: Iterable[bytes]) -> str:
    """Write a file whole or not at all, and return its sha256. Only the lock's holder writes here."""
    digest = hashlib.sha256()
    with written_whole(path) as unfinished, open(unfinished, "wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _naming_the_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the token cache in {folder} ({error.strerror or error}); "
            f"choose another folder with cache_dir= or the environment variable {CACHE_VARIABLE}",
        ) from error


def _map_corpus(name: str, tokenizer: Tokenizer, folder: Path) -> Corpus:
    dtype = _on_disk(tokenizer)
    train, validation, test = (np.memmap(_token_file(folder, split), dtype=dtype, mode="r") for split in SPLITS)
    return Corpus(name, tokenizer, folder, train=train, validation=validation, test=test)


def _on_disk(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype(tokenizer.dtype).newbyteorder("<")


def _token_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.bin"
