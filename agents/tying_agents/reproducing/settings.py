"""The settings of a reproduction. No torch here: `--help` has to be quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from tying_agents.run_config import RunConfig
from tying_env import PAPER, EnvConfig

SMALL = {"n_layer": 4, "n_embd": 32, "n_head": 2, "seq_len": 32, "batch_size": 4, "k": 3, "total_steps": 60}
CHECKPOINT_EVERY = {"paper": 50, "small": 4}  # decisions; gigabytes every few minutes at the paper's size


@dataclass(frozen=True)
class ReproduceOptions:
    """Reproduce a row of the paper's Table 1, in slices of a given time."""

    table: tyro.conf.Positional[Literal["table1"]]
    """The paper's table."""
    row: Literal["wikitext-2", "wikitext-103", "lambada", "lm1b"] = "wikitext-2"
    """Its row: the data set."""
    minutes: float = 9.0
    """Length of this slice."""
    size: Literal["paper", "small"] = "paper"
    """The paper's network, or one that is small enough to try the command out anywhere."""
    out: Path | None = None
    """Folder of the runs and their results; the default is reproductions/<table>-<row>-<size>."""
    dataset: str | None = None
    """A folder with train.txt, valid.txt, test.txt in place of the hub's data set."""
    tokenizer: Literal["gpt2", "bytes"] = "gpt2"
    """GPT-2's BPE as in the paper, or bytes."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    seed: int = 0
    """Seed of all three runs."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise ValueError(f"minutes must be a finite number above 0, got {self.minutes!r}")

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.out or Path("reproductions") / f"{self.table}-{self.row}-{self.size}"

    def run_config(self, agent: Any) -> RunConfig:
        """Return the settings of one of the runs."""
        sizes = PAPER | {"dataset": self.dataset or self.row, "tokenizer": self.tokenizer, "device": self.device}
        if self.size == "small":
            sizes |= SMALL | {"validate_every": 15, "validation_windows": 32}
        env = EnvConfig(**sizes, autocast=True, prefetch=True)
        # A checkpoint of the paper's network is gigabytes: one is enough.
        kept: Any = {"checkpoint_every": CHECKPOINT_EVERY[self.size], "keep_checkpoints": 1}
        return RunConfig(agent, seed=self.seed, run_dir=self.folder / agent, env=env, test_windows=0, **kept)
