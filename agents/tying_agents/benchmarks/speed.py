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

import torch
from torch import Tensor, nn

from tying_agents.benchmarks.measurements import SEED, benchmark_env
from tying_agents.benchmarks.plain import PlainLoop
from tying_agents.benchmarks.settings import BenchmarkSizes
from tying_agents.benchmarks.turns import RATIO, Contender, TableRow, milliseconds, per_second, take_turns, to_rows
from tying_env.env import LayerTyingEnv
from tying_env.primary.kernels.head import linear_cross_entropy
from tying_env.primary.kernels.products import faster, product
from tying_env.primary.workloads import CausalText
from tying_env.seeding import numpy_stream, torch_randomness_from, torch_stream

STEPS = 4  # training steps of transformers' Trainer in one turn: a single one would be mostly its setting up


def measure_plain(work: BenchmarkSizes) -> list[TableRow]:
    """Training steps of the wide network: a plain loop, transformers' Trainer, ours, and its products alone."""
    rows = []
    for dropout in (0.1, 0.0):
        _, env = benchmark_env(work, work.independent, n_embd=work.wide_n_embd, dropout=dropout)
        vocab_size, tokens = env.workload.sizes["vocab_size"], text_of(env).corpus.train
        with torch_randomness_from(torch_stream(SEED, "plain weights")):
            plain = PlainLoop(env.config, vocab_size, tokens, numpy_stream(SEED, "plain batches"), env.device)
        train, name = functools.partial(env.trainer.train, 1), f"dropout {dropout:g}: "
        first, ours, alone = (f"{name}{what}" for what in ("plain loop", "ours", "matrix products alone"))
        arms = [
            Contender(first, plain.step),
            Contender(f"{name}transformers' Trainer", hugging_face_trainer(env), steps=STEPS),
            Contender(ours, train),
            Contender(alone, matrix_products(env, torch_product)),
        ]
        by_onednn = [f"{ours}, torch's own products", f"{alone}, by oneDNN"] if uses_onednn(env) else []
        if by_onednn:
            arms += [
                Contender(by_onednn[0], functools.partial(without_onednn, train)),
                Contender(by_onednn[1], matrix_products(env, onednn_product)),
            ]
        speeds = per_second(take_turns(arms, work.repeats, env.device, work.clock), work.tokens)
        rows += to_rows(speeds, "tokens/s", first, {ours: "at least 1.4"})
        for products in (alone, *by_onednn[1:]):
            share = [a / b for a, b in zip(speeds[ours], speeds[products], strict=True)]
            found = to_rows({f"{ours} as a share of the speed of {products.removeprefix(name)}": share}, RATIO)
            rows += [row._replace(required="at least 0.85") for row in found]
    return rows


def uses_onednn(env: LayerTyingEnv) -> bool:
    """Tell whether the network's linear layers multiply through oneDNN here; see `primary.kernels.products`."""
    weight = env.trainer.network.model.get_parameter("lm_head.weight")
    return faster(weight, weight, len(weight))


def without_onednn(work: Callable[[], object]) -> None:
    """Do work with torch's own matrix products."""
    before = torch.backends.mkldnn.set_flags(False)  # no own flags(): that one warns of a GPU that is not there
    try:
        work()
    finally:
        torch.backends.mkldnn.set_flags(before[0])


def text_of(env: LayerTyingEnv) -> CausalText:
    """Return the environment's text."""
    assert isinstance(env.workload, CausalText)
    return env.workload


def hugging_face_trainer(env: LayerTyingEnv) -> Callable[[], object]:
    """Return a function that trains GPT-2 of the same sizes, otherwise as transformers makes it, for `STEPS` steps."""
    from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    config = env.config
    architecture = GPT2Config(
        vocab_size=env.workload.sizes["vocab_size"],
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
    rows = text_of(env).examples("train", 8 * config.batch_size).astype("int64")[:, :-1]
    dataset = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in rows]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="benchmark-"),
        per_device_train_batch_size=config.batch_size,
        max_steps=STEPS,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=env.device.type == "cpu",
        dataloader_pin_memory=env.device.type == "cuda",
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


def matrix_products(env: LayerTyingEnv, multiply: Callable[[Tensor, Tensor, Tensor], None]) -> Callable[[], None]:
    """Return a function that does the matrix products of one training step, into memory that is there already."""
    config, device = env.config, env.device
    n, d, t = config.batch_size * config.seq_len, config.n_embd, config.seq_len
    heads = config.batch_size * config.n_head
    generator = torch_stream(SEED, "products", device)
    draw = functools.partial(torch.randn, generator=generator, device=device)
    shapes = [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)]
    layers = [(draw(a, b), draw(n, a), draw(n, b)) for a, b in shapes]
    layers = [tuple(x.clone() for x in one) for _ in range(config.n_layer) for one in layers]  # type: ignore[misc]
    vocabulary = env.workload.sizes["vocab_size"]
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
    """How long it takes until something happens: reset, and the command run until it has trained one step and ended."""
    env = LayerTyingEnv(**dataclasses.asdict(work.config()))
    arms = [Contender("reset", functools.partial(env.reset, seed=SEED))]
    rows = to_rows(take_turns(arms, work.repeats, env.device, work.clock), "s")
    seconds, read = [], time.perf_counter if work.clock == "wall" else _computed_by_children
    with tempfile.TemporaryDirectory() as folder:
        for i in range(min(3, work.repeats)):
            command = [
                sys.executable,
                "-m",
                "tying_env",
                "run",
                "--dataset",
                work.dataset,
                "--total-steps",
                "1",
                "--k",
                "1",
            ]
            command += ["--validate-every", "0", "--no-measure-test", "--run-dir", str(Path(folder) / str(i))]
            begin = read()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(read() - begin)
    rows += to_rows({"layer-tying run, a whole run of one training step": seconds}, "s")
    return [row._replace(required=wanted) for row, wanted in zip(rows, ("below 1 s", "below 10 s"), strict=True)]


def _computed_by_children() -> float:
    found = os.times()
    return found.children_user + found.children_system
