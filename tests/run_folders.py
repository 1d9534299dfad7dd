"""Run directories: written by hand as runs leave them, changed, and read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tying_env import partition
from tying_env.files import to_json
from tying_env.runs import RunDirectory

ENV: dict[str, Any] = {
    "dataset": "sotu",
    "tokenizer": "bytes",
    "n_layer": 4,
    "learning_rate": 1e-3,
    "k": 2,
    "freeze_at_start": True,
    "total_steps": 20,
    "validate_every": 4,
    "device": "auto",
    "dtype": "float32",
}


def make_records(n: int, n_layer: int, seed: int, start: int = 0) -> list[dict[str, Any]]:
    """Records of random actions every two steps, in which perplexity falls."""
    rng = np.random.default_rng(seed)
    before, records = np.zeros(n_layer, dtype=np.int64), []
    for i in range(1, n + 1):
        tying = partition.canonicalise(partition.uniform_random_action(n_layer, rng))
        changed = partition.events(before, tying)
        parameters = 1_000 + 500 * len(partition.leaders(tying))
        records.append(
            {
                "decision": start + i,
                "tying": tying,
                "validation_perplexity": float("inf") if i < 2 else 100.0 / (i // 2) + seed,
                "independent_layers": len(partition.leaders(tying)),
                "trainable_parameters": parameters,
                "tied_events": changed.tied,
                "untied_events": changed.untied,
                "train_step": 2 * i,
                "tokens": 128 * i,
                "diverged": False,
                "weights_bytes": 4 * parameters,
                "gradients_bytes": 4 * parameters,
                "optimizer_state_bytes": 8 * parameters,
            }
        )
        before = tying
    return records


def make_run(
    path: Path,
    agent: str = "random",
    seed: int = 0,
    *,
    perplexity: float = 10.0,
    status: str | None = "finished",
    env: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    records: list[dict[str, Any]] | None = None,
) -> Path:
    """Write a run directory as a run leaves it; status None: it has not ended."""
    path.mkdir(parents=True)
    settings = ENV | (env or {})
    written = {"agent": agent, "seed": seed, "test_windows": 8, "env": settings, **(config or {})}
    (path / "config.json").write_text(to_json(written))
    lines = make_records(10, settings["n_layer"], seed) if records is None else records
    (path / "metrics.jsonl").write_text("".join(to_json(record) + "\n" for record in lines))
    if status is not None:
        result = {"perplexity": perplexity, "bits_per_byte": perplexity / 5, "mean_loss": 2.0, "tokens": 64}
        summary = {
            "status": status,
            "best_validation_perplexity": perplexity + 1,
            "test": {"best": result, "final": result} if status == "finished" else None,
            "parameters_conventional": 3_000,
            "tokens_per_second": 500.0 + seed,
            "seconds": 2.0,
        }
        (path / "summary.json").write_text(to_json(summary))
    return path


def make_arms(folder: Path, seeds: int = 6) -> Path:
    """Write two arms: dqn is better than random by one, give or take."""
    for seed in range(seeds):
        make_run(folder / "random" / str(seed), "random", seed, perplexity=10 + seed)
        make_run(folder / "dqn" / str(seed), "dqn", seed, perplexity=9 + seed + 0.1 * (-1) ** seed)
    return folder


def change(path: Path, name: str, **entries: Any) -> None:
    """Change entries of a JSON file of a run."""
    (path / name).write_text(to_json(json.loads((path / name).read_text()) | entries))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a run."""
    return RunDirectory.open(path).read_metrics()
