"""What training, a decision and a reset cost as the work grows: one size is varied, the others are the workload's.

How a cost grows is the exponent e of n^e, fitted by least squares to the logarithms.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch

from tying_agents.benchmarks.many import Stepper
from tying_agents.benchmarks.measurements import DECISIONS, SEED, decision_of, make_dqn
from tying_agents.benchmarks.settings import BenchmarkSizes, Growth, neighbours
from tying_agents.benchmarks.synthetic import RandomTokens
from tying_agents.benchmarks.turns import Contender, Note, TableRow, milliseconds, per_second, take_turns, to_rows
from tying_agents.settings import QHead
from tying_env.config import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.assembly import build_trainer
from tying_env.primary.models import find_device

VOCABULARY = 256  # where another size is varied: the head is little of the work
LAYERS = "layers"
MOST_EXPONENT = 1.1  # above it a cost counts as growing faster than linearly
SPEED, MEMORY, ELSE = "tokens/s", "bytes", "ms"
Curves = dict[str, list[tuple[int, float]]]  # kind -> (size, cost)


def measure_growth(work: BenchmarkSizes, growth: Growth, note: Note) -> list[TableRow]:
    """Tokens in a second and bytes of weights, gradients and optimizer state, as one size grows.

    Against the layers also decisions of the DQN, with the update on each, and resets; the last is told to `note`:
    whether anything grows faster than linearly in them.
    """
    work = dataclasses.replace(work, repeats=min(work.repeats, growth.growing_repeats))
    rows: list[TableRow] = []
    panels: dict[str, dict[str, Curves]] = {}
    for what, n, found in _points(work, growth, note):
        rows += found
        for row in found:
            kind = row.name.partition(": ")[2].removesuffix(", bytes")
            panels.setdefault(what, {}).setdefault(row.unit, {}).setdefault(kind, []).append((n, row.median))
    for what, units in panels.items():
        for unit, curves in units.items():
            rows += _exponents(what, unit, curves)
    note(faster_than_linear(panels.get(LAYERS, {})))
    if growth.figure is not None:
        draw_growth(panels, growth.figure)
    return rows


def _points(work: BenchmarkSizes, growth: Growth, note: Note) -> Iterator[tuple[str, int, list[TableRow]]]:
    """Measure; yield which size was varied, what it was, and the rows."""
    varied: dict[str, list[tuple[int, dict[str, int]]]] = {
        LAYERS: [(n, {"n_layer": n}) for n in growth.growing_layers],
        "width": [(n, {"n_embd": n}) for n in growth.growing_widths],
        "length": [(n, {"seq_len": n, "batch_size": max(1, work.tokens // n)}) for n in growth.growing_lengths],
        "groups": [(n, {}) for n in growth.growing_groups if n <= work.n_layer],
        "vocabulary": [(n, {}) for n in growth.growing_vocabularies],
    }
    for what, points in varied.items():
        for n, sizes in points:
            begin = time.perf_counter()
            config = dataclasses.replace(work.config(), **sizes)  # type: ignore[arg-type]
            words, groups = n if what == "vocabulary" else VOCABULARY, n if what == "groups" else min(3, config.n_layer)
            yield what, n, _training(work, config, words, groups, f"{what} {n}: ")
            if what == LAYERS:
                yield what, n, _beside_training(work, config, f"{what} {n}: ")
            note(f"{what} {n}, {time.perf_counter() - begin:.1f} s")
    for n in growth.growing_processes:
        begin = time.perf_counter()
        yield "processes", n, _processes(work, n)
        note(f"processes {n}, {time.perf_counter() - begin:.1f} s")


def _training(work: BenchmarkSizes, config: EnvConfig, words: int, groups: int, name: str) -> list[TableRow]:
    device, arms, held = find_device(work.device), [], {}
    tied, independent = neighbours(config.n_layer, groups), np.arange(config.n_layer)
    for kind, tying, gradient in (
        ("conventional", independent, "shared"),
        ("tied, shared gradient", tied, "shared"),
        ("tied, leader gradient", tied, "leader"),
    ):
        given = dataclasses.replace(config, gradient=gradient)  # type: ignore[arg-type]
        trainer = build_trainer(RandomTokens(given, words), device, SEED, tying)
        arms.append(Contender(f"{name}{kind}", functools.partial(trainer.train, 1)))
        held[f"{name}{kind}, bytes"] = trainer
    speeds = per_second(take_turns(arms, work.repeats, device, work.clock), config.batch_size * config.seq_len)
    memory = {kind: [float(trainer.memory_in_training.total)] for kind, trainer in held.items()}
    return to_rows(speeds, SPEED, arms[0].name) + to_rows(memory, MEMORY, next(iter(memory)))


def _beside_training(work: BenchmarkSizes, config: EnvConfig, name: str) -> list[TableRow]:
    """A reset of the environment, and a decision of the DQN with its update, for either of its heads."""
    env = LayerTyingEnv(**dataclasses.asdict(dataclasses.replace(config, tokenizer="bytes")))
    arm = Contender(f"{name}reset", functools.partial(env.reset, seed=SEED))
    found = take_turns([arm], work.repeats, env.device, work.clock)
    n, decisions = config.n_layer, []
    for head in get_args(QHead):
        decide = decision_of(make_dqn(n, head), n)
        decisions.append(Contender(f"{name}decision and update, {head} head", decide, steps=DECISIONS))
    found |= take_turns(decisions, work.repeats, torch.device("cpu"), work.clock)
    return to_rows(milliseconds(found), ELSE)


def _processes(work: BenchmarkSizes, n: int) -> list[TableRow]:
    """Tokens in a second of so many processes together, an environment in each."""
    settings: dict[str, Any] = dataclasses.asdict(dataclasses.replace(work.config(), tokenizer="bytes"))
    settings |= {"validate_every": 0, "total_steps": 10**9}
    spawned: Any = {"vector_kwargs": {"context": "spawn"}} if find_device(work.device).type == "cuda" else {}
    envs = gym.make_vec("LayerTying-GPT2-v0", num_envs=n, vectorization_mode="async", **spawned, **settings)
    try:
        envs.reset(seed=SEED)
        arm = Contender(f"processes {n}: all together", Stepper(envs, n, work.n_layer).step)
        seconds = take_turns(
            [arm], work.repeats, torch.device("cpu")
        )  # others compute: what counts is time that passed
    finally:
        envs.close()
    return to_rows(per_second(seconds, n * work.k * work.tokens), SPEED)


def exponent_of(points: Sequence[tuple[int, float]], unit: str) -> float:
    """Return e where the cost grows as n^e: of time, of memory, of time for a token where speeds are given."""
    sizes, costs = np.log(np.array(points, dtype=np.float64)).T
    slope = float(np.polyfit(sizes, costs, 1)[0])
    return -slope if unit == SPEED else slope


def _exponents(what: str, unit: str, curves: Mapping[str, list[tuple[int, float]]]) -> list[TableRow]:
    """Return a row for each curve: the exponent, and the range of those between neighbouring points."""
    rows = []
    for kind, points in curves.items():
        if len(points) > 1:
            steps = [exponent_of(points[i : i + 2], unit) for i in range(len(points) - 1)]
            cost = {SPEED: "time for a token", MEMORY: "memory", ELSE: "time"}[unit]
            found = exponent_of(points, unit)
            name = f"{what}, {cost} grows as n^: {kind}"
            rows.append(TableRow(name, found, min(steps), max(steps), "", None, None, None))
    return rows


def faster_than_linear(units: Mapping[str, Curves]) -> str:
    """Return, as a sentence, what grows faster than linearly in L between the two largest numbers of layers."""
    last = {
        f"{kind} ({'memory' if unit == MEMORY else 'time'})": exponent_of(points[-2:], unit)
        for unit, curves in units.items()
        for kind, points in curves.items()
        if len(points) > 1
    }
    if not last:
        return "One number of layers says nothing about growth."
    over = {name: e for name, e in last.items() if e > MOST_EXPONENT}
    if not over:
        most = max(last, key=lambda name: last[name])
        return f"Nothing grows faster than linearly in L at its end: the most is L^{last[most]:.2f}, {most}."
    told = ", ".join(f"{name} as L^{e:.2f}" for name, e in over.items())
    return f"Faster than linearly in L at its end: {told}."


def draw_growth(panels: Mapping[str, Mapping[str, Curves]], path: Path) -> None:
    """Draw a column for each size that grows: speed, memory, and what else there is; exponents are in the legends."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    labels = {"length": "tokens in a sequence", "vocabulary": "words"}
    heights = {SPEED: "training, tokens/s", MEMORY: "weights, gradients, optimizer, MB", ELSE: "ms"}
    figure = Figure(figsize=(3.2 * len(panels), 9), layout="constrained")
    axes = figure.subplots(len(heights), len(panels), squeeze=False)
    for column, (what, units) in enumerate(panels.items()):
        for row, (unit, height) in enumerate(heights.items()):
            axis, curves = axes[row][column], units.get(unit, {})
            axis.set_visible(bool(curves))
            scale = 1e-6 if unit == MEMORY else 1.0
            for style, (kind, points) in zip(("o-", "s--", "^:"), curves.items(), strict=False):
                e = f", n^{exponent_of(points, unit):.2f}" if len(points) > 1 else ""
                axis.plot(
                    *zip(*((n, scale * cost) for n, cost in points), strict=True), style, label=kind + e, alpha=0.8
                )
            if not curves:
                continue
            axis.set_xscale("log", base=2)
            ticks = sorted({n for points in curves.values() for n, _ in points})
            axis.set_xticks(ticks, [str(n) if n < 10_000 else f"{n / 1000:.0f}k" for n in ticks])
            axis.set_yscale("log")
            costs = [scale * cost for points in curves.values() for _, cost in points]
            few = max(costs) < 6 * min(costs)
            axis.yaxis.set_major_locator(LogLocator(subs=tuple(range(1, 10)) if few else (1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            axis.set_xlabel(labels.get(what, what))
            axis.set_ylabel(height)
            if row == 2:  # curves that lie apart leave no room between them
                low, high = axis.get_ylim()
                axis.set_ylim(low, high * (high / low) ** 0.4)
            axis.legend(fontsize="xx-small" if row == 2 else "x-small")
    figure.savefig(path, dpi=110)
