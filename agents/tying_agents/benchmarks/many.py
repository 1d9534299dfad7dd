"""Many small trainings at once: one batched computation against as many processes, and against one after the other."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tying_agents.benchmarks.measurements import SEED
from tying_agents.benchmarks.settings import BenchmarkSizes, ManyNetworks
from tying_agents.benchmarks.turns import Contender, TableRow, per_second, take_turns, to_rows
from tying_env import partition
from tying_env.primary.models import find_device


def measure_vector(work: BenchmarkSizes, many: ManyNetworks) -> list[TableRow]:
    """Training steps of all networks together in a second: N processes (async), one after the other, batched."""
    rows = []
    settings: dict[str, Any] = {
        "dataset": work.dataset,
        "tokenizer": "bytes",
        "n_layer": many.many_n_layer,
        "n_embd": many.many_n_embd,
        "n_head": 2,
        "seq_len": many.many_seq_len,
        "batch_size": many.many_batch_size,
        "k": work.k,
        "validate_every": 0,
        "total_steps": 10**9,
        "device": work.device,
    }
    on_cuda = find_device(work.device).type == "cuda"
    for n in many.numbers:
        arms, open_ones = [], []
        for name, mode in (("processes", "async"), ("one after the other", "sync"), ("batched", "vector_entry_point")):
            # A process that is forked cannot use the GPU that its parent uses.
            spawned: Any = {"vector_kwargs": {"context": "spawn"}} if mode == "async" and on_cuda else {}
            envs = gym.make_vec("LayerTying-GPT2-v0", num_envs=n, vectorization_mode=mode, **spawned, **settings)
            envs.reset(seed=SEED)
            open_ones.append(envs)
            arms.append(Contender(f"{n} x {name}", Stepper(envs, n, many.many_n_layer).step))
        try:
            # Other processes compute too: what counts is the time that passed.
            seconds = take_turns(arms, work.repeats, torch.device("cpu"))
        finally:
            for envs in open_ones:
                envs.close()
        wanted = {arms[2].name: "above 1"} if n > 1 else None
        rows += to_rows(per_second(seconds, n * work.k), "steps/s", arms[0].name, wanted)
    return rows


class Stepper:
    """Steps with random actions."""

    def __init__(self, envs: Any, n: int, n_layer: int) -> None:
        self._envs, self._n, self._n_layer = envs, n, n_layer
        self._rng = np.random.default_rng(SEED)

    def step(self) -> None:
        """Draw an action for each environment, and step them all."""
        actions = [partition.uniform_random_action(self._n_layer, self._rng) for _ in range(self._n)]
        self._envs.step(np.stack(actions))
