"""A run read back, ready for evaluation and generation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.data import Tokenizer, load_tokenizer
from tying_env.runs.network_file import SavedNetwork, load_network
from tying_env.runs.run_directory import BEST, FINAL, RunDirectory, Which


@dataclass(frozen=True)
class LoadedRun:
    """What `load_run` gives back.

    Attributes:
        path: the run directory.
        saved: the network with its tied blocks.
        tokenizer: of a network that reads text; None for one that sees images or is the user's own.
    """

    path: Path
    saved: SavedNetwork
    tokenizer: Tokenizer | None

    @property
    def model(self) -> nn.Module:
        """The network, in evaluation mode; of transformers, unless it was the user's own. Tied layers share memory."""
        return self.saved.network.model

    @property
    def tying(self) -> partition.IntVector:
        """The tying, shape (L,)."""
        return partition.canonicalise(self.saved.tying)

    @property
    def config(self) -> EnvConfig:
        """The settings of the environment in which it was trained."""
        return self.saved.config


def load_run(path: str | Path, which: Which = "best", device: str | torch.device = "cpu") -> LoadedRun:
    """Read back the network of a run.

    Args:
        path: the run directory.
        which: the network with the best validation perplexity, or the one at the end. A run that never validated has
            no best one: its final one is taken.
        device: where the network goes.

    Raises:
        FileNotFoundError: there is no run at this path, or it has no network yet.
        ValueError: the network file is damaged, or `which` is neither.
    """
    if which not in ("best", "final"):
        raise ValueError(f"which must be 'best' or 'final', got {which!r}")
    directory = RunDirectory.open(Path(path))
    name = BEST if which == "best" and (directory.path / BEST).exists() else FINAL
    if not (directory.path / name).exists():
        raise FileNotFoundError(f"{directory.path} has no network yet: neither {BEST} nor {FINAL}")
    saved = load_network(directory.path / name, device)
    saved.network.model.eval()
    reads_text = saved.config.model in ("gpt2", "bert")
    return LoadedRun(directory.path, saved, load_tokenizer(saved.config.tokenizer) if reads_text else None)
