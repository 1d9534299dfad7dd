"""Many small trainings at once: one batched computation against as many processes, one a core, and none."""

import math
import os
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tying_agents.benchmarks.measurements import SEED
from tying_agents.benchmarks.settings import BenchmarkSizes, ManyNetworks
from tying_agents.benchmarks.turns import Contender, TableRow, per_second, take_turns, to_rows
from tying_env import partition
from tying_env.primary.models import find_device
from tying_env.table import open_table


def measure_vector(work: BenchmarkSizes, many: ManyNetworks) -> list[TableRow]:
    """Training steps of all networks together in a second: N processes, one a core, one after the other, batched."""
    rows, settings = [], settings_of(work, many)
    on_cuda = find_device(work.device).type == "cuda"
    n_layer, cores = settings["n_layer"], os.cpu_count() or 1
    for n in many.numbers:
        arms, open_ones, shares = [], [], {}
        for name, mode, at_once in (
            ("processes", "async", n),
            ("one process a core", "async", min(n, cores)),
            ("one after the other", "sync", n),
            ("batched", "vector_entry_point", n),
        ):
            # A process that is forked cannot use the GPU that its parent uses.
            spawned: Any = {"vector_kwargs": {"context": "spawn"}} if mode == "async" and on_cuda else {}
            envs = gym.make_vec("LayerTying-GPT2-v0", num_envs=at_once, vectorization_mode=mode, **spawned, **settings)
            envs.reset(seed=SEED)
            open_ones.append(envs)
            # Of a process that has several networks it makes no difference whose step comes next.
            rounds = math.ceil(n / at_once)
            arms.append(Contender(f"{n} x {name}", Stepper(envs, at_once, n_layer, rounds).step))
            shares[arms[-1].name] = n / (at_once * rounds)
        try:
            # Other processes compute too: what counts is the time that passed.
            seconds = take_turns(arms, work.repeats, torch.device("cpu"))
        finally:
            for envs in open_ones:
                envs.close()
        seconds = {name: [shares[name] * s for s in turns] for name, turns in seconds.items()}
        wanted = {arms[3].name: "above 1"} if n > 1 else None
        rows += to_rows(per_second(seconds, n * settings["k"]), "steps/s", arms[0].name, wanted)
    return rows


def settings_of(work: BenchmarkSizes, many: ManyNetworks) -> dict[str, Any]:
    """Return the environment's settings: sizes of their own, or those of a tying table's networks.

    Raises:
        ValueError, OSError: the table cannot be opened.
    """
    common = {"dataset": work.dataset, "validate_every": 0, "device": work.device}
    if many.many_table is not None:
        of_table = dict(open_table(many.many_table).settings["settings"])
        of_table.pop("model", None)
        return of_table | common | {"k": work.k, "total_steps": 10**9}
    sizes = {name: getattr(many, f"many_{name}") for name in ("n_layer", "n_embd", "seq_len", "batch_size")}
    return sizes | common | {"tokenizer": "bytes", "n_head": 2, "k": work.k, "total_steps": 10**9}


class Stepper:
    """Steps with random actions, each environment so many times."""

    def __init__(self, envs: Any, n: int, n_layer: int, rounds: int = 1) -> None:
        self._envs, self._n, self._n_layer, self._rounds = envs, n, n_layer, rounds
        self._rng = np.random.default_rng(SEED)

    def step(self) -> None:
        """Draw an action for each environment, and step them all."""
        for _ in range(self._rounds):
            actions = [partition.uniform_random_action(self._n_layer, self._rng) for _ in range(self._n)]
            self._envs.step(np.stack(actions))
