"""Opens what `pack_network` wrote."""

from pathlib import Path

import torch
from torch import nn

from tying_env.compression.packed_file import read_file
from tying_env.config.network import is_own
from tying_env.primary.owned import constants
from tying_env.runs.network_file import SavedNetwork, assembled, check_about, skeleton_of
from tying_env.runs.saved_run import LoadedRun, tokenizer_of


def load_packed(path: str | Path, device: str | torch.device = "cpu", model: str | None = None) -> nn.Module:
    """Return the network in a file that `pack_network` wrote, in evaluation mode: an ordinary module.

    Its weights are of the type they were trained in, and tied layers share memory.

    Args:
        path: the file.
        device: where the network goes.
        model: the import string of a network that code of the user's own makes: a file never makes code run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no packed network, is damaged, cut short or of another version; or `model` is missing or other
            code than the network was made by.
        ImportError: Brotli is not installed.
        tying_env.plugins.ForeignCodeError: the code that `model` names raised.
    """
    network = opened(Path(path), torch.device(device), model).network
    return network.model.to(device).eval()


def open_packed(path: str | Path, device: str | torch.device = "cpu", model: str | None = None) -> LoadedRun:
    """Return the network in a file that `pack_network` wrote, with what it takes to measure it or let it write.

    Args:
        path: the file.
        device: where the network goes.
        model: as `load_packed`.

    Raises:
        As `load_packed`; FileNotFoundError: also where it reads a checkpoint's own tokenizer, which is not in the file,
            and is not beside it either.
    """
    path = Path(path)
    saved = opened(path, torch.device(device), model)
    saved.network.model.to(device).eval()
    return LoadedRun(path, saved, tokenizer_of(path.parent, saved))


def opened(path: Path, place: torch.device, model: str | None) -> SavedNetwork:
    """Return the network in a file; raises as `load_packed`."""
    contents = read_file(path)
    try:
        config = check_about(contents.about)
        skeleton = None if is_own(config.model) else skeleton_of(config, contents.about, contents.shapes)
        tensors, kept = contents.decode()
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    saved = assembled(contents.about, config, skeleton, tensors, str(path), place, model=model)
    held = constants(saved.network.model)
    for name, value in kept.items():
        if name not in held or held[name].shape != value.shape:
            raise ValueError(
                f"{path} has the constant {name!r} of shape {tuple(value.shape)}, which is not the network's"
            )
        held[name].copy_(value)
    return saved
