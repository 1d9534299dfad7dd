"""The settings of the benchmark. No torch here: `--help` has to be quick."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tying_env import PAPER, EnvConfig
from tying_env.partition import IntVector

# "cpu" is the time that this process computed: with a single thread a busy machine does not disturb it.
Clock = Literal["wall", "cpu"]

MeasurementName = Literal[
    "step",
    "head",
    "tying",
    "parts",
    "change",
    "dqn",
    "plain",
    "where",
    "options",
    "growth",
    "reuse",
    "start",
    "vector",
    "table",
    "memory",
]

MOST_WORDS = 2**16
FEW_WORDS = 512  # up to here the head is little of a step

# GPT-2's vocabulary, whose head is half of a small network's step, and no schedule: what all tables were measured with.
SMALL = EnvConfig(tokenizer="gpt2", n_embd=128, batch_size=8, schedule="constant", warmup_steps=0)


@dataclass(frozen=True)
class BenchmarkSizes:
    """What is computed, and how often; the defaults are `SMALL`'s.

    Raises:
        ValueError: a setting is outside its range.
    """

    repeats: int = 15
    """Turns of every arm, after one to warm up."""
    clock: Clock = "wall"
    """Time that passed, or (cpu, for a busy machine, with --threads 1) time that this process computed."""
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
    vocabularies: tuple[int, ...] = (50257, 256)
    """Words of the random texts in tying and plain: GPT-2's, whose head is most of the work, and bytes."""
    k: int = SMALL.k
    """Training steps in one env.step."""

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("n_layer", 3)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.vocabularies or not all(2 <= n <= MOST_WORDS for n in self.vocabularies):
            raise ValueError(f"vocabularies must be in 2..{MOST_WORDS} each, got {self.vocabularies}")

    def config(self) -> EnvConfig:
        """Return the environment's settings for this workload."""
        names = ("dataset", "device", "n_layer", "n_embd", "n_head", "seq_len", "batch_size", "k")
        return dataclasses.replace(SMALL, **{name: getattr(self, name) for name in names})

    @property
    def tokens(self) -> int:
        """Tokens predicted in a training step."""
        return self.batch_size * self.seq_len

    @property
    def independent(self) -> IntVector:
        """The tying of conventional training, shape (L,)."""
        return np.arange(self.n_layer)

    @property
    def three_leaders(self) -> IntVector:
        """Three groups of neighbours, as equal in size as can be, shape (L,)."""
        return neighbours(self.n_layer, 3)


@dataclass(frozen=True)
class MemorySizes:
    """For which networks memory is accounted for, and measured."""

    paper_n_layer: int = PAPER["n_layer"]
    """L of the exact accounting; its other sizes are the paper's, and so are its batches. 0 leaves it out: it is
    most of the time."""
    leaders: int = 7
    """Leaders of the tied network in the exact accounting; at most paper_n_layer."""

    def __post_init__(self) -> None:
        if self.paper_n_layer < 0:
            raise ValueError(f"paper_n_layer must be at least 0, got {self.paper_n_layer}")
        if self.paper_n_layer and not 1 <= self.leaders <= self.paper_n_layer:
            raise ValueError(f"leaders must be in 1..{self.paper_n_layer} (paper_n_layer), got {self.leaders}")


@dataclass(frozen=True)
class ManyNetworks:
    """The networks that are trained at once."""

    numbers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """How many at once."""
    many_n_layer: int = 6
    """Layers of each."""
    many_n_embd: int = 32
    """Width of each."""
    many_seq_len: int = 32
    """Tokens in a sequence."""
    many_batch_size: int = 4
    """Sequences in a training step."""
    many_table: Path | None = None
    """A tying table's file: sizes and recipe of its networks, in place of the four above."""

    def __post_init__(self) -> None:
        if not self.numbers or min(self.numbers) < 1:
            raise ValueError(f"numbers must be at least 1 each, got {self.numbers}")


@dataclass(frozen=True)
class TableSteps:
    """How the environment of the tying table is stepped."""

    single_steps: int = 10_000
    """Steps in one turn, one at a time."""
    batch_sizes: tuple[int, ...] = (64, 1024, 4096)
    """Environments at once."""
    batched_steps: int = 200
    """Steps in one turn, of all environments at once."""

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.single_steps, self.batched_steps, *self.batch_sizes) < 1:
            raise ValueError(
                "single_steps, batched_steps and batch_sizes must be at least 1 each, got "
                f"{self.single_steps}, {self.batched_steps} and {self.batch_sizes}"
            )


@dataclass(frozen=True)
class Growth:
    """How the work grows: one size is varied, the others are the workload's."""

    growing_layers: tuple[int, ...] = (6, 12, 24, 48, 96, 192)
    """L."""
    growing_widths: tuple[int, ...] = (64, 128, 256, 512)
    """Width; 64 for each head at most."""
    growing_lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Tokens in a sequence; the tokens in a step stay as many as they are."""
    growing_groups: tuple[int, ...] = (1, 2, 3, 6, 12)
    """Groups of layers, at most L."""
    growing_vocabularies: tuple[int, ...] = (256, 1024, 4096, 16384, 50257)
    """Words of the random texts; 256 where something else is varied."""
    growing_processes: tuple[int, ...] = (1, 2, 4)
    """Processes, an environment in each."""
    growing_repeats: int = 5
    """Turns of every arm at most: there are many sizes."""
    figure: Path | None = None
    """Draw the curves into this PNG file."""

    def __post_init__(self) -> None:
        for name, sizes in vars(self).items():
            if isinstance(sizes, tuple) and min(sizes, default=1) < 1:
                raise ValueError(f"{name} must be at least 1 each, got {sizes}")
        if self.growing_repeats < 1:
            raise ValueError(f"growing_repeats must be at least 1, got {self.growing_repeats}")


@dataclass(frozen=True)
class Reuse:
    """Attention reused against plain tying."""

    reuse_lengths: tuple[int, ...] = (128, 256, 512, 1024)
    """Tokens in a sequence; the tokens in a step stay as many as they are."""

    def __post_init__(self) -> None:
        if not self.reuse_lengths or min(self.reuse_lengths) < 1:
            raise ValueError(f"reuse_lengths must be at least 1 each, got {self.reuse_lengths}")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Measure what this package costs and what tying saves.

    Raises:
        ValueError: a setting is outside its range.
    """

    only: tuple[MeasurementName, ...] = get_args(MeasurementName)
    """Which measurements to run."""
    json: Path | None = None
    """Write machine, options and all numbers to this file as well, after each measurement: Ctrl-C loses one."""
    page: Path | None = None
    """Measure nothing: write the tables of --files into this page, each between its marks <!-- benchmark: NAME --> and
    <!-- end -->."""
    files: tuple[Path, ...] = ()
    """Files of --json, for --page."""
    threads: int | None = None
    """Threads of torch; its own choice by default."""
    workload: BenchmarkSizes = field(default_factory=BenchmarkSizes)
    memory: MemorySizes = field(default_factory=MemorySizes)
    """What memory is accounted for."""
    many: ManyNetworks = field(default_factory=ManyNetworks)
    """Networks that are trained at once."""
    table: TableSteps = field(default_factory=TableSteps)
    """Steps on the tying table."""
    growth: Growth = field(default_factory=Growth)
    """How the work grows."""
    reuse: Reuse = field(default_factory=Reuse)
    """Attention reused against plain tying."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if (self.page is None) != (not self.files):
            raise ValueError(f"page and files must be given together, got {self.page} and {len(self.files)} files")
        if self.json is not None and not self.json.resolve().parent.is_dir():
            raise ValueError(f"json must be a file in a folder that exists, got {str(self.json)!r}")


def neighbours(n_layer: int, n_groups: int) -> IntVector:
    """Return the tying into groups of neighbours, as equal in size as can be, shape (L,)."""
    starts = [n_layer * group // n_groups for group in range(n_groups)]
    return np.array([max(s for s in starts if s <= i) for i in range(n_layer)])
