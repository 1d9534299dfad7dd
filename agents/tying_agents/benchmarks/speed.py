"""Speed against what else could be run: a plain loop, transformers' Trainer, the matrix products alone."""

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tying_agents.benchmarks.measurements import SEED, benchmark_env
from tying_agents.benchmarks.plain import PlainLoop
from tying_agents.benchmarks.settings import FEW_WORDS, BenchmarkSizes
from tying_agents.benchmarks.synthetic import RandomTokens
from tying_agents.benchmarks.turns import (
    RATIO,
    Contender,
    Note,
    TableRow,
    milliseconds,
    per_second,
    take_turns,
    to_rows,
)
from tying_env.config import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.partition import IntVector
from tying_env.primary.assembly import build_trainer
from tying_env.primary.kernels.head import linear_cross_entropy
from tying_env.primary.kernels.products import choosing_onednn, onednn_is_chosen, product
from tying_env.primary.models import find_device
from tying_env.runs.run_directory import METRICS
from tying_env.seeding import numpy_stream, torch_randomness_from, torch_stream

# Training steps in one turn, as between two decisions: what comes once for all of them (ours looks whether weights are
# finite, transformers' Trainer sets itself up) is not charged to each.
STEPS = 4


def measure_plain(work: BenchmarkSizes, note: Note) -> list[TableRow]:
    """Training steps of the wide network: a plain loop, transformers' Trainer, ours and tied, and the products alone.

    On CPUs there is one arm more with the other kind of products, by oneDNN or torch's own: as on other processors.
    """
    rows = []
    for vocab_size in work.vocabularies:
        for dropout in (0.1, 0.0):
            begin, name = time.perf_counter(), f"{vocab_size:,} words, dropout {dropout:g}"
            config = dataclasses.replace(work.config(), n_embd=work.wide_n_embd, dropout=dropout)
            rows += _compare_plain(work, config, vocab_size, f"{name}: ")
            note(f"{name}, {time.perf_counter() - begin:.1f} s")
    return rows


def _compare_plain(work: BenchmarkSizes, config: EnvConfig, vocab_size: int, name: str) -> list[TableRow]:
    device, workload = find_device(work.device), RandomTokens(config, vocab_size)
    leader = RandomTokens(dataclasses.replace(config, gradient="leader"), vocab_size)

    def training(kind: str, given: RandomTokens, tying: IntVector) -> Contender:
        train = build_trainer(given, device, SEED, tying).train
        return Contender(f"{name}{kind}", functools.partial(train, STEPS), steps=STEPS)

    with torch_randomness_from(torch_stream(SEED, "plain weights")):
        plain = PlainLoop(config, vocab_size, workload.tokens, numpy_stream(SEED, "plain batches"), device)
    arms = [
        Contender(f"{name}plain loop", lambda: [plain.step() for _ in range(STEPS)], steps=STEPS),
        Contender(f"{name}transformers' Trainer", hugging_face_trainer(workload, device), steps=STEPS),
        training("ours", workload, work.independent),
        training("ours, three leaders, shared gradient", workload, work.three_leaders),
        training("ours, three leaders, leader's gradient", leader, work.three_leaders),
    ]
    first, ours = arms[0].name, arms[2].name
    alone = [Contender(f"{name}matrix products alone", matrix_products(workload, device, torch_product))]
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        other = not onednn_is_chosen()
        with choosing_onednn(other):
            turned = training(f"ours, {'oneDNN' if other else 'torch'}'s products", workload, work.independent)
        arms.append(turned._replace(work=choosing_onednn(other)(turned.work)))
        by_onednn = matrix_products(workload, device, onednn_product)
        alone.append(Contender(f"{name}matrix products alone, by oneDNN", by_onednn))
    speeds = per_second(take_turns([*arms, *alone], work.repeats, device, work.clock), work.tokens)
    wanted = "at least 1.3" if vocab_size <= FEW_WORDS else "at least 1.4"
    rows = to_rows(speeds, "tokens/s", first, {ours: wanted})
    for products in alone:
        share = [a / b for a, b in zip(speeds[ours], speeds[products.name], strict=True)]
        found = to_rows({f"{ours} as a share of the speed of {products.name.removeprefix(name)}": share}, RATIO)
        rows += [row._replace(required="at least 0.85") for row in found]
    return rows


def hugging_face_trainer(workload: RandomTokens, device: torch.device) -> Callable[[], object]:
    """Return a function that trains GPT-2 of the same sizes, otherwise as transformers makes it, for `STEPS` steps."""
    from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    config = workload.config
    architecture = GPT2Config(
        vocab_size=workload.sizes["vocab_size"],
        n_positions=config.seq_len,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
    )
    with torch_randomness_from(torch_stream(SEED, "trainer weights")):
        model = GPT2LMHeadModel(architecture)
    drawn = workload.training_batches(SEED)
    rows = np.concatenate([drawn.next_batch() for _ in range(8)]).astype("int64")[:, :-1]
    dataset = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in rows]
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # it saves nothing
        per_device_train_batch_size=config.batch_size,
        max_steps=STEPS,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
    )
    trainer: Any = Trainer(model=model, args=arguments, train_dataset=dataset)
    trainer.remove_callback(PrinterCallback)
    train: Callable[[], object] = trainer.train
    return train


def torch_product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write left @ right.T into `out`, as torch does."""
    torch.mm(left, right.T, out=out)


def onednn_product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Compute left @ right.T by oneDNN, which returns it in memory of its own."""
    product(left, right)


def matrix_products(
    workload: RandomTokens, device: torch.device, multiply: Callable[[Tensor, Tensor, Tensor], None]
) -> Callable[[], None]:
    """Return a function that does the matrix products of one training step, into memory that is there already."""
    config = workload.config
    n, d, t = config.batch_size * config.seq_len, config.n_embd, config.seq_len
    heads = config.batch_size * config.n_head
    generator = torch_stream(SEED, "products", device)
    draw = functools.partial(torch.randn, generator=generator, device=device)
    shapes = [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)]
    layers = [(draw(a, b), draw(n, a), draw(n, b)) for a, b in shapes]
    layers = [tuple(x.clone() for x in one) for _ in range(config.n_layer) for one in layers]  # type: ignore[misc]
    vocabulary = workload.sizes["vocab_size"]
    head = (draw(d, vocabulary), draw(n, d), draw(n, vocabulary))
    outputs = [tuple(torch.empty_like(x) for x in one) for one in (*layers[:4], head)]
    q, k, v, w = (draw(heads, t, d // config.n_head) for _ in range(4))
    scores, out = draw(heads, t, t), torch.empty_like(w)

    @torch.no_grad()
    def run() -> None:
        for i, (weight, inputs, grad) in enumerate([*layers, head]):
            grad_weight, grad_inputs, output = outputs[i % 4 if i < len(layers) else 4]
            multiply(inputs, weight.T, output)
            multiply(grad, weight, grad_inputs)
            multiply(inputs.T, grad.T, grad_weight)
        for _ in range(config.n_layer):
            for _ in range(2):
                torch.bmm(q, k.transpose(1, 2), out=scores)  # forward: scores; backward: their gradient
                torch.bmm(scores, v, out=out)  # forward: output; backward: the queries' gradient
                torch.bmm(scores.transpose(1, 2), w, out=out)  # backward: the keys' and the values' gradients

    return run


def measure_where(work: BenchmarkSizes) -> list[TableRow]:
    """Where the time of a training step goes: its parts alone, forward and backward, and what is left."""
    _, env = benchmark_env(work, work.independent, n_embd=work.wide_n_embd)
    trainer, config, device = env.trainer, env.config, env.device
    blocks: Any = trainer.network.blocks
    weight = trainer.network.model.get_parameter("lm_head.weight")
    generator = torch_stream(SEED, "where", device)
    hidden = torch.randn(config.batch_size, config.seq_len, config.n_embd, generator=generator, device=device)
    targets = torch.randint(len(weight), (hidden[..., 0].numel(),), generator=generator, device=device)
    trainer.train(1)

    def learn(part: Callable[[Tensor], Tensor]) -> None:
        inputs = hidden.detach().requires_grad_()
        result = part(inputs)
        result.backward(torch.ones_like(result))

    def head() -> None:
        inputs = hidden.flatten(0, 1).detach().requires_grad_()
        linear_cross_entropy(inputs, weight, targets).backward()

    def attend(block: Any, inputs: Tensor) -> Tensor:
        output: Tensor = block.attn(inputs)[0]
        return output

    def attention() -> None:
        for block in blocks:
            learn(functools.partial(attend, block))

    def feed_forward() -> None:
        for block in blocks:
            learn(block.mlp)

    def norms() -> None:
        for block in blocks:
            learn(block.ln_1)
            learn(block.ln_2)

    def optimise() -> None:
        nn.utils.clip_grad_norm_(trainer.trainable_parameters(), config.max_grad_norm)
        trainer.optimizer.step()

    def with_gradients() -> None:
        for parameter in trainer.trainable_parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    whole, forget = "training step", trainer.optimizer.zero_grad
    trainer.network.model.train()
    arms = [
        Contender(
            whole, functools.partial(trainer.train, 1), functools.partial(trainer.optimizer.zero_grad, set_to_none=True)
        ),
        Contender("head and loss", head, forget),
        Contender("attention", attention, forget),
        Contender("feed-forward", feed_forward, forget),
        Contender("norms", norms, forget),
        Contender("clipping and optimizer", optimise, with_gradients),
    ]
    seconds = take_turns(arms, work.repeats, device, work.clock)
    turns = zip(*(seconds[arm.name] for arm in arms), strict=True)
    seconds["the rest (embeddings, residuals, batches, finite check)"] = [max(0.0, t[0] - sum(t[1:])) for t in turns]
    return to_rows(milliseconds(seconds), "ms", whole)


def measure_start(work: BenchmarkSizes) -> list[TableRow]:
    """How long it takes until something happens: reset, and a command's first training step and end."""
    env = LayerTyingEnv(**dataclasses.asdict(work.config()))
    arms = [Contender("reset", functools.partial(env.reset, seed=SEED))]
    rows = to_rows(take_turns(arms, work.repeats, env.device, work.clock), "s")
    first, whole, read = [], [], time.perf_counter if work.clock == "wall" else _computed_by_children
    with tempfile.TemporaryDirectory() as folder:
        for i in range(min(3, work.repeats)):
            run = Path(folder) / str(i)
            command = [sys.executable, "-m", "tying_env", "run", "--dataset", work.dataset, "--run-dir", str(run)]
            command += ["--total-steps", "1", "--k", "1", "--validate-every", "0", "--no-measure-test"]
            at, begin = time.time(), read()
            subprocess.run(command, check=True, capture_output=True)
            whole.append(read() - begin)
            first.append((run / METRICS).stat().st_mtime - at)  # its one line is written after that step
    wanted = ["below 1 s", "below 10 s"]
    if work.clock == "wall":  # when a line was written is a time that passed
        rows += to_rows({"layer-tying run, until its first training step": first}, "s")
        wanted.insert(1, "below 4 s")
    rows += to_rows({"layer-tying run, a whole run of one training step": whole}, "s")
    return [row._replace(required=required) for row, required in zip(rows, wanted, strict=True)]


def _computed_by_children() -> float:
    found = os.times()
    return found.children_user + found.children_system
