"""What the options that change how a step is computed do to time and memory."""

import functools
from typing import Any

import numpy as np
from torch._dynamo.utils import counters

from tying_agents.benchmarks.measurements import SEED, benchmark_env
from tying_agents.benchmarks.memory import account
from tying_agents.benchmarks.settings import BenchmarkSizes
from tying_agents.benchmarks.turns import Contender, TableRow, per_second, take_turns, to_rows
from tying_env import partition

CHOICES: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpoint_blocks": {"checkpoint_blocks": True},
    "accumulate 4": {"accumulate": 4},
    "autocast": {"autocast": True},
    "compile_blocks": {"compile_blocks": True},
    "prefetch": {"prefetch": True},
}


def measure_options(work: BenchmarkSizes) -> list[TableRow]:
    """Tokens in a second and activations at the peak, for each option; compilations that tying changes cause.

    Raises:
        RuntimeError: a change of the tying compiled something again.
    """
    arms, memory = [], {}
    for name, choice in CHOICES.items():
        _, env = benchmark_env(work, work.three_leaders, n_embd=work.wide_n_embd, **choice)
        env.trainer.train(2)
        arms.append(Contender(name, functools.partial(env.trainer.train, 2), steps=2))
        if name not in ("compile_blocks", "prefetch"):  # the tracker sees operations, which compiled code has not
            found = account(env.config, env.workload.sizes["vocab_size"], work.three_leaders, fake=True)
            memory[f"{name}: activations at the peak"] = [found.peak.activations]
    seconds = take_turns(arms, work.repeats, env.device, work.clock)
    rows = to_rows(per_second(seconds, work.tokens), "tokens/s", "plain")
    rows += to_rows(memory, "bytes", "plain: activations at the peak")
    return [*rows, *count_compilations(work)]


def count_compilations(work: BenchmarkSizes) -> list[TableRow]:
    """Compilations until the first tying was trained with, and after 20 changes of it.

    Raises:
        RuntimeError: there were more after the changes, or the compiler gave up.
    """
    env, _ = benchmark_env(
        work, work.three_leaders, n_embd=work.wide_n_embd, compile_blocks=True, gradient="leader", k=1
    )
    env.reset(seed=SEED)
    rng, before = np.random.default_rng(SEED), counters["stats"]["unique_graphs"]
    env.step(partition.uniform_random_action(work.n_layer, rng))
    first = counters["stats"]["unique_graphs"]
    for _ in range(20):
        env.step(partition.uniform_random_action(work.n_layer, rng))
    after = counters["stats"]["unique_graphs"]
    frames = counters["frames"]
    if after != first or frames["total"] != frames["ok"]:
        gone = frames["total"] - frames["ok"]
        raise RuntimeError(f"20 changes of the tying compiled {after - first} graphs again; {gone} were given up")
    counts = {"graphs compiled until the first tying": [float(first - before)], "by 20 changes of it": [0.0]}
    return [row._replace(required="0" if "20" in row.name else None) for row in to_rows(counts, "")]
