"""A tied network in one safetensors file: every weight once, and the tying beside them."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import torch

from tying_env.config import EnvConfig
from tying_env.files import to_json, written_whole
from tying_env.primary.models import PrimaryNetwork, build_network
from tying_env.primary.trainer import Trainer, check_tensors, owned_parameters
from tying_env.seeding import torch_stream
from tying_env.tied_blocks import TiedBlocks

_KEY, _FORMAT = "tying_env", "network 2"


class SavedNetwork(NamedTuple):
    """A network read back from its file.

    Attributes:
        network: the model, with the weights of the file.
        tied: its blocks; layers that computed on one storage do so again.
        tying: the tying as it was reported; at the frozen start, for instance, nothing was tied yet.
        config: the settings of the environment it was trained in.
    """

    network: PrimaryNetwork
    tied: TiedBlocks
    tying: list[int]
    config: EnvConfig


def save_network(path: Path, trainer: Trainer, config: EnvConfig, vocab_size: int) -> None:
    """Write a network: unique tensors under the names of their owners; tying and settings in the file's metadata.

    Raises:
        OSError: the file cannot be written; an earlier one is left whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = {
        "format": _FORMAT,
        "tying": trainer.tied.tying,
        "sources": trainer.tied.sources(),
        "vocab_size": vocab_size,
        "config": dataclasses.asdict(config),
    }
    tensors = {name: p.detach().contiguous() for name, p in trainer.named_parameters()}
    with written_whole(path) as unfinished:
        try:
            # One entry: safetensors writes several in random order, and equal networks are to be equal files.
            save_file(tensors, unfinished, metadata={_KEY: to_json(about)})
        except SafetensorError as error:  # its own class, for a full disk too
            raise OSError(f"cannot write the network file {path}: {error}") from error


def load_network(path: Path, device: str | torch.device = "cpu") -> SavedNetwork:
    """Read a network that `save_network` wrote; tied layers share memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a network file, or lacks something; the message says what.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no network file {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is not a safetensors file, or damaged: {error}") from error
    if about.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a network of this package: its format is {about.get('format')!r}")
    config = dataclasses.replace(EnvConfig(**about["config"]), compile_blocks=False)
    network = build_network(config, about["vocab_size"], torch.device(device), torch_stream(0, "weights"))
    tied = TiedBlocks(network.blocks, about["sources"], gradient=config.gradient)
    own = dict(owned_parameters(network, tied))
    check_tensors(tensors, {name: tuple(p.shape) for name, p in own.items()}, str(path))
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return SavedNetwork(network, tied, about["tying"], config)
