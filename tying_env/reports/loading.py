"""Reads run directories: settings, a record per decision, results."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tying_env.config import network
from tying_env.kinds import Kinds
from tying_env.reports.metrics import METRICS_BY_KEY, Metric
from tying_env.runs.exported import is_export
from tying_env.runs.layouts import modern
from tying_env.runs.run_directory import CONFIG, METRICS, SUMMARY

# Marks a folder that scripts/compare.py filled.
COMPARISON = "comparison.json"
# Ends the name of a run's folder in a comparison for as long as it is not over.
UNFINISHED = ".unfinished"
# Bytes of a trained parameter in runs that do not say: AdamW's, with weight, gradient and two moments in one precision.
_ADAMW_BYTES = {"float32": 16, "float64": 32, "bfloat16": 8}


@dataclass(frozen=True)
class Run:
    """One run directory, read.

    Attributes:
        path: of the directory.
        label: of its arm.
        seed: of the run.
        config: config.json.
        records: metrics.jsonl, one for each decision of the last episode.
        summary: summary.json, or None while the run has not ended (or was broken off).
    """

    path: Path
    label: str
    seed: int
    config: dict[str, Any]
    records: list[dict[str, Any]] = field(repr=False)
    summary: dict[str, Any] | None = field(repr=False)

    @property
    def env(self) -> dict[str, Any]:
        """The settings of the environment."""
        settings: dict[str, Any] = self.config["env"]
        return settings

    @property
    def kinds(self) -> Kinds:
        """The kinds of the units, of which there are `n_units`."""
        return Kinds.described(self.config)

    @property
    def n_units(self) -> int:
        """L, the length of an action."""
        return self.kinds.n_units

    @property
    def status(self) -> str:
        """How it ended: finished, diverged, interrupted; "not ended" without a summary."""
        return "not ended" if self.summary is None else str(self.summary["status"])

    def column(self, key: str) -> list[Any]:
        """Return one entry of every record."""
        return [record[key] for record in self.records]

    def independent_layers(self) -> list[int]:
        """Return how many layers had weights of their own at every decision: all, where copied (ablation v)."""
        return [self.n_units] * len(self.records) if self.copied else self.column("independent_layers")

    @property
    def last(self) -> dict[str, Any]:
        """The record of the last decision; empty before the first."""
        return self.records[-1] if self.records else {}

    @property
    def copied(self) -> bool:
        """Whether layers were copied instead of tied, so that they share nothing."""
        return bool(self.env.get("replication") == "copied")

    @property
    def decides(self) -> bool:
        """Whether the number of independent layers ever changed: one that is kept to is not set against chance."""
        numbers = self.column("independent_layers")
        return len(numbers) < 2 or any(number != numbers[0] for number in numbers)

    @property
    def frozen_steps(self) -> int:
        """Training steps before the first decision, the frozen start among them; 0 if it began with a tying."""
        # A decision lasts its interval, or k steps at most: then a first one that ends later has k steps before it.
        ends, k = (first := self.last and self.records[0]).get("train_step", 0), self.env["k"]
        return int(ends - first["interval"] if "interval" in first else k * (ends > k))

    def memory(self) -> list[int]:
        """Return the bytes of weights, gradients and optimizer state at every decision."""
        return [r["weights_bytes"] + r["gradients_bytes"] + r["optimizer_state_bytes"] for r in self.records]

    def conventional_memory(self) -> int | None:
        """Return what `memory` would be with every layer independent; None while the run has not ended."""
        return None if self.summary is None else conventional_bytes(self.summary, self.env)

    def result(self, metric: Metric) -> float | None:
        """Return the value of a metric; None unless the run finished and has one."""
        if self.summary is None or self.status != "finished":
            return None
        if metric.network is None:
            return _number(self.summary["best_validation_perplexity"])
        if metric.network == "first":
            return _number(self.records[0].get(metric.field)) if self.records else None
        measured = (self.summary["test"] or {}).get(metric.network)
        return None if measured is None else _number(measured.get(metric.field))

    def measured(self) -> list[float | None]:
        """Return everything measured in validation and test: an entry a decision, then one for each metric."""
        validation = [_number(record.get("validation_perplexity")) for record in self.records]
        return validation + [self.result(metric) for metric in METRICS_BY_KEY.values()]

    @property
    def collapsed(self) -> bool:
        """Whether the network ended no better than frequencies, with an output that hardly depends on its input."""
        return (self.summary or {}).get("collapsed_at") is not None

    def frequency_perplexity(self, split: str) -> float | None:
        """Return the perplexity of frequencies alone on a split; None where it is not known."""
        return _number(((self.summary or {}).get("frequency_perplexity") or {}).get(split))

    def frequencies(self, metric: Metric) -> float | None:
        """Return what frequencies alone come to in a metric; None where it is not known."""
        if metric.network is None:
            return self.frequency_perplexity("validation")
        if metric.network == "first":  # of training text, where frequencies are not measured
            return None
        if metric.field == "accuracy":
            return _number(((self.summary or {}).get("frequency_accuracy") or {}).get("test"))
        perplexity = self.frequency_perplexity("test")
        if perplexity is None or metric.field == "perplexity":
            return perplexity
        if metric.field == "mean_loss":
            return math.log(perplexity)
        measured = ((self.summary or {}).get("test") or {}).get(metric.network) or {}
        bits, nats = measured.get(metric.field), measured.get("mean_loss")  # their ratio is the text's
        return math.log(perplexity) * bits / nats if bits and nats else None

    def why_no_result(self, metric: Metric) -> str:
        """Say why the run has no value of a metric; empty if it has one."""
        if self.result(metric) is not None:
            return ""
        return f"{self.status}: no result" if self.status != "finished" else f"finished, but has no {metric.name}"


def unit_of_perplexity(runs: Sequence[Run]) -> str:
    """Return what the perplexities of runs are per; runs that wrote down no network are of a GPT-2."""
    model = runs[0].env.get("model", "gpt2")
    return network.unit_of_perplexity(model, (run.env["tokenizer"] for run in runs))


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Return the run directories among `paths` and, at any depth, in them; each once.

    Within a path they come by name, a comparison's arms in the order that they were asked for.
    Of a comparison's folder only what was compared is taken, not the runs that chose learning rates.

    Raises:
        FileNotFoundError: a path is not there, or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        here = list(_run_directories(path))
        if not here:
            raise FileNotFoundError(f"no runs found in {path}: no folder in it has a {CONFIG}")
        for run in here:
            found.setdefault(run.resolve(), run)
    if not found:
        raise FileNotFoundError("no runs found: no folder was named")
    return list(found.values())


def find_unfinished(paths: Iterable[Path]) -> list[Path]:
    """Return the folders of a comparison's runs that are not over; `find_runs` passes them over."""
    return [run for path in paths for run in sorted(path.rglob(f"*{UNFINISHED}")) if (run / CONFIG).is_file()]


def load_run(path: Path) -> Run:
    """Read one run directory.

    Raises:
        FileNotFoundError: it is not one.
        ValueError: a file in it is damaged; the message names the file, and for metrics.jsonl the line.
    """
    try:
        config = modern(_read_json(path / CONFIG))
    except ValueError as error:
        raise ValueError(f"{path / CONFIG}: {error}") from error
    for key in ("agent", "seed", "env"):
        if key not in config:
            raise ValueError(f"{path / CONFIG} is not of a run: it has no {key!r}")
    summary = _read_json(path / SUMMARY) if (path / SUMMARY).exists() else None
    label = config.get("label") or config["agent"]
    return Run(path, str(label), int(config["seed"]), config, _read_metrics(path / METRICS), summary)


def _run_directories(path: Path) -> Iterable[Path]:
    arms: list[str] = []  # of the comparison whose runs come next, in the order they were asked for
    for folder, inside, files in os.walk(path):
        inside[:] = sorted(name for name in inside if not name.endswith(UNFINISHED))
        if COMPARISON in files and "runs" in inside:
            inside[:] = ["runs"]  # beside them are the runs that chose learning rates
            arms = _read_json(Path(folder) / COMPARISON).get("arms", [])
        elif arms:
            inside.sort(key=lambda label: arms.index(label) if label in arms else len(arms))
            arms = []
        if CONFIG in files:
            inside.clear()  # what a run keeps in itself is not another run
            if not _is_checkpoint(Path(folder)):
                yield Path(folder)


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder's config.json is of a network: an export, or another checkpoint of transformers."""
    if is_export(folder):
        return True
    try:
        config = _read_json(folder / CONFIG)
    except ValueError:
        return False  # a damaged run is said to be one
    return "agent" not in config and ("architectures" in config or "model_type" in config)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return value


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is damaged: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number} is damaged: it holds no object")
        records.append(record)
    last = records[-1].get("episode") if records else None
    return [record for record in records if record.get("episode") == last]


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def conventional_bytes(summary: Mapping[str, Any], env: Mapping[str, Any]) -> int:
    """Return the bytes of weights, gradients and optimizer state with every layer independent, of a run's summary."""
    assumed = summary["parameters_conventional"] * _ADAMW_BYTES[env["dtype"]]
    return int(summary.get("bytes_conventional", assumed))
