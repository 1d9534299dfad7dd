"""An exported network read back with what it was trained on, ready for evaluation and generation."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tying_env.config.network import CUSTOM, is_own
from tying_env.export.card import MODEL
from tying_env.export.described import described_network, described_settings
from tying_env.export.tied_folder import CONFIG, fill_constants, model_class, open_tied
from tying_env.plugins import named_again
from tying_env.primary.checkpoint import without_bars
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.own import own_network
from tying_env.runs import LoadedRun, SavedNetwork, tokenizer_of
from tying_env.runs.exported import read_training
from tying_env.tied_blocks import TiedBlocks


def load_export(folder: str | Path, device: str | torch.device = "cpu", model: str | None = None) -> LoadedRun:
    """Read back an exported network, tied or dense, as `load_run` reads that of a run.

    Args:
        folder: what `export_tied` wrote.
        device: where the network goes.
        model: the import string of a network that code of the user's own makes: a file never makes code run.

    Raises:
        FileNotFoundError: the folder lacks a file.
        TypeError: the network was given as an object, not by an import string: `load_tied` takes a new one.
        ValueError: a file is damaged or they do not fit each other; or as `load_network`.
        tying_env.plugins.ForeignCodeError: the code that `model` names raised.
    """
    folder = Path(folder)
    about = read_training(folder)
    sizes = about["sizes"]
    config = described_settings(folder, about)
    own: nn.Module | None = None
    if is_own(config.model):
        config = dataclasses.replace(config, model=named_again(sizes.get("code") or {}, model, str(folder), "model"))
        network = own_network(config)
        own = None if (folder / CONFIG).is_file() else network.model
    elif config.model == CUSTOM:
        raise TypeError(
            f"{folder} is of a network that was given as an object, with its data: load_tied opens it, given a new one"
        )
    elif not (folder / CONFIG).is_file():
        own = described_network(folder)
    network, tied = _dense(folder, about["blocks"], own) if about["dense"] else open_tied(folder, own)
    network.model.to(device).eval()
    saved = SavedNetwork(network, tied, about["tying"], config, sizes)
    return LoadedRun(folder, saved, tokenizer_of(folder, saved))


def _dense(folder: Path, blocks: list[str], own: nn.Module | None) -> tuple[PrimaryNetwork, TiedBlocks]:
    """Return the network of a plain checkpoint."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        if own is None:
            with without_bars():
                opened: Any = model_class(folder / CONFIG).from_pretrained(folder)
        else:
            load_model(own, folder / MODEL)
            fill_constants(folder, own)
            opened = own
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder / MODEL} is damaged or does not fit: {error}") from error
    network = PrimaryNetwork(opened, tuple(blocks))
    return network, TiedBlocks(network.blocks, np.arange(len(network.blocks)))
