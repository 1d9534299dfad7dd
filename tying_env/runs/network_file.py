"""A tied network in one safetensors file: every weight and buffer once, and the tying beside them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tying_env import partition
from tying_env.config import EnvConfig, with_later_settings
from tying_env.config.network import is_own
from tying_env.files import to_json, write_tensors, written_whole
from tying_env.named_tensors import check_dtypes, check_tensors
from tying_env.plugins import named_again
from tying_env.primary.building import build_skeleton, fill
from tying_env.primary.models import PrimaryNetwork, Sizes
from tying_env.primary.own import own_network
from tying_env.primary.owned import check_owned, owned_tensors
from tying_env.primary.reuse import reuse_as
from tying_env.primary.trainer import Trainer
from tying_env.primary.workloads import Workload
from tying_env.replication import Tied
from tying_env.seeding import check_seed, torch_stream
from tying_env.tied_blocks import TiedBlocks

_KEY, _FORMAT = "tying_env", "network 4"


class SavedNetwork(NamedTuple):
    """A network read back from its file.

    Attributes:
        network: the model, with the weights of the file.
        tied: its blocks; layers that computed on one storage do so again.
        tying: the tying as it was reported; at the frozen start, for instance, nothing was tied yet.
        config: the settings of the environment it was trained in.
        sizes: what the network knows of its data.
    """

    network: PrimaryNetwork
    tied: TiedBlocks
    tying: list[int]
    config: EnvConfig
    sizes: Sizes


def save_network(path: Path, trainer: Trainer, config: EnvConfig, sizes: Sizes) -> None:
    """Write a network: unique tensors under the names of their owners; tying and settings in the file's metadata.

    Raises:
        OSError: the file cannot be written; an earlier one is left whole.
    """
    about = {
        "format": _FORMAT,
        "tying": trainer.tied.tying,
        "sources": trainer.tied.sources(),
        "sizes": dict(sizes),
        "seed": trainer.seed,
        "config": dataclasses.asdict(config),
    }
    tensors = {name: tensor.contiguous() for name, tensor in trainer.named_tensors().items()}
    about["sha256"] = _seal(about, tensors)
    with written_whole(path) as unfinished:
        # One entry: safetensors writes several in random order, and equal networks are to be equal files.
        write_tensors(unfinished, tensors, {_KEY: to_json(about)})


def load_network(
    path: Path, device: str | torch.device = "cpu", workload: Workload | None = None, model: str | None = None
) -> SavedNetwork:
    """Read a network that `save_network` wrote; tied layers share memory.

    Args:
        path: the file.
        device: where the network goes.
        workload: builds the network, where it is the user's own, given as an object; others are built from the
            settings in the file.
        model: the import string of a network that code of the user's own makes. The file has it as well, but a file
            never makes code run.

    What the file says of itself is held against the tensors it has before any memory is taken for a network, and every
    weight is held once at all times.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a network file, is damaged, or its parts do not fit each other; the message says what.
            Or `model` is missing, or other code than the network was made by.
        tying_env.plugins.ForeignCodeError: the code that `model` names raised.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no network file {path}")
    plain: dict[str, Any] = {"compile_blocks": False, "checkpoint_blocks": False, "frozen_weights": "held"}
    place = torch.device(device)
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            about = _read_about((file.metadata() or {}).get(_KEY))
            config = dataclasses.replace(EnvConfig(**about["config"]), **plain)
            own_code = is_own(config.model) and workload is None
            skeleton = None if workload or own_code else skeleton_of(config, about, shapes)
            tensors = {name: file.get_tensor(name) for name in shapes}
        if about.pop("sha256") != _seal(about, tensors):
            raise ValueError("it is not as it was written (its sha256 differs)")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a network file of this package, or damaged: {error}") from error
    return assembled(about, config, skeleton, tensors, str(path), place, workload, model)


def assembled(
    about: dict[str, Any],
    config: EnvConfig,
    skeleton: PrimaryNetwork | None,
    tensors: dict[str, torch.Tensor],
    where: str,
    place: torch.device,
    workload: Workload | None = None,
    model: str | None = None,
) -> SavedNetwork:
    """Return a network of what a file says of it and of its tensors; tied layers share memory.

    Args:
        about: what `check_about` let pass.
        config: its settings.
        skeleton: as `skeleton_of` gave it; None for a network of the user's own.
        tensors: every weight and buffer once, by name.
        where: the file, for messages.
        place: where the network goes.
        workload: as `load_network`.
        model: as `load_network`.

    Raises:
        ValueError, tying_env.plugins.ForeignCodeError: as `load_network`.
    """
    if model is not None and (skeleton is not None or workload is not None):
        raise ValueError(f"model= is for a network of code of the user's own; {where} has the model {config.model!r}")
    network: PrimaryNetwork
    seed = about.get("seed", 0)  # a file of an earlier version does not have it
    if skeleton is not None:
        network = skeleton
    elif workload is not None:
        network = workload.build(place, torch_stream(seed, "weights"), fresh=False)
    else:
        code = about["sizes"].get("code")
        named = named_again(code if isinstance(code, dict) else {}, model, where, "model")
        config = dataclasses.replace(config, model=named)
        network = own_network(config, seed)
        network.model.to(device=place)
        if len(network.units) != config.n_units:
            raise ValueError(f"{where} is of {config.n_units} units, {named} made {len(network.units)}")
    tied = TiedBlocks(
        network.units,
        about["sources"],
        replication=Tied(config.gradient),
        kinds=network.kinds(config.unequal_blocks, config.tied_parameters).lowest,
        recipes=network.recipes,
        only=config.tied_parameters,
    )
    if config.attention == "reused":
        reuse_as(network, about["sources"])
    own = owned_tensors(network, tied)
    check_tensors(tensors, {name: tuple(t.shape) for name, t in own.items()}, where)
    check_dtypes(tensors, {name: t.dtype for name, t in own.items()}, where)
    if skeleton is not None:
        fill(skeleton, tensors, place)
    else:
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return SavedNetwork(network, tied, about["tying"], config, about["sizes"])


def _read_about(text: str | None) -> dict[str, Any]:
    """Read the file's metadata and check it.

    Raises:
        ValueError: something is missing, or of the wrong type.
    """
    about = json.loads(text or "{}")
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise ValueError(f"its format is {found!r}, expected {_FORMAT!r}")
    if not isinstance(about.get("sha256"), str):
        raise ValueError("it has no hash of itself")
    check_about(about)
    return about


def check_about(about: dict[str, Any]) -> EnvConfig:
    """Check what a file says of its network: `config`, `tying`, `sources`, `seed`. Return the settings.

    Raises:
        ValueError: something is missing, or of the wrong type.
    """
    try:
        config = EnvConfig.from_settings(with_later_settings(about["config"]))
        tyings = [partition.validate_action(about[key], config.n_units) for key in ("tying", "sources")]
        check_seed(about.get("seed", 0))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"its description of itself does not hold: {error!r}") from error
    if not all(map(partition.is_tying, tyings)):
        raise ValueError("its tying is not in canonical form")
    return config


def skeleton_of(config: EnvConfig, about: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> PrimaryNetwork:
    """Return the network without values, after checking that the file has exactly the tensors it needs.

    Raises:
        ValueError: there is no such network, or the file has other tensors.
    """
    if len(partition.leaders(np.array(about["sources"]))) > len(shapes):
        raise ValueError(f"it has fewer tensors ({len(shapes)}) than layers with weights of their own")
    try:
        skeleton = build_skeleton(config, about["sizes"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"its description of itself does not hold: {error!r}") from error
    check_owned(skeleton, about["sources"], shapes, config.tied_parameters)
    return skeleton


def _seal(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """Return a hash of everything in the file, so that no bit of it can change unseen."""
    digest = hashlib.sha256(json.dumps(json.loads(to_json(about)), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(data)
    return digest.hexdigest()
