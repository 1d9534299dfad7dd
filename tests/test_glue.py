"""GLUE's tasks: their files are read, broken ones are named, examples are joined and scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.glue_files import EXPECTED
from tying_env.data import load_tokenizer
from tying_env.data.glue import TASKS, GlueExample, encode, load_glue, scores


@pytest.mark.parametrize("task", TASKS)
def test_the_files_of_every_task_are_read(glue: Path, task: Any) -> None:
    if task != "sst2":
        assert load_glue(task, "train", glue) == load_glue(task, "dev", glue / TASKS[task].folder) == EXPECTED[task]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("sst2", "sentence\tlabel\ngood\t1\nbad 0\n", r"dev.tsv, line 3: expected 2 columns, got 1"),
        ("sst2", "sentence\tlabel\ngood\t2\n", r"dev.tsv, line 2: the label must be '0' or '1', got '2'"),
        ("cola", "gj04\tyes\t\tRode.\n", r"dev.tsv, line 1: the label must be '0' or '1', got 'yes'"),
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tneutral\n", "line 2: the label must be 'entailment' or"),
        ("mrpc", "Quality\n", "holds no examples"),
        ("sst2", "", "holds no examples"),
        ("sst2", "sentence\tlabel\ngood\t1\nfine\t1\n", "dev.tsv has one class, '1', and nothing to tell apart"),
        (
            "rte",
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
            "dev.tsv has one class, 'entailment', and nothing to tell apart",
        ),
        ("sst2", "good\t1\nbad\t0\n", r"dev.tsv, line 1: expected the names of the columns, 'label' in column 2, got"),
        ("mrpc", "1\t7\t8\tHe said\tSo he\n", "line 1: expected the names of the columns, 'Quality' in column 1, got"),
        ("sst2", "sentence\tlabel\n \t1\n", r"dev.tsv, line 2: column 1 holds no sentence"),
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\ta\t\tentailment\n", "line 2: column 3 holds no sentence"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, task: Any, text: str, message: str) -> None:
    (tmp_path / "dev.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_glue(task, "dev", tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no QNLI/train.tsv"):
        load_glue("qnli", "train", tmp_path)
    with pytest.raises(ValueError, match="task must be one of sst2, cola, qnli, mrpc, rte, got 'mnli'"):
        load_glue("mnli", "train", tmp_path)  # type: ignore[arg-type]
    (tmp_path / "dev.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_glue("sst2", "dev", tmp_path)


def test_glue_of_the_hub_is_read_from_a_data_set_of_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "glue" / "rte").mkdir(parents=True)
    for split in ("train", "validation"):
        rows = {"sentence1": ["A man.", "A."], "sentence2": ["A \u2028 man.", "B."], "label": [0, 1], "idx": [0, 1]}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "glue" / "rte" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "glue" / "README.md").write_text(
        "---\nconfigs:\n- config_name: rte\n  data_files:\n  - split: train\n    path: rte/train-*\n"
        "  - split: validation\n    path: rte/validation-*\n---\n"
    )
    monkeypatch.setattr("tying_env.data.glue._HUB", str(tmp_path / "glue"))
    assert load_glue("rte", "train") == load_glue("rte", "dev") == EXPECTED["rte"]


def test_pairs_are_joined_cut_and_padded() -> None:
    tokenizer = load_tokenizer("bytes")
    rows = [
        GlueExample(("abcdefgh", "xy"), 1),
        GlueExample(("a",), 0),
        GlueExample(("",), 0),
        GlueExample(("abcdef",), 0),
    ]
    batch, too_long = encode(rows, tokenizer, 6)
    assert too_long == 1
    assert bytes(batch["input_ids"][0].tolist()) == b"abc\nxy"
    assert batch["attention_mask"].sum(1).tolist() == [6, 1, 1, 6]
    assert batch["labels"].tolist() == [1, 0, 0, 0]
    words = load_tokenizer("gpt2")
    joined = encode([GlueExample(("a", "b"), 1)], words, 4)[0]["input_ids"][0].tolist()
    assert joined == [*words.encode("a"), words.end_of_text, *words.encode("b"), 0]


def test_scores_by_hand() -> None:
    truth, guess = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    assert scores("sst2", truth, guess) == {"accuracy": pytest.approx(0.6)}
    assert scores("mrpc", truth, guess) == {"f1": pytest.approx(2 / 3), "accuracy": pytest.approx(0.6)}
    matthews = (2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2)
    assert scores("cola", truth, guess) == {"matthews": pytest.approx(matthews), "accuracy": pytest.approx(0.6)}
