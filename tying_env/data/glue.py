"""Five tasks of GLUE (Wang et al., 2019): sentences, or pairs of them, in two classes.

They are read from a folder of the tab-separated files that GLUE is distributed in, or from the Hugging Face hub. GLUE
does not publish the labels of its test splits: results are of the development split, as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tying_env.data.batches import check_classes
from tying_env.data.hub import load_from_hub
from tying_env.data.tokenizers import Tokenizer

TaskName = Literal["sst2", "cola", "qnli", "mrpc", "rte"]
GlueSplit = Literal["train", "dev"]

_HUB = "nyu-mll/glue"
_HUB_SPLITS = {"train": "train", "dev": "validation"}
_NEWLINE = 10  # what separates a pair for a tokenizer without an end-of-text token: the byte


@dataclass(frozen=True)
class GlueTask:
    """How a task's files look, and how it is scored.

    Attributes:
        folder: the folder of its files.
        columns: how many columns a row has.
        sentences: the columns of the sentence, or of the two sentences.
        label: the column of the label.
        labels: what stands there for class 0 and class 1.
        header: what the first line calls the column of the label; None where it is an example already.
        score: "accuracy", "matthews" (Matthews correlation) or "f1" (of class 1, with the accuracy beside it).
        hub: names of the sentence columns on the hub.
    """

    folder: str
    columns: int
    sentences: tuple[int, ...]
    label: int
    labels: tuple[str, str]
    header: str | None
    score: Literal["accuracy", "matthews", "f1"]
    hub: tuple[str, ...]

    def file(self, split: GlueSplit, data: Path) -> Path:
        """Return the file of a split.

        Raises:
            FileNotFoundError: the folder has none.
        """
        folder = data.expanduser()
        for path in (folder / self.folder / f"{split}.tsv", folder / f"{split}.tsv"):
            if path.is_file():
                return path
        raise FileNotFoundError(f"{folder} has no {self.folder}/{split}.tsv")


_ENTAILMENT = ("entailment", "not_entailment")
TASKS: dict[TaskName, GlueTask] = {
    "sst2": GlueTask("SST-2", 2, (0,), 1, ("0", "1"), "label", "accuracy", ("sentence",)),
    "cola": GlueTask("CoLA", 4, (3,), 1, ("0", "1"), None, "matthews", ("sentence",)),
    "qnli": GlueTask("QNLI", 4, (1, 2), 3, _ENTAILMENT, "label", "accuracy", ("question", "sentence")),
    "mrpc": GlueTask("MRPC", 5, (3, 4), 0, ("0", "1"), "Quality", "f1", ("sentence1", "sentence2")),
    "rte": GlueTask("RTE", 4, (1, 2), 3, _ENTAILMENT, "label", "accuracy", ("sentence1", "sentence2")),
}


class GlueExample(NamedTuple):
    """One example."""

    sentences: tuple[str, ...]
    label: int


def load_glue(task: TaskName, split: GlueSplit, data: str | Path | None = None) -> list[GlueExample]:
    """Return the examples of a task.

    Args:
        task: which one.
        split: "train" or "dev".
        data: a folder with SST-2/train.tsv and so on, or the task's own folder; None: the hub.

    Raises:
        ValueError: unknown task or split; a row of a file is broken: the message names file and line; or all examples
            are of one class.
        FileNotFoundError: the folder lacks the file.
        ImportError, ConnectionError: the hub's data cannot be had.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    if split not in _HUB_SPLITS:
        raise ValueError(f"split must be 'train' or 'dev', got {split!r}")
    if data is None:
        rows, where = _from_hub(task, split), f"GLUE's {task} ({split})"
    else:
        rows, where = _from_folder(TASKS[task], split, Path(data).expanduser())
    check_labels(task, rows, where)
    return rows


def check_labels(task: TaskName, rows: list[GlueExample], where: str) -> None:
    """Check that both classes of a task are there.

    Args:
        task: which one.
        rows: its examples.
        where: they come from, for the message.

    Raises:
        ValueError: only one is; the message names it.
    """
    check_classes(where, [TASKS[task].labels[label] for label in sorted({row.label for row in rows})])


def encode(rows: list[GlueExample], tokenizer: Tokenizer, length: int) -> tuple[dict[str, npt.NDArray[np.int64]], int]:
    """Return rows as arrays: `input_ids` and `attention_mask` (N, T), `labels` (N,), where T = `length`.

    With them goes how many rows were too long.

    Two sentences have the tokenizer's end-of-text token between them, or a newline. What is too long loses the end of
    its longer sentence; what is too short is filled up with token 0 and masked.
    """
    separator = _NEWLINE if tokenizer.end_of_text is None else tokenizer.end_of_text
    tokens = np.zeros((len(rows), length), dtype=np.int64)
    mask, too_long = np.zeros_like(tokens), 0
    for i, row in enumerate(rows):
        parts = [tokenizer.encode(sentence).tolist() for sentence in row.sentences]
        too_long += sum(map(len, parts)) + len(parts) - 1 > length
        while sum(map(len, parts)) + len(parts) - 1 > length:
            max(parts, key=len).pop()
        joined = parts[0] + [token for part in parts[1:] for token in (separator, *part)] or [separator]
        tokens[i, : len(joined)] = joined
        mask[i, : len(joined)] = 1
    labels = np.array([row.label for row in rows])
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}, too_long


def scores(task: TaskName, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the task's score by name, and the accuracy beside it; both (N,)."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    measures: dict[str, Callable[..., Any]] = {
        "accuracy": accuracy_score,
        "matthews": matthews_corrcoef,
        "f1": lambda truth, guess: f1_score(truth, guess, zero_division=0.0),
    }
    wanted = dict.fromkeys((TASKS[task].score, "accuracy"))
    return {name: float(measures[name](labels, predicted)) for name in wanted}


def _from_folder(task: GlueTask, split: GlueSplit, folder: Path) -> tuple[list[GlueExample], str]:
    path = task.file(split, folder)
    try:
        # Not splitlines(): a sentence may hold other characters that it takes for line ends.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r")
        if not line:
            continue
        cells = line.split("\t")
        if number == 1 and task.header is not None:
            if cells[task.label : task.label + 1] != [task.header]:
                raise ValueError(
                    f"{path}, line 1: expected the names of the columns, {task.header!r} in column {task.label + 1}, "
                    f"got {line!r}"
                )
            continue
        if len(cells) != task.columns:
            raise ValueError(f"{path}, line {number}: expected {task.columns} columns, got {len(cells)}")
        if cells[task.label] not in task.labels:
            raise ValueError(
                f"{path}, line {number}: the label must be {' or '.join(map(repr, task.labels))}, "
                f"got {cells[task.label]!r}"
            )
        sentences = tuple(cells[i].strip() for i in task.sentences)
        if not all(sentences):
            raise ValueError(
                f"{path}, line {number}: column {task.sentences[sentences.index('')] + 1} holds no sentence"
            )
        rows.append(GlueExample(sentences, task.labels.index(cells[task.label])))
    if not rows:
        raise ValueError(f"{path} holds no examples")
    return rows, str(path)


def _from_hub(task: TaskName, split: GlueSplit) -> list[GlueExample]:
    hint = "a folder of GLUE's .tsv files serves as well: give its path"
    try:
        rows = load_from_hub(_HUB, task, split=_HUB_SPLITS[split])
    except ImportError as error:
        raise ImportError(
            f"GLUE comes from the Hugging Face hub, which needs the package `datasets` "
            f"(pip install 'tying-env[hub]'); {hint}"
        ) from error
    except Exception as error:  # every layer under load_dataset has classes of its own for being out of reach
        raise ConnectionError(f"GLUE's {task} ({_HUB} on the hub) could not be loaded: {error}; {hint}") from error
    columns = TASKS[task].hub
    return [GlueExample(tuple(row[name] for name in columns), int(row["label"])) for row in rows]
