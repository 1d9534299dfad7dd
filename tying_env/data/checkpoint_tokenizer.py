"""The tokenizer of a checkpoint, from its tokenizer.json, by way of Hugging Face's `tokenizers`.

Bits per byte need the bytes that each token stands for. They can be had where tokens are pieces of the text's UTF-8:
byte-level vocabularies (GPT-2, LLaMA 3, Qwen, GPT-NeoX) and SentencePiece's with single bytes for what they lack
(LLaMA 2, Mistral, Gemma). Others (WordPiece, say) give None, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tying_env.data.byte_level import byte_of_character
from tying_env.data.tokenizers import TokenArray, Tokenizer, token_type

# A longer text is encoded in pieces, each cut before a space, so that memory stays bounded.
_LONGEST = 4_000_000
_CUT = re.compile(r"(?<=\S) ")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")

# Tokenizers by the hash of their file and their end-of-text token.
_made: dict[tuple[str, int | None], CheckpointTokenizer] = {}


class CheckpointTokenizer(Tokenizer):
    """A tokenizer of a tokenizer.json; made by `load_checkpoint_tokenizer`.

    Attributes:
        file: the content of the file.
    """

    file: bytes

    def encode_stream(self, texts: Iterable[str], piece_characters: int = _LONGEST) -> Iterator[TokenArray]:
        """Yield arrays which, joined, are the tokens of the joined texts.

        A text of more than `piece_characters` is encoded in pieces, cut before spaces: where the vocabulary has tokens
        across them, or marks the start of a text, a token more or two come of each cut.
        """
        pending = ""
        for text in texts:
            pending += text
            while cut := _CUT.search(pending, piece_characters):
                yield self.encode(pending[: cut.start()])
                pending = pending[cut.start() :]
        if pending:
            yield self.encode(pending)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes, int | None]]:
        return _from_bytes, (self.file, self.end_of_text)


def load_checkpoint_tokenizer(path: Path, end_of_text: int | None) -> CheckpointTokenizer:
    """Return the tokenizer of a tokenizer.json.

    Args:
        path: the file.
        end_of_text: the token that separates documents; None where the checkpoint names none.

    Raises:
        FileNotFoundError: there is no such file; the message says how to make one.
        ValueError: it is damaged, or `end_of_text` is not one of its tokens.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path.name} in {path.parent}: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one; "
            "or choose tokenizer='bytes' or 'gpt2', where the vocabulary is large enough"
        )
    try:
        return _from_bytes(path.read_bytes(), end_of_text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _from_bytes(file: bytes, end_of_text: int | None) -> CheckpointTokenizer:
    digest = hashlib.sha256(file).hexdigest()
    if (digest, end_of_text) in _made:
        return _made[digest, end_of_text]
    from tokenizers import Tokenizer as Backend

    try:
        described = json.loads(file)
        backend = Backend.from_str(file.decode("utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"it is no tokenizer of the library `tokenizers`: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # what looks like one is ordinary text
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    size = max(vocabulary.values(), default=-1) + 1
    if end_of_text is not None and end_of_text >= size:
        raise ValueError(f"the end of text must be one of its {size} tokens, got {end_of_text}")
    dtype = token_type(size)

    def encode(text: str) -> TokenArray:
        text.encode()  # raises on a lone surrogate, as the other tokenizers do
        return np.array(backend.encode(text, add_special_tokens=False).ids, dtype=dtype)  # (N,)

    tokens = [""] * size
    for token, number in vocabulary.items():
        tokens[number] = token
    special = {entry["id"] for entry in described.get("added_tokens") or [] if entry.get("special")}
    added = {entry["id"] for entry in described.get("added_tokens") or []}
    pieces, reason = _pieces(tokens, added, described)
    made = CheckpointTokenizer(
        "checkpoint",
        f"tokenizers {digest} {end_of_text}",
        end_of_text=end_of_text,
        pieces=tuple(pieces),
        _encode=encode,
        no_bytes=reason,
        silent=frozenset(special),
        _decode=None if reason is None else lambda ids: str(backend.decode(ids, skip_special_tokens=False)),
    )
    object.__setattr__(made, "file", file)
    _made[digest, end_of_text] = made
    return made


def _pieces(tokens: list[str], added: set[int], described: dict[str, Any]) -> tuple[list[bytes], str | None]:
    """Return the bytes of each token; and why they are not to be had, None if they are."""
    kinds = _decoders(described.get("decoder"))
    if "ByteLevel" in kinds:
        table = byte_of_character()
        if all(set(token) <= set(table) for i, token in enumerate(tokens) if i not in added):
            return [
                token.encode() if i in added else bytes(table[character] for character in token)
                for i, token in enumerate(tokens)
            ], None
    elif "Metaspace" in kinds or "ByteFallback" in kinds:
        return [token.encode() if i in added else _sentence_piece(token) for i, token in enumerate(tokens)], None
    named = " and ".join(kinds) or "none"
    return [token.encode() for token in tokens], f"its tokens are no pieces of the text's bytes (decoder: {named})"


def _sentence_piece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _decoders(decoder: Any) -> list[str]:
    if not isinstance(decoder, dict):
        return []
    if decoder.get("type") == "Sequence":
        return [kind for part in decoder.get("decoders") or [] for kind in _decoders(part)]
    return [str(decoder.get("type"))]


def tolerance(sizes: list[int]) -> int:
    """Return how many bytes the tokens of texts of these sizes may add: some tokenizers write a space before each."""
    return sum(1 + size // _LONGEST for size in sizes)
