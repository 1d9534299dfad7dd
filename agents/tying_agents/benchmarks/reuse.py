"""Attention of followers reused against plain tying, as sequences grow: training steps, and forward passes alone."""

import dataclasses
import functools

import numpy as np
import torch

from tying_agents.benchmarks.measurements import SEED
from tying_agents.benchmarks.settings import BenchmarkSizes, Reuse
from tying_agents.benchmarks.synthetic import RandomTokens
from tying_agents.benchmarks.turns import Contender, TableRow, per_second, take_turns, to_rows
from tying_env.config import EnvConfig
from tying_env.primary.assembly import build_trainer
from tying_env.primary.models import find_device
from tying_env.primary.trainer import Trainer

# Few, so that the head is little of the work: what is compared are the blocks.
VOCABULARY = 256
ARMS = {"plain tying": "own", "attention reused": "reused"}


def measure_reuse(work: BenchmarkSizes, reuse: Reuse) -> list[TableRow]:
    """Tokens in a second with three leaders, for every length of the sequences; as many tokens in a step at each."""
    device, rows = find_device(work.device), []
    for length in reuse.reuse_lengths:
        batch = max(1, work.tokens // length)
        base = dataclasses.replace(work.config(), n_embd=work.wide_n_embd, seq_len=length, batch_size=batch)
        for dropout in (base.dropout, 0.0):
            trained, passed = [], []
            for name, attention in ARMS.items():
                config = dataclasses.replace(base, dropout=dropout, attention=attention)  # type: ignore[arg-type]
                trainer = build_trainer(RandomTokens(config, VOCABULARY), device, SEED, work.three_leaders)
                trained.append(Contender(name, functools.partial(trainer.train, 1)))
                passed.append(Contender(name, functools.partial(forward, trainer, tokens(config, device))))
            kinds = {f"training, dropout {dropout:g}": trained}
            if not dropout:  # there is none in evaluation
                kinds["forward pass"] = passed
            for kind, arms in kinds.items():
                speeds = per_second(take_turns(arms, work.repeats, device, work.clock), batch * length)
                named = {f"{length} tokens, {kind}: {name}": values for name, values in speeds.items()}
                rows += to_rows(named, "tokens/s", next(iter(named)))
    return rows


def tokens(config: EnvConfig, device: torch.device) -> torch.Tensor:
    """Return random tokens, (B, T)."""
    drawn = np.random.default_rng(SEED).integers(VOCABULARY, size=(config.batch_size, config.seq_len))
    return torch.from_numpy(drawn).to(device)


@torch.no_grad()
def forward(trainer: Trainer, inputs: torch.Tensor) -> None:
    """Compute the blocks and what is before them, as in evaluation."""
    trainer.network.model.eval().get_submodule("transformer")(input_ids=inputs, use_cache=False)
