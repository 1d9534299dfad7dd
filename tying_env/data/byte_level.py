"""Byte-level vocabularies: a character for each byte, and a tokenizer whose tokens are the bytes."""

from typing import Any


def byte_of_character() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (openai/gpt-2, src/encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def byte_backend() -> Any:
    """Return a tokenizer of Hugging Face's `tokenizers` whose token ids are the bytes of UTF-8: no byte pairs merge."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab=byte_of_character(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend
