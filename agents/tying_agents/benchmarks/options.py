"""What the options that change how a step is computed do to time and memory, and what a step costs as work grows."""

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch._dynamo.utils import counters

from tying_agents.benchmarks.measurements import SEED, benchmark_env
from tying_agents.benchmarks.memory import account
from tying_agents.benchmarks.settings import BenchmarkSizes, Growth, neighbours
from tying_agents.benchmarks.turns import Contender, Note, TableRow, per_second, take_turns, to_rows
from tying_env import partition
from tying_env.config import EnvConfig

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


def measure_growth(work: BenchmarkSizes, growth: Growth, note: Note) -> list[TableRow]:
    """Tokens in a second and bytes of weights, gradients and optimizer state, as one size grows (bytes as tokens)."""
    variants: dict[str, tuple[str, list[tuple[int, dict[str, Any]]]]] = {
        "layers": ("layers", [(n, {"n_layer": n}) for n in growth.growing_layers]),
        "width": ("width", [(n, {"n_embd": n}) for n in growth.growing_widths]),
        "length": (
            "tokens in a sequence",
            [(n, {"seq_len": n, "batch_size": max(1, work.tokens // n)}) for n in growth.growing_lengths],
        ),
        "groups": ("groups", [(n, {}) for n in growth.growing_groups if n <= work.n_layer]),
    }
    rows, curves = [], {}
    for what, (label, points) in variants.items():
        speeds: dict[str, list[tuple[int, float]]] = {}
        held: dict[str, list[tuple[int, float]]] = {}
        for n, sizes in points:
            begin = time.perf_counter()
            config = EnvConfig(**_sizes(work) | {"tokenizer": "bytes"} | sizes)
            few = n if what == "groups" else min(3, config.n_layer)
            arms, envs = [], {}
            for name, groups in (("conventional", config.n_layer), (f"{few} groups", few)):
                for gradient in ("shared", "leader") if name != "conventional" else ("shared",):
                    kind = name if name == "conventional" else f"tied, {gradient} gradient"
                    settings = sizes | {"tokenizer": "bytes", "gradient": gradient}
                    _, env = benchmark_env(work, neighbours(config.n_layer, groups), **settings)
                    arms.append(Contender(kind, functools.partial(env.trainer.train, 1)))
                    envs[kind] = env
            tokens = config.batch_size * config.seq_len
            found = per_second(take_turns(arms, work.repeats, env.device, work.clock), tokens)
            named = {f"{what} {n}: {kind}": values for kind, values in found.items()}
            rows += to_rows(named, "tokens/s", next(iter(named)))
            for row, (kind, env) in zip(rows[-len(named) :], envs.items(), strict=True):
                speeds.setdefault(kind, []).append((n, row.median))
                bytes_held = float(env.trainer.memory_in_training.total)
                held.setdefault(kind, []).append((n, bytes_held / 1e6))
            memory = {f"{what} {n}: {kind}, bytes": [curve[-1][1] * 1e6] for kind, curve in held.items()}
            rows += to_rows(memory, "bytes", next(iter(memory)))
            note(f"{what} {n}, {time.perf_counter() - begin:.1f} s")
        curves[label] = speeds, held
    if growth.figure is not None:
        draw_growth(curves, growth.figure)
    return rows


GrowthCurves = dict[str, list[tuple[int, float]]]


def draw_growth(curves: dict[str, tuple[GrowthCurves, GrowthCurves]], path: Path) -> None:
    """Draw speed above and memory below, a column for each size that grows."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False)
    for column, (label, both) in enumerate(curves.items()):
        for row, (curve, unit) in enumerate(zip(both, ("tokens/s", "MB"), strict=True)):
            axis = axes[row][column]
            for style, (kind, points) in zip(("o-", "s--", "^:"), curve.items(), strict=False):
                axis.plot(*zip(*points, strict=True), style, label=kind, alpha=0.8)
            axis.set_xscale("log", base=2)
            ticks = sorted({n for points in curve.values() for n, _ in points})
            axis.set_xticks(ticks, [str(n) for n in ticks])
            axis.set_yscale("log")
            values = [value for points in curve.values() for _, value in points]
            few = max(values) < 6 * min(values)
            axis.yaxis.set_major_locator(LogLocator(subs=tuple(range(1, 10)) if few else (1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            axis.set_xlabel(label)
            if column == 0:
                axis.set_ylabel(f"training, {unit}" if row == 0 else f"weights, gradients, optimizer, {unit}")
    axes[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _sizes(work: BenchmarkSizes) -> dict[str, Any]:
    return {name: getattr(work, name) for name in ("n_layer", "n_embd", "n_head", "seq_len", "batch_size")}
