"""DNA: the letters of a FASTA file, and tokens that are its bases.

A FASTA file holds records, each a line that begins with ">" and then lines of letters. What is read of it are the
bases, one after the other: A, C, G, T, and N for what is not known. Lower case, which marks repeats ("soft-masked"), is
read as upper case. The letters of IUPAC that stand for several bases (R, Y, S, W, K, M, B, D, H, V) are read as N: each
says that the base is not known, and in a finished genome they are too rare to be learned. All else, gaps, amino acids
and RNA's U among it, is refused.
"""

from __future__ import annotations

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BASES = "ACGTN"
_AMBIGUOUS = "RYSWKMBDHV"
_LETTERS = f"{BASES}{_AMBIGUOUS}"
_KNOWN = f"{_LETTERS}{_LETTERS.lower()}".encode()
_READ_AS = bytes.maketrans(_KNOWN, (f"{BASES}{'N' * len(_AMBIGUOUS)}" * 2).encode())
_EXPECTED = f"{', '.join(BASES)}, or one of IUPAC's {', '.join(_AMBIGUOUS)}, which are read as N"
_SUFFIXES = (".fasta", ".fa", ".fna")


def is_fasta(path: Path) -> bool:
    """Return whether a file's name says that it is a FASTA file: .fasta, .fa or .fna, also with .gz behind."""
    return path.name.lower().removesuffix(".gz").endswith(_SUFFIXES)


def read_bases(letters: bytes, where: str) -> bytes:
    """Return letters as bases, upper case.

    Args:
        letters: as a file or a user gives them.
        where: they come from, for messages.

    Raises:
        ValueError: one is no base; the message names it.
    """
    if strange := letters.translate(None, _KNOWN):
        found = strange.decode("utf-8", errors="replace")[0]
        raise ValueError(f"{where}: {found!r} is no base of DNA; expected {_EXPECTED}")
    return letters.translate(_READ_AS)


def encode_bases(text: str) -> npt.NDArray[np.uint16]:
    """Return the places in `BASES` of the letters of a text, shape (N,).

    Raises:
        ValueError: one is no base.
    """
    return _IDS[np.frombuffer(read_bases(text.encode(), f"the text {text[:20]!r}"), dtype=np.uint8)]  # (N,)


_IDS = np.zeros(256, dtype=np.uint16)
_IDS[list(BASES.encode())] = range(len(BASES))


def count_bases(path: Path) -> int:
    """Return how many bases a FASTA file has.

    Raises:
        ValueError: it has none, or is no FASTA file of DNA; the message names letter, line and file.
        OSError: it cannot be read.
    """
    if total := sum(len(bases) for _, bases in _lines(path)):
        return total
    raise ValueError(f"{path} has no bases")


def records(path: Path, first: int, last: int) -> Iterator[str]:
    """Yield the bases first, first + 1, ..., last - 1 of a FASTA file, counted over all its records, record by record.

    Of a record that begins or ends outside of them there is a part.

    Raises:
        ValueError, OSError: as `count_bases`.
    """
    here: list[bytes] = []
    at, before = 0, 0
    for record, bases in _lines(path):
        if record != before and here:
            yield b"".join(here).decode()
            here = []
        before = record
        if part := bases[max(0, first - at) : max(0, last - at)]:
            here.append(part)
        at += len(bases)
        if at >= last:
            break
    if here:
        yield b"".join(here).decode()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of letters, read as bases, each with the number of its record.

    Lines end in LF, CR LF or CR, and a byte order mark before the first is passed over.
    """
    record = 0
    # Latin-1 gives every byte a character, so that its encoding is the bytes again.
    options: dict[str, Any] = {"encoding": "latin-1", "newline": None}
    with gzip.open(path, "rt", **options) if path.name.lower().endswith(".gz") else path.open(**options) as file:
        try:
            for number, line in enumerate(file, start=1):
                text = line.encode("latin-1").removeprefix(BOM_UTF8 if number == 1 else b"").strip()
                if text.startswith(b">"):
                    record += 1
                elif text and not record:
                    raise ValueError(
                        f"{path} is no FASTA file: line {number} must begin a record with '>', got {text[:20]!r}"
                    )
                elif text:
                    yield record, read_bases(text, f"{path}, line {number}")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from error


def dna_backend(end_of_text: str) -> Any:
    """Return a tokenizer of Hugging Face's `tokenizers` that reads bases; what is none of A, C, G and T is N there.

    Args:
        end_of_text: the token behind the bases.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary = {name: place for place, name in enumerate((*BASES, end_of_text))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="N"))
    backend.normalizer = normalizers.Sequence([normalizers.Replace(base.lower(), base) for base in BASES])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([end_of_text])
    return backend
