#!/usr/bin/env python
"""Measure what this package costs and what tying saves.

The arms of a measurement take turns in one process, so that whatever else the machine does hits all of them. Numbers
are medians over the turns, with their range; a ratio is the median of the ratios of single turns.

python scripts/benchmark.py
python scripts/benchmark.py --only step head --repeats 30 --json benchmark.json
"""

import dataclasses
import gc
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from agents.base import Transition
from agents.factorized_dqn import DQNConfig, FactorizedDQN
from tying_env import EnvConfig, partition
from tying_env.data import RandomWindows
from tying_env.env import LayerTyingEnv
from tying_env.files import to_json, written_whole
from tying_env.partition import IntVector
from tying_env.primary.evaluation import mean_loss, perplexity
from tying_env.primary.head import linear_cross_entropy
from tying_env.primary.tasks import CausalLM, Task, to_device
from tying_env.primary.trainer import Trainer
from tying_env.seeding import numpy_stream, torch_stream

Measurement = Literal["step", "head", "tying", "change", "dqn", "memory"]
SMALL = EnvConfig()
SEED = 0
DECISIONS = 20  # in one turn: a single one is too short to time


@dataclass(frozen=True)
class Options:
    """Measure what this package costs and what tying saves.

    Raises:
        ValueError: a setting is outside its range.
    """

    only: tuple[Measurement, ...] = get_args(Measurement)
    """Which measurements to run."""
    repeats: int = 15
    """Turns of every arm, after one to warm up."""
    json: Path | None = None
    """Write machine, options and all numbers to this file as well."""
    threads: int | None = None
    """Threads of torch; its own choice by default."""
    device: str = SMALL.device
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""

    dataset: str = SMALL.dataset
    """Text: a name or a folder, as for the environment."""
    n_layer: int = SMALL.n_layer
    """L, the number of transformer blocks; at least 3."""
    n_embd: int = SMALL.n_embd
    """Width of the network in step, change and memory."""
    wide_n_embd: int = 256
    """Width of the network in head, tying and the second half of change."""
    n_head: int = SMALL.n_head
    """Attention heads in each block."""
    seq_len: int = SMALL.seq_len
    """Tokens in a training sequence."""
    batch_size: int = SMALL.batch_size
    """Sequences in a training step."""
    k: int = SMALL.k
    """Training steps in one env.step."""

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("threads", 1), ("n_layer", 3)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.json is not None and not self.json.resolve().parent.is_dir():
            raise ValueError(f"json must be a file in a folder that exists, got {str(self.json)!r}")

    @property
    def independent(self) -> IntVector:
        """The tying of conventional training, shape (L,)."""
        return np.arange(self.n_layer)

    @property
    def three_leaders(self) -> IntVector:
        """Three groups of neighbours, as equal in size as can be, shape (L,)."""
        starts = [self.n_layer * group // 3 for group in range(3)]
        return np.array([max(s for s in starts if s <= i) for i in range(self.n_layer)])


class Row(NamedTuple):
    """One number of the result."""

    name: str
    median: float
    min: float
    max: float
    unit: str
    ratio: float | None  # to the row named `against`
    against: str | None
    required: str | None  # what the ratio or the median is meant to be


class Arm(NamedTuple):
    """One of the things that are compared."""

    name: str
    work: Callable[[], object]
    prepare: Callable[[], object] = lambda: None  # before each turn, not timed


def take_turns(arms: Sequence[Arm], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of every turn of every arm; every other round goes backwards."""
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    gc.collect()
    for repeat in range(-1, repeats):  # round -1 warms up
        for arm in arms if repeat % 2 else reversed(arms):
            arm.prepare()
            synchronise()
            begin = time.perf_counter()
            arm.work()
            synchronise()
            if repeat >= 0:
                seconds[arm.name].append(time.perf_counter() - begin)
    return seconds


def to_rows(
    values: Mapping[str, Sequence[float]],
    unit: str,
    against: str | None = None,
    required: Mapping[str, str] | None = None,
) -> list[Row]:
    """Sum up the values of each arm; the ratios are those of the same turn."""
    rows = []
    for name, own in values.items():
        base = None if against is None or name == against else values[against]
        ratio = None if base is None else statistics.median(a / b for a, b in zip(own, base, strict=True))
        beside = None if base is None else against
        wanted = (required or {}).get(name)
        rows.append(Row(name, statistics.median(own), min(own), max(own), unit, ratio, beside, wanted))
    return rows


def milliseconds(seconds: Mapping[str, Sequence[float]], count: int = 1) -> dict[str, list[float]]:
    """Return milliseconds for one of `count` things."""
    return {name: [1e3 * s / count for s in turns] for name, turns in seconds.items()}


def per_second(seconds: Mapping[str, Sequence[float]], count: int) -> dict[str, list[float]]:
    """Return how many of `count` things are done in a second."""
    return {name: [count / s for s in turns] for name, turns in seconds.items()}


def make_env(
    options: Options, tying: IntVector, **settings: Any
) -> tuple[gym.Env[IntVector, IntVector], LayerTyingEnv]:
    """Return an environment begun with `tying`, as gym.make wraps it and bare; it has no end and does not validate."""
    names = ("dataset", "device", "n_layer", "n_embd", "n_head", "seq_len", "batch_size", "k")
    settings = {name: getattr(options, name) for name in names} | {"validate_every": 0, "total_steps": 10**9} | settings
    env = gym.make("LayerTying-GPT2-v0", **settings)
    env.reset(seed=SEED, options={"tying": tying})
    assert isinstance(env.unwrapped, LayerTyingEnv)
    return env, env.unwrapped


# 1. env.step


@dataclass
class BareLoop:
    """The training and the reward of one env.step, written without this package's environment, trainer and tying."""

    twin: LayerTyingEnv  # gives the network and the data; never stepped
    optimizer: torch.optim.Optimizer
    reward_windows: RandomWindows

    def run(self) -> float:
        """Train for k steps; return the perplexity on random training batches."""
        device, config, task = self.twin.device, self.twin.config, CausalLM()
        model, batches = self.twin.trainer.network.model, self.twin.trainer.batches
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        model.train()
        for _ in range(config.k):
            loss = task.loss(model, to_device(batches.next_batch(), device))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        windows = np.concatenate([self.reward_windows.next_batch() for _ in range(config.reward_batches)])
        return perplexity(mean_loss(model, task, windows, config.batch_size, device))


def measure_step(options: Options) -> list[Row]:
    """env.step against a bare loop that computes the same: weights, batches, dropout, tying and reward are equal."""
    rng = np.random.default_rng(SEED)
    rounds = options.repeats + 2
    fixed = [options.independent] * rounds
    random = [partition.uniform_random_action(options.n_layer, rng) for _ in range(rounds)]
    return compare_step(options, "all independent", fixed) + compare_step(options, "random actions", random)


def compare_step(options: Options, kind: str, actions: list[IntVector]) -> list[Row]:
    """Measure one sequence of actions. The bare network is tied alike, but its loop need not know and it is not timed.

    Raises:
        RuntimeError: the two do not compute the same, so that comparing them says nothing.
    """
    env, inner = make_env(options, options.independent)
    _, twin = make_env(options, options.independent)  # equal seeds: the same network, the same batches
    config, reward_stream = twin.config, numpy_stream(SEED, "reward batches")
    windows = RandomWindows(twin.corpus.train, config.batch_size, config.seq_len, reward_stream)
    loop = BareLoop(twin, twin.trainer.optimizer, windows)
    if all(np.array_equal(action, options.independent) for action in actions):
        rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        loop.optimizer = torch.optim.AdamW(twin.trainer.network.model.parameters(), **rates, fused=True)
    # The loop's dropout draws from torch's global generator, which env.step leaves as it found it.
    torch.manual_seed(torch_stream(SEED, "dropout").initial_seed())
    for_env, for_loop = iter(actions), iter(actions)

    def tie() -> None:
        twin.trainer.tied.change(next(for_loop), loop.optimizer)

    tie()
    reward, perplexity_of_loop = float(env.step(next(for_env))[1]), loop.run()
    if not math.isclose(-reward, perplexity_of_loop, rel_tol=1e-3):
        raise RuntimeError(f"env.step came to perplexity {-reward}, the bare loop to {perplexity_of_loop}")
    bare, ours = f"bare loop, {kind}", f"env.step, {kind}"
    arms = [Arm(bare, loop.run, tie), Arm(ours, lambda: env.step(next(for_env)))]
    seconds = take_turns(arms, options.repeats, inner.device)
    return to_rows(milliseconds(seconds), "ms", bare, {ours: "at most 1.03"})


# 2. The head


def plain_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the loss as everyone writes it."""
    return F.cross_entropy(F.linear(hidden, weight), targets)


class PlainLM:
    """`CausalLM` with the plain head."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of windows (B, T + 1)."""
        hidden = model.get_submodule("transformer")(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
        return plain_cross_entropy(hidden.flatten(0, 1), model.get_parameter("lm_head.weight"), batch[:, 1:].flatten())


def measure_head(options: Options) -> list[Row]:
    """The chunked head against the plain one: in a training step of the wide network, and alone."""
    _, env = make_env(options, options.independent, n_embd=options.wide_n_embd)
    trainer, device = env.trainer, env.device

    def train(task: Task) -> None:
        trainer.task = task
        trainer.train(1)

    plain, chunked = "training step, plain head", "training step, chunked head"
    arms = [Arm(plain, lambda: train(PlainLM())), Arm(chunked, lambda: train(CausalLM()))]
    n = options.batch_size * options.seq_len
    speeds = per_second(take_turns(arms, options.repeats, device), n)

    weight = trainer.network.model.get_parameter("lm_head.weight").detach().requires_grad_()  # (V, D)
    hidden = torch.randn(n, options.wide_n_embd, device=device, requires_grad=True)  # (N, D)
    targets = torch.randint(len(weight), (n,), device=device)  # (N,)
    logits = torch.empty(n, len(weight), device=device)  # (N, V)
    grad_hidden, grad_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def learn(head: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        hidden.grad = weight.grad = None
        head(hidden, weight, targets).backward()

    @torch.no_grad()
    def multiply() -> None:
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(logits, weight, out=grad_hidden)
        torch.mm(logits.T, hidden, out=grad_weight)

    arms = [
        Arm("head alone, plain", lambda: learn(plain_cross_entropy)),
        Arm("head alone, chunked", lambda: learn(linear_cross_entropy)),
        Arm("its three matrix products", multiply),
    ]
    alone = milliseconds(take_turns(arms, options.repeats, device))
    return [
        *to_rows(speeds, "tokens/s", plain, {chunked: "at least 1"}),
        *to_rows(alone, "ms", "its three matrix products"),
    ]


# 3. Tied training


def measure_tying(options: Options) -> list[Row]:
    """Training steps of the wide network: all layers independent against three leaders, in both gradient modes."""
    rows = []
    tokenizers = {"gpt2": "vocabulary 50,257", "bytes": "vocabulary 256"}
    for tokenizer, vocabulary in tokenizers.items():
        arms = []
        for name, tying, gradient in (
            ("conventional", options.independent, "shared"),
            ('tied, gradient "shared"', options.three_leaders, "shared"),
            ('tied, gradient "leader"', options.three_leaders, "leader"),
        ):
            settings = {"n_embd": options.wide_n_embd, "tokenizer": tokenizer, "gradient": gradient}
            _, env = make_env(options, tying, **settings)
            arms.append(Arm(f"{name}, {vocabulary}", lambda trainer=env.trainer: trainer.train(1)))
        seconds = take_turns(arms, options.repeats, env.device)
        speeds = per_second(seconds, options.batch_size * options.seq_len)
        rows += to_rows(speeds, "tokens/s", arms[0].name)
    return rows


# 4. Changing the tying


def measure_change(options: Options) -> list[Row]:
    """A change to a random tying against a training step, one after the other in the same network."""
    rows = []
    for width, required in ((options.n_embd, "below 0.05"), (options.wide_n_embd, None)):
        _, env = make_env(options, options.independent, n_embd=width)
        trainer, rng = env.trainer, np.random.default_rng(SEED)
        trainer.train(1)  # fills the optimizer's state, which a change has to move

        def change(trainer: Trainer = trainer, rng: np.random.Generator = rng) -> None:
            trainer.tied.change(partition.uniform_random_action(options.n_layer, rng), trainer.optimizer)

        step, name = f"training step, width {width}", f"tying change, width {width}"
        arms = [Arm(step, lambda trainer=trainer: trainer.train(1)), Arm(name, change)]
        seconds = take_turns(arms, options.repeats, env.device)
        rows += to_rows(milliseconds(seconds), "ms", step, {name: required} if required else None)
    return rows


# 5. The controller


def measure_dqn(options: Options) -> list[Row]:
    """One greedy decision of the DQN and the update on it; random decisions, which need no network, take less."""
    arms = []
    for n_layer in (12, 48):
        agent = make_dqn(n_layer)
        rng = np.random.default_rng(SEED)
        before, after = (partition.canonicalise(partition.uniform_random_action(n_layer, rng)) for _ in range(2))

        def decide(agent: FactorizedDQN = agent, before: IntVector = before, after: IntVector = after) -> None:
            for _ in range(DECISIONS):
                agent.update(Transition(before, agent.act(before), -1.0, after, False))

        arms.append(Arm(f"decision and update, L={n_layer}", decide))
    seconds = take_turns(arms, options.repeats, torch.device("cpu"))
    return to_rows(milliseconds(seconds, DECISIONS), "ms", arms[0].name, {arms[1].name: "median below 3 ms"})


def make_dqn(n_layer: int) -> FactorizedDQN:
    """Return the paper's controller without exploration."""
    config = DQNConfig(epsilon_start=0, epsilon_floor=0)
    return FactorizedDQN(n_layer, config, np.random.default_rng(SEED), torch_stream(SEED, "q-network"))


# 6. Memory


def measure_memory(options: Options) -> list[Row]:
    """What is held in training: all layers independent against three leaders. These are exact, and checked.

    Raises:
        RuntimeError: more or less is held than 16 bytes for every parameter (weight, gradient, two moments).
    """
    held: dict[str, dict[str, int]] = {}
    for name, tying in (("conventional", options.independent), ("tied", options.three_leaders)):
        _, env = make_env(options, tying)
        env.trainer.train(1)
        memory = env.trainer.memory_in_training
        floor = 16 * sum(p.numel() for p in env.trainer.network.model.parameters())  # counts a shared one once
        if memory.total != floor:
            raise RuntimeError(f"{name} training holds {memory.total} bytes, expected {floor}")
        held[name] = memory._asdict() | {"total": memory.total, "16 bytes x unique parameters": floor}
    rows = []
    for part in held["tied"]:
        values = {f"{part}, {name}": [float(parts[part])] for name, parts in held.items()}
        rows += to_rows(values, "bytes", f"{part}, conventional")
    return rows


# The command

MEASUREMENTS: dict[Measurement, tuple[str, Callable[[Options], list[Row]]]] = {
    "step": ("env.step against a bare training loop", measure_step),
    "head": ("The head: chunked against plain", measure_head),
    "tying": ("Training conventionally and tied", measure_tying),
    "change": ("Changing the tying", measure_change),
    "dqn": ("The factorized DQN", measure_dqn),
    "memory": ("Memory of what is trained", measure_memory),
}


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the code."""
    names = [line.partition(":")[2].strip() for line in read_cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],  # of the last minute; an idle machine has about 0
    }


def read_cpuinfo() -> list[str]:
    """Return what Linux says about the processor, by line; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def to_table(title: str, rows: Sequence[Row]) -> Table:
    """Return the rows as a table."""
    table = Table("", "median", "min .. max", "unit", "ratio", "to", "required", title=title, title_justify="left")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        spread = "" if row.min == row.max else f"{number(row.min)} .. {number(row.max)}"
        table.add_row(row.name, number(row.median), spread, row.unit, ratio, row.against, row.required)
    return table


def number(value: float) -> str:
    """Return a number with all digits before the point, and four in all if it has fewer."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write, and return the exit code."""
    console = Console()
    try:
        options = tyro.cli(Options, args=argv, description=__doc__)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        machine, results = describe_machine(), {}
        console.print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
        for i, name in enumerate(options.only):
            title, measure = MEASUREMENTS[name]
            console.print(f"[{i + 1}/{len(options.only)}] measuring {name} ...", markup=False)
            results[name] = measure(options)
            console.print(to_table(title, results[name]))
        if options.json is not None:
            rows = {name: [row._asdict() for row in rows] for name, rows in results.items()}
            content = {"machine": machine, "options": dataclasses.asdict(options), "measurements": rows}
            with written_whole(options.json) as path:
                path.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
        return 0
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
