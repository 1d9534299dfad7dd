"""Steps on the tying table, one at a time in plain Python and many at once; the table's losses are made up."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tying_agents.benchmarks.measurements import SEED
from tying_agents.benchmarks.settings import BenchmarkSizes, TableSteps
from tying_agents.benchmarks.turns import Contender, TableRow, per_second, take_turns, to_rows
from tying_env import partition
from tying_env.table.env import TableTyingEnv
from tying_env.table.file import CorpusTable, TyingTable, write_table
from tying_env.table.vector import TableVectorEnv

N_LAYER, SEEDS, RATES, STEPS = 6, 5, 3, 384


def measure_table(work: BenchmarkSizes, sizes: TableSteps) -> list[TableRow]:
    """Steps in a second: the environment alone, as gym.make wraps it, and batched."""
    rng = np.random.default_rng(SEED)
    actions = [partition.uniform_random_action(N_LAYER, rng) for _ in range(sizes.single_steps)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npz"
        write_table(made_up(rng), path)
        settings: dict[str, Any] = {"table": path, "budget": STEPS * max(sizes.single_steps, sizes.batched_steps)}
        arms = [
            _single("env.step alone", TableTyingEnv(**settings), actions),
            _single("env.step through gym.make", gym.make("LayerTying-Table-v0", **settings), actions),
        ]
        arms += [_batched(TableVectorEnv(n, **settings), n, sizes.batched_steps, rng) for n in sizes.batch_sizes]
        seconds = take_turns(arms, work.repeats, torch.device("cpu"), work.clock)
    required = {arms[0].name: "at least 100,000", arms[-1].name: "at least 5,000,000"}
    steps = [sizes.single_steps] * 2 + [n * sizes.batched_steps for n in sizes.batch_sizes]
    rows = []
    for arm, count in zip(arms, steps, strict=True):
        rows += to_rows(per_second({arm.name: seconds[arm.name]}, count), "steps/s", required=required)
    return rows


def made_up(rng: np.random.Generator) -> TyingTable:
    """Return a table of the size of the real one, whose losses are drawn."""
    tyings = np.array(list(partition.all_tyings(N_LAYER)))
    points = np.arange(32, STEPS + 1, 32)
    losses = rng.normal(2.0, 0.1, (RATES, SEEDS, len(tyings), 3, len(points)))
    parameters = np.full(len(tyings), 1000)
    corpus = CorpusTable(
        np.geomspace(2e-3, 8e-3, RATES), np.arange(SEEDS), losses, losses[..., 0, 0], np.full(losses.shape[:3], "")
    )
    return TyingTable({}, tyings, points, parameters, parameters, {"sotu": corpus})


def _single(name: str, env: gym.Env[Any, Any], actions: list[partition.IntVector]) -> Contender:
    def run() -> None:
        step = env.step
        for action in actions:
            step(action)

    return Contender(name, run, lambda: env.reset(seed=SEED))


def _batched(envs: TableVectorEnv, n: int, steps: int, rng: np.random.Generator) -> Contender:
    actions = rng.integers(0, np.arange(1, N_LAYER + 1), size=(64, n, N_LAYER))

    def run() -> None:
        step = envs.step
        for action in itertools.islice(itertools.cycle(actions), steps):
            step(action)

    return Contender(f"batched, {n} at once", run, lambda: envs.reset(seed=SEED))
