"""A run read back, ready for evaluation and generation."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.config.network import DECODER, is_own
from tying_env.data import Tokenizer, load_tokenizer
from tying_env.primary.checkpoint import TOKENIZER
from tying_env.primary.decoder_text import decoder_tokenizer
from tying_env.primary.workloads import Workload, open_workload
from tying_env.runs.network_file import SavedNetwork, load_network
from tying_env.runs.run_directory import RunDirectory, Which

# Of `sizes`, what files of earlier versions lack.
_SINCE = {"class_names", "input_mean", "input_deviation"}


@dataclass(frozen=True)
class LoadedRun:
    """What `load_run` gives back.

    Attributes:
        path: the run directory.
        saved: the network with its tied blocks.
        tokenizer: of a network that reads text; None for one that reads images, speech or the user's own data.
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

    def open_workload(self, dataset: str | None = None) -> Workload:
        """Return what measures the network, on its own data or on others; the checkpoint it started from is not needed.

        Raises:
            ValueError: the data do not suit the network.
            FileNotFoundError, ImportError, ConnectionError, OSError: they cannot be had.
        """
        config = self.config if dataset is None else dataclasses.replace(self.config, dataset=dataset)
        workload = open_workload(config, self.saved.sizes, self.tokenizer)
        mine, theirs = dict(self.saved.sizes), dict(workload.sizes)
        known = {*mine, *theirs} - (_SINCE - set(mine))
        differ = [name for name in (*mine, *theirs) if name in known and mine.get(name) != theirs.get(name)]
        if differ and not is_own(config.model):
            made, given = ({name: sizes.get(name) for name in dict.fromkeys(differ)} for sizes in (mine, theirs))
            raise ValueError(f"the network is made for data of {made}, {config.dataset!r} has {given}")
        return workload


def load_run(
    path: str | Path, which: Which = "best", device: str | torch.device = "cpu", model: str | None = None
) -> LoadedRun:
    """Read back the network of a run.

    Args:
        path: the run directory.
        which: the network with the best validation perplexity, or the one at the end. A run that never validated has
            no best one: its final one is taken.
        device: where the network goes.
        model: the import string of a network that code of the user's own makes: a file never makes code run.

    Raises:
        FileNotFoundError: there is no run at this path, or it has no network yet; or it lacks its tokenizer.
        ValueError: the network file is damaged, or `which` is neither; or as `load_network`.
        tying_env.plugins.ForeignCodeError: the code that `model` names raised.
    """
    if which not in ("best", "final"):
        raise ValueError(f"which must be 'best' or 'final', got {which!r}")
    directory = RunDirectory.open(Path(path))
    saved = load_network(directory.network_file(which), device, model=model)
    saved.network.model.eval()
    return LoadedRun(directory.path, saved, tokenizer_of(directory.path, saved))


def tokenizer_of(folder: Path, saved: SavedNetwork) -> Tokenizer | None:
    """Return the tokenizer that a network of a run directory reads; None of one that reads no text.

    A checkpoint's is the one that the run directory keeps.

    Raises:
        FileNotFoundError, ValueError: it is not there, or is another one.
    """
    config, sizes = saved.config, saved.sizes
    if "vocab_size" not in sizes:
        return None
    if config.model != DECODER:
        return load_tokenizer(config.tokenizer)
    tokenizer = decoder_tokenizer(config.tokenizer, folder / TOKENIZER, sizes["architecture"])
    if tokenizer.identity != sizes.get("tokenizer"):
        raise ValueError(f"{folder / TOKENIZER} is not the tokenizer that the network was trained with")
    return tokenizer
