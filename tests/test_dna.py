"""DNA: what is read of a FASTA file, its tokens, and a network that learns it."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tying_agents.commands.evaluate import Options, evaluated

from tests.conftest import TINY
from tests.tiny_runs import tiny_run
from tying_env.config.network import token_name
from tying_env.data import load_corpus, load_tokenizer
from tying_env.data.corpus import SPLITS, open_source
from tying_env.data.dna import BASES
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied
from tying_env.reports.summary import summary_rows
from tying_env.runs import RunDirectory

# Two records and what may be in a file: soft-masked letters, N, one of IUPAC's, empty lines, a line end of Windows.
WRITTEN = b">chr1 first\nACGTacgt\r\nNRyA\n\n>chr2\nTTTT\nGGGG\n"
READ = ["ACGTACGTNNNA", "TTTTGGGG"]


def split_texts(path: Path) -> dict[str, list[str]]:
    source = open_source(str(path))
    return {split: list(source.texts(split)) for split in SPLITS}


@pytest.mark.parametrize("name", ["a.fasta", "a.fa", "a.FNA", "a.fna.gz"])
def test_bases_are_read_record_by_record_and_cut_by_position(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(WRITTEN) if name.endswith("gz") else WRITTEN)
    found = split_texts(path)
    assert found == {"train": [READ[0], "TTTTGG"], "validation": ["G"], "test": ["G"]}
    corpus = load_corpus(str(path), "dna", tmp_path / "cache")
    end = corpus.tokenizer.end_of_text
    assert corpus.train.tolist() == [*map(BASES.index, READ[0]), end, *map(BASES.index, "TTTTGG")]
    assert corpus.tokenizer.decode(corpus.validation) == "G"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.fa", "a.fa.gz"])
def test_line_ends_of_any_system_and_a_byte_order_mark_are_no_bases(
    tmp_path: Path, name: str, mark: bytes, end: bytes
) -> None:
    written = mark + WRITTEN.replace(b"\r\n", b"\n").replace(b"\n", end)
    (tmp_path / name).write_bytes(gzip.compress(written) if name.endswith("gz") else written)
    assert split_texts(tmp_path / name) == {"train": [READ[0], "TTTTGG"], "validation": ["G"], "test": ["G"]}
    broken = written.replace(b"NRyA", b"NRUA")
    (tmp_path / name).write_bytes(gzip.compress(broken) if name.endswith("gz") else broken)
    with pytest.raises(ValueError, match=r"line 3: 'U' is no base of DNA"):
        split_texts(tmp_path / name)


def test_a_record_that_is_cut_is_two_documents_without_a_base_lost(tmp_path: Path) -> None:
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 1003))
    lines = [letters[at : at + 60] for at in range(0, 1003, 60)]
    (tmp_path / "a.fa").write_text("\n".join([">one", *lines[:16], ">two", *lines[16:]]))
    found = split_texts(tmp_path / "a.fa")
    assert [len(found[split]) for split in SPLITS] == [1, 1, 2]  # the records part at 960, the splits at 902 and 952
    assert [sum(map(len, found[split])) for split in SPLITS] == [902, 50, 51]
    assert "".join(part for split in SPLITS for part in found[split]) == letters


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b">x\nACGT\nACUT\n", r"a\.fa, line 3: 'U' is no base of DNA; expected A, C, G, T, N, or one of IUPAC's R, Y"),
        (b">x\nMKV\n>y\nLLAA\n", r"a\.fa, line 4: 'L' is no base"),
        (b">x\nAC-GT\n", r"a\.fa, line 2: '-' is no base"),
        (b">x\nAC GT\n", r"a\.fa, line 2: ' ' is no base"),
        ("\n>x\nACé\n".encode(), r"a\.fa, line 3: 'é' is no base"),
        (b">x\nAC\xff\n", r"a\.fa, line 2: '\N{REPLACEMENT CHARACTER}' is no base"),
        (b"\nACGT\n>x\nA\n", r"a\.fa is no FASTA file: line 2 must begin a record with '>', got b'ACGT'"),
        (b">x\n>y\n\n", r"a\.fa has no bases"),
        (b"", r"a\.fa has no bases"),
        (b">x\nACGTACGT\n", "the validation split of the data set .* has no text"),
    ],
)
def test_what_is_no_dna_is_refused_with_its_line_and_leaves_nothing(
    tmp_path: Path, written: bytes, message: str
) -> None:
    (tmp_path / "a.fa").write_bytes(written)
    with pytest.raises(ValueError, match=message):
        load_corpus(str(tmp_path / "a.fa"), "dna", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"ACGT", lambda data: data[:20] + b"xxx"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: Any) -> None:
    (tmp_path / "a.fa.gz").write_bytes(damage(gzip.compress(WRITTEN)))
    with pytest.raises(ValueError, match=r"a\.fa\.gz is not a whole gzip file"):
        load_corpus(str(tmp_path / "a.fa.gz"), "dna", tmp_path / "cache")


def test_bases_are_tokens_of_a_fasta_file_alone(tmp_path: Path, text_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer='dna' reads the bases of a FASTA file .*, got the data set"):
        load_corpus(str(text_folder), "dna", tmp_path / "cache")
    (tmp_path / "a.fa").write_bytes(WRITTEN)
    with pytest.raises(ValueError, match=r"with tokenizer 'dna' or 'bytes': got 'gpt2' for '.*a\.fa'"):
        load_corpus(str(tmp_path / "a.fa"), "gpt2", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    corpus = load_corpus(str(tmp_path / "a.fa"), "bytes", tmp_path / "cache")  # reads the same bases
    assert bytes(corpus.train.tolist()) == b"ACGTACGTNNNATTTTGG"


def test_a_base_is_a_token_and_a_byte() -> None:
    tokenizer = load_tokenizer("dna")
    assert tokenizer.vocab_size == 6 and tokenizer.byte_lengths is not None
    assert tokenizer.byte_lengths.tolist() == [1, 1, 1, 1, 1, 0]
    assert tokenizer.decode(tokenizer.encode("acgtNnR")) == "ACGTNNN"
    assert tokenizer.encode("").tolist() == []
    with pytest.raises(ValueError, match="the text 'The state': 'e' is no base of DNA"):
        tokenizer.encode("The state")
    assert [token_name(names) for names in (["dna", "dna"], ["bytes"], ["dna", "bytes"], ["gpt2"])] == [
        "base",
        "byte",
        "token",
        "token",
    ]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repeat with a rare change: what follows is nearly always known."""
    rng = np.random.default_rng(0)
    letters = np.tile(list("AACGTTGCA"), 900)
    changed = rng.random(len(letters)) < 0.02
    letters[changed] = rng.choice(list("ACGT"), changed.sum())
    path = tmp_path_factory.mktemp("dna") / "genome.fa"
    lines = ["".join(letters[at : at + 60]) for at in range(0, len(letters), 60)]
    path.write_text("\n".join([">made", *lines]))
    return path


def test_a_network_learns_bases_and_is_measured_in_bits_per_base(genome: Path) -> None:
    recipe = {"learning_rate": 1e-2, "schedule": "constant", "warmup_steps": 0, "batch_size": 8, "dropout": 0.0}
    env = LayerTyingEnv(**TINY | recipe | {"dataset": str(genome), "tokenizer": "dna"})
    env.reset(seed=0, options={"tying": [0, 0, 2, 2]})
    env.trainer.train(60)
    frequencies = env.workload.frequency_perplexity("test", 0)
    assert frequencies is not None and 3.5 < frequencies < 4.0
    found = env.evaluate("test", 0)
    assert found.perplexity < 0.8 * frequencies
    assert found.bits_per_byte == pytest.approx(np.log2(found.perplexity))  # one byte to a base


def test_a_run_says_bases_and_its_export_reads_them(genome: Path, tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run", genome, tokenizer="dna")
    assert "bits/base" in dict(summary_rows(RunDirectory.open(folder)))["test perplexity, best network"]
    names = list(evaluated(Options(folder, windows=2)).columns[0].cells)
    assert "bits per base" in names
    dense = export_tied(folder, tmp_path / "dense", dense=True)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(dense)
    assert tokenizer("acgtNR")["input_ids"] == load_tokenizer("dna").encode("acgtNR").tolist()
    assert tokenizer.decode([0, 1, 2]) == "ACG" and tokenizer.eos_token_id == 5
    assert "A token is a base, A, C, G, T or N" in (dense / "README.md").read_text()
