"""What `layer-tying benchmark` measures, one function for each measurement."""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from tying_agents.benchmarks.settings import FEW_WORDS, BenchmarkSizes
from tying_agents.benchmarks.synthetic import RandomTokens
from tying_agents.benchmarks.turns import Contender, TableRow, milliseconds, per_second, take_turns, to_rows
from tying_agents.controllers.base import Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.settings import DQNConfig, QHead
from tying_env import partition
from tying_env.data import Batches
from tying_env.env import LayerTyingEnv
from tying_env.kinds import Kinds
from tying_env.partition import IntVector
from tying_env.primary.assembly import build_trainer
from tying_env.primary.evaluation import mean_loss, perplexity
from tying_env.primary.kernels.first_order import gradients_once
from tying_env.primary.models import find_device
from tying_env.primary.tasks import CausalLM, to_device
from tying_env.primary.trainer import Trainer
from tying_env.seeding import torch_stream

SEED = 0
DECISIONS = 20  # of the controller in one turn: a single one is too short to time
SCHEDULED = 100  # steps of the schedule in one turn


def benchmark_env(
    work: BenchmarkSizes, tying: IntVector, **settings: Any
) -> tuple[gym.Env[IntVector, IntVector], LayerTyingEnv]:
    """Return an environment begun with `tying`, as gym.make wraps it and bare; it has no end and does not validate."""
    endless = {"validate_every": 0, "total_steps": 10**9}
    env = gym.make("LayerTying-GPT2-v0", **dataclasses.asdict(work.config()) | endless | settings)
    env.reset(seed=SEED, options={"tying": tying})
    assert isinstance(env.unwrapped, LayerTyingEnv)
    return env, env.unwrapped


# 1. env.step


@dataclass
class BareLoop:
    """The training and the reward of one env.step, written without this package's environment, trainer and tying."""

    twin: LayerTyingEnv  # gives the network and the data; never stepped
    optimizer: torch.optim.Optimizer
    reward_windows: Batches

    def run(self) -> float:
        """Train for k steps; return the perplexity on random training batches."""
        device, config, task = self.twin.device, self.twin.config, CausalLM()
        model, batches = self.twin.trainer.network.model, self.twin.trainer.batches
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        model.train()
        for _ in range(config.k):
            with gradients_once():  # the same kernels
                loss = task.loss(model, to_device(batches.next_batch(), device))
                loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        windows = np.concatenate([self.reward_windows.next_batch() for _ in range(config.reward_batches)])
        return perplexity(mean_loss(model, task, windows, config.batch_size, device))


def measure_step(work: BenchmarkSizes) -> list[TableRow]:
    """env.step against a bare loop that computes the same: weights, batches, dropout, tying and reward are equal."""
    return compare_step(work, random=False) + compare_step(work, random=True)


def compare_step(work: BenchmarkSizes, random: bool) -> list[TableRow]:
    """Compare with all layers independent throughout, or with random actions.

    The bare network has then to be tied alike, but the loop does not know of it, and its time is not counted.

    Raises:
        RuntimeError: the two do not compute the same, so that comparing their times says nothing.
    """
    env, inner = benchmark_env(work, work.independent)
    _, twin = benchmark_env(work, work.independent)  # equal seeds: the same network, the same batches
    config, trainer, rng = twin.config, twin.trainer, np.random.default_rng(SEED)
    windows = twin.workload.reward_batches(SEED)
    plain = torch.optim.AdamW(
        trainer.network.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    loop = BareLoop(twin, trainer.optimizer if random else plain, windows)
    actions = [
        partition.uniform_random_action(work.n_layer, rng) if random else work.independent
        for _ in range(work.repeats + 2)  # one to compare the results, one to warm up
    ]
    # The loop's dropout draws from torch's global generator, which env.step leaves as it found it.
    state = torch_stream(SEED, "dropout", trainer.device).get_state()
    if trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state, trainer.device)
    else:
        torch.set_rng_state(state)
    for_env, for_loop = iter(actions), iter(actions)

    def step() -> float:
        return float(env.step(next(for_env))[1])

    def tie() -> None:
        trainer.tied.change(next(for_loop), loop.optimizer)

    tie()
    reward, perplexity_of_loop = step(), loop.run()
    if not math.isclose(-reward, perplexity_of_loop, rel_tol=1e-4):
        raise RuntimeError(f"env.step came to perplexity {-reward}, the bare loop to {perplexity_of_loop}")
    kind = "random actions" if random else "all independent"
    bare, ours = f"bare loop, {kind}", f"env.step, {kind}"
    seconds = take_turns(
        [Contender(bare, loop.run, tie), Contender(ours, step)], work.repeats, inner.device, work.clock
    )
    return to_rows(milliseconds(seconds), "ms", bare, {ours: "at most 1.01"})


# 2. Tied training


def measure_tying(work: BenchmarkSizes) -> list[TableRow]:
    """Training steps of the wide network: all layers independent against three leaders, in both gradient modes."""
    rows, config, device = [], work.config(), find_device(work.device)
    for vocab_size in work.vocabularies:
        arms = []
        shared = dataclasses.replace(config, n_embd=work.wide_n_embd)
        leader = dataclasses.replace(shared, gradient="leader")
        for name, tying, chosen in (
            ("conventional", work.independent, shared),
            ("tied, shared", work.three_leaders, shared),
            ("tied, leader", work.three_leaders, leader),
        ):
            trainer = build_trainer(RandomTokens(chosen, vocab_size), device, SEED, tying)
            arms.append(Contender(f"{vocab_size:,} words: {name}", functools.partial(trainer.train, 1)))
        required = {arms[1].name: "at least 1.0", arms[2].name: "at least 1.3"} if vocab_size <= FEW_WORDS else None
        rows += to_rows(
            per_second(take_turns(arms, work.repeats, device, work.clock), work.tokens),
            "tokens/s",
            arms[0].name,
            required,
        )
    return rows


def measure_parts(work: BenchmarkSizes) -> list[TableRow]:
    """A batch cut into parts that each pass through all layers before the next, against the batch in one.

    A part's activations are in the cache when the next layer asks for them, and where layers are tied the weights are,
    too. The vocabulary is small, so that what is measured is the layers.
    """
    rows, device = [], find_device(work.device)
    tyings = {
        "all independent": work.independent,
        "3 groups of neighbours": work.three_leaders,
        "one group": np.zeros(work.n_layer, dtype=int),
    }
    counts = [parts for parts in (1, 2, 4, 8) if work.batch_size % parts == 0]
    for name, tying in tyings.items():
        arms = []
        for parts in counts:
            config = dataclasses.replace(work.config(), n_embd=work.wide_n_embd, accumulate=parts)
            trainer = build_trainer(RandomTokens(config, FEW_WORDS), device, SEED, tying)
            arms.append(Contender(f"{name}, in {parts}", functools.partial(trainer.train, 1)))
        seconds = take_turns(arms, work.repeats, device, work.clock)
        rows += to_rows(per_second(seconds, work.tokens), "tokens/s", arms[0].name)
    return rows


# 3. Changing the tying


def measure_change(work: BenchmarkSizes) -> list[TableRow]:
    """A change to a random tying, and a step of the schedule, against a training step, in turns in the same network."""
    rows = []
    for width, required in ((work.n_embd, ("below 0.02", "below 0.002")), (work.wide_n_embd, None)):
        _, env = benchmark_env(work, work.independent, n_embd=width, schedule="cosine")
        trainer, rng = env.trainer, np.random.default_rng(SEED)
        trainer.train(1)  # fills the optimizer's state, which a change has to move

        def change(trainer: Trainer = trainer, rng: np.random.Generator = rng) -> None:
            trainer.tied.change(partition.uniform_random_action(work.n_layer, rng), trainer.optimizer)

        def schedule(trainer: Trainer = trainer) -> None:
            for _ in range(SCHEDULED):
                trainer.rates.step()

        step, *names = (f"{what}, width {width}" for what in ("training step", "tying change", "schedule's step"))
        arms = [
            Contender(step, functools.partial(trainer.train, 1)),
            Contender(names[0], change),
            Contender(names[1], schedule, steps=SCHEDULED),
        ]
        seconds = take_turns(arms, work.repeats, env.device, work.clock)
        rows += to_rows(
            milliseconds(seconds), "ms", step, dict(zip(names, required, strict=True)) if required else None
        )
    return rows


# 4. The controller


def measure_dqn(work: BenchmarkSizes) -> list[TableRow]:
    """One greedy decision of the DQN and the update on it; random decisions, which need no network, take less."""
    arms = []
    for n_layer in (12, 48, 192):
        for head in get_args(QHead):
            name = f"decision and update, L={n_layer}" + ("" if head == "full" else f", {head} head")
            arms.append(Contender(name, decision_of(make_dqn(n_layer, head), n_layer), steps=DECISIONS))
    seconds = take_turns(arms, work.repeats, torch.device("cpu"), work.clock)
    return to_rows(milliseconds(seconds), "ms", arms[0].name, {arms[2].name: "below 2 ms"})


def decision_of(agent: FactorizedDQN, n_layer: int) -> Callable[[], None]:
    """Return a function that makes `DECISIONS` greedy decisions, with the update on each."""
    rng = np.random.default_rng(SEED)
    before, after = (partition.canonicalise(partition.uniform_random_action(n_layer, rng)) for _ in range(2))

    def decide() -> None:
        for _ in range(DECISIONS):
            agent.update(Transition(before, agent.act(before), -1.0, after, False))

    return decide


def make_dqn(n_layer: int, head: QHead = "full") -> FactorizedDQN:
    """Return the paper's controller without exploration."""
    config = DQNConfig(epsilon_start=0, epsilon_floor=0, q_head=head)
    return FactorizedDQN(Kinds.alike(n_layer), config, np.random.default_rng(SEED), torch_stream(SEED, "q-network"))
