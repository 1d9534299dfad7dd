#!/usr/bin/env python
"""Measure what this package costs and what tying saves.

Every measurement runs its arms side by side, taking turns, so that whatever else the machine does hits all of them.
Medians are reported, with the range beside them; a ratio is the median of the ratios of the single turns.

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
from tying_env.primary.tasks import to_device
from tying_env.primary.trainer import Batches, Trainer
from tying_env.seeding import numpy_stream, torch_stream

Measurement = Literal["step", "head", "tying", "change", "dqn", "memory"]
SEED = 0
SMALL = EnvConfig()


@dataclass(frozen=True)
class Options:
    """Measure what this package costs and what tying saves; every ratio comes from arms that take turns in one run.

    Raises:
        ValueError: a setting is outside its range.
    """

    only: tuple[Measurement, ...] = get_args(Measurement)
    """Which measurements to run."""
    repeats: int = 15
    """Turns of every arm, after one to warm up."""
    json: Path | None = None
    """Write all numbers to this file as well."""
    threads: int | None = None
    """Threads of torch; its own choice by default."""
    device: str = SMALL.device
    """cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""

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
        for name, least in (("repeats", 1), ("n_layer", 3), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.json is not None and not self.json.resolve().parent.is_dir():
            raise ValueError(f"json must lie in a folder that exists, got {str(self.json)!r}")

    @property
    def tokens(self) -> int:
        """Tokens predicted in a training step."""
        return self.batch_size * self.seq_len

    def make_env(self, tying: IntVector, **settings: Any) -> LayerTyingEnv:
        """Return the environment as `gym.make` builds it, begun with `tying`; episodes do not end, nothing validates.

        Its `gym.make` wrappers are in `env.spec`'s way only; use `wrapped` where they shall count.
        """
        unwrapped = self.wrapped(tying, **settings).unwrapped
        assert isinstance(unwrapped, LayerTyingEnv)
        return unwrapped
