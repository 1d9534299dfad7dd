"""From settings to what trains: first the network's kind and its data, then for each episode a tied network."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from tying_env.config import EnvConfig
from tying_env.config.network import is_own
from tying_env.distributed import local_device, world
from tying_env.primary.checkpoint import checkpoint_settings
from tying_env.primary.custom import CustomWorkload, OwnNetwork
from tying_env.primary.models import find_device
from tying_env.primary.own_optimizer import MakeOptimizer
from tying_env.primary.relaxation import change_fitted
from tying_env.primary.trainer import Trainer
from tying_env.primary.workloads import Workload, open_workload
from tying_env.replication import find_replication
from tying_env.seeding import GlobalStreams, torch_stream
from tying_env.tied_blocks import TiedBlocks


def choose_workload(
    model: str | nn.Module | Callable[[], nn.Module], own: Mapping[str, Any], settings: dict[str, Any]
) -> tuple[Workload, torch.device]:
    """Check what the user gave, and open the data.

    Args:
        model: the name of a network, the import string of one, or a network itself.
        own: the other fields of `OwnNetwork`, None where not given.
        settings: fields of `EnvConfig`.

    Returns:
        What to train and on which device.

    Raises:
        TypeError, ValueError: a setting is unknown or wrong; the message names it.
        FileNotFoundError, ImportError, ConnectionError, OSError: the data cannot be had.
        tying_env.plugins.ForeignCodeError: the code that an import string names raised.
    """
    if not isinstance(model, str):
        workload = CustomWorkload(OwnNetwork(model, **own), settings)
        return workload, _checked_device(workload.config)
    if given := [name for name, part in own.items() if part is not None]:
        raise TypeError(
            f"{given[0]} is for a network of your own, given as a module (a function that an import string names gives "
            f"it in an OwnNetwork); the model is {model!r}"
        )
    settings = settings | {"model": model}
    if settings.get("init_from") is not None:  # sizes that are not given are the checkpoint's
        settings = checkpoint_settings(settings["init_from"], model) | settings
    config = EnvConfig.from_settings(settings)
    device = _checked_device(config)
    return open_workload(config), device


def settled(config: EnvConfig) -> EnvConfig:
    """Return the settings that an environment with these has in the end.

    Of a network that an import string names, n_layer is the number of its blocks, and validate_every 0 where it has
    nothing to validate on; other settings are settled already.

    Raises:
        As `open_workload`.
    """
    return _settled_own(config) if is_own(config.model) else config


@functools.lru_cache(maxsize=64)  # a comparison asks for each of its runs, several times
def _settled_own(config: EnvConfig) -> EnvConfig:
    return open_workload(config).config


def build_trainer(
    workload: Workload,
    device: torch.device,
    seed: int,
    tying: npt.ArrayLike | None,
    sources: npt.ArrayLike | None = None,
    make_optimizer: MakeOptimizer | None = None,
) -> Trainer:
    """Return a new network whose blocks are tied, with its optimizer and its training data.

    Args:
        workload: what to train.
        device: where.
        seed: starts every random stream.
        tying: shape (L,); None is the frozen start.
        sources: of a saved state, on whose storage each layer computes, (L,); see `TiedBlocks.sources`.
        make_optimizer: makes the optimizer; by default that of the settings.
    """
    config = workload.config
    network = workload.build(device, torch_stream(seed, "weights"), fresh=sources is None)
    fit = config.delta_init == "svd" and sources is None  # a saved state has the deltas
    tied = TiedBlocks(
        network.units,
        None if fit else tying,
        replication=find_replication(
            config.replication,
            gradient=config.gradient,
            first_tying=config.first_tying,
            later_tying=config.later_tying,
        ),
        optimizer_state=config.optimizer_state,
        group_lr=config.group_lr,
        kinds=workload.kinds.lowest,
        recipes=network.recipes,
        only=config.tied_parameters,
    )
    if fit and tying is not None:
        change_fitted(tied, tying)
    if sources is not None:
        tied.restore_sources(sources)
    return Trainer(
        network,
        tied,
        workload.task,
        workload.training_batches(seed),
        config,
        dropout=torch_stream(seed, "dropout", device),
        streams=GlobalStreams(seed),
        seed=seed,
        device=device,
        make_optimizer=make_optimizer,
    )


def _checked_device(config: EnvConfig) -> torch.device:
    device = find_device(local_device(config.device))
    if config.batch_size % (parts := world().size * config.accumulate):
        raise ValueError(
            f"batch_size must be a multiple of the number of processes times accumulate ({parts}), "
            f"got {config.batch_size}"
        )
    return device
