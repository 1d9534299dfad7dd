"""The folder of an exported network, in which every weight is stored once.

tied.safetensors    each weight under the name of the layer that owns it, and the model's buffers
tying.json          which layers share: where the blocks are, and for each the layer that owns its weights
config.json         transformers' configuration of the model; a network of the user's own has none
training.json       how it was trained: see tying_env.runs.exported
README.md           the model card

The weights have a name of their own: `from_pretrained` of transformers would fill the layers that a file under its name
lacks at random.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tying_env import partition
from tying_env.export.described import described_network
from tying_env.files import to_json, write_tensors, written_whole
from tying_env.named_tensors import check_dtypes, check_tensors
from tying_env.primary.additions import add_to, additions_in
from tying_env.primary.building import cast
from tying_env.primary.models import PrimaryNetwork, with_units
from tying_env.primary.owned import constants, owned_tensors
from tying_env.primary.reuse import add_reuse, reuse_as, reuses
from tying_env.runs.exported import TYING
from tying_env.seeding import torch_randomness_from, torch_stream
from tying_env.tied_blocks import TiedBlocks

WEIGHTS, CONFIG, CARD = "tied.safetensors", "config.json", "README.md"
CONSTANTS = "constants.safetensors"  # of a network of the user's own, what it computes with and its state does not hold
FORMAT = "tied model 1"
# Of a network whose layers reuse attention; and of one that settings have added to: a reader of an earlier format would
# compute something else.
FORMAT_REUSED, FORMAT_ADDED = "tied model 2", "tied model 3"


def write_tied(folder: Path, network: PrimaryNetwork, tied: TiedBlocks, tying: list[int]) -> None:
    """Write weights, tying and configuration into an existing folder.

    Raises:
        TypeError, ValueError: `load_tied` could not make the model of them again.
        OSError: a file cannot be written.
    """
    own = not is_transformers(network.model)
    if not own:
        _check_class(network.model)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in owned_tensors(network, tied).items()}
    with written_whole(folder / WEIGHTS) as unfinished:
        write_tensors(unfinished, tensors, {"format": "pt"})
    added = additions_in(network.model)
    about = {
        "format": FORMAT_ADDED if added else FORMAT_REUSED if reuses(network) else FORMAT,
        **({"additions": added, "attention": "reused" if reuses(network) else "own"} if added else {}),
        **({"own_network": type(network.model).__name__} if own else {}),
        "blocks": list(network.blocks_paths),
        "units": dict(network.own_units) or network.divided,
        "sources": tied.sources(),
        "tying": tying,
        "tied_parameters": tied.only,
    }
    _write(folder / TYING, to_json(about, indent=2) + "\n")
    if own:
        return
    _write(folder / CONFIG, model_config(network.model).to_json_string(use_diff=False))
    try:
        _open(folder, torch.device("meta"))
    except ValueError as error:
        raise ValueError(f"load_tied could not make this model again; export it with dense=True: {error}") from error


def write_constants(folder: Path, model: nn.Module) -> None:
    """Write the constants of a network of the user's own, if it has any, into an existing folder."""
    if held := constants(model):
        with written_whole(folder / CONSTANTS) as unfinished:
            write_tensors(unfinished, {name: tensor.cpu().clone() for name, tensor in held.items()})


def fill_constants(folder: Path, model: nn.Module) -> None:
    """Give a network of the user's own the constants in a folder, if there are any.

    Raises:
        ValueError: they are not those that it has; the message names one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / CONSTANTS).is_file():
        return
    try:
        tensors = load_file(folder / CONSTANTS)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder / CONSTANTS} is damaged: {error}") from error
    held = constants(model)
    check_tensors(tensors, {name: tuple(t.shape) for name, t in held.items()}, str(folder / CONSTANTS))
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(tensors[name])


def load_tied(
    folder: str | Path,
    device: str | torch.device = "cpu",
    *,
    model: nn.Module | None = None,
    tied: bool = True,
) -> nn.Module:
    """Return the network in a folder that `export_tied` wrote, in evaluation mode.

    Tied layers share memory; each keeps its own layer index, so that `generate()` of transformers works with its cache.

    Args:
        folder: what `export_tied` wrote, not as a dense checkpoint.
        device: where the network goes.
        model: of a network of the user's own a new module of its class, which is filled and returned; of a model of
            transformers, or of this package, None: the folder describes it.
        tied: False gives every layer memory of its own, as adapters need that are to be merged into their layers. One
            that reuses another's attention still does.

    Raises:
        FileNotFoundError: the folder lacks a file.
        TypeError: `model` is missing, or not wanted.
        ValueError: a file is damaged, or they do not fit each other or `model`; the message says which, and names a
            tensor that is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    if model is None and not (folder / CONFIG).is_file():
        model = described_network(folder)
    network, blocks = open_tied(folder, model)
    if not tied:
        blocks.change(np.arange(blocks.n_units))
    network.model.to(device).eval()
    return network.model


def open_tied(folder: Path, model: nn.Module | None = None) -> tuple[PrimaryNetwork, TiedBlocks]:
    """Return the network in a folder, on the CPU, and its blocks, which share memory.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `load_tied`.
    """
    network, tied, own, tensors = _open(folder, torch.device("cpu"), model)
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    if model is not None:
        fill_constants(folder, model)
    return network, tied


def _open(
    folder: Path, place: torch.device, given: nn.Module | None = None
) -> tuple[PrimaryNetwork, TiedBlocks, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return a network, tied as the folder says, its blocks, its tensors, and those of the file, which fit them.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `load_tied`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (WEIGHTS, TYING):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} is not a folder of export_tied: it has no {file}")
    about = _read_json(folder / TYING)
    attention = {FORMAT: "own", FORMAT_REUSED: "reused", FORMAT_ADDED: about.get("attention")}.get(
        str(about.get("format"))
    )
    if attention not in ("own", "reused"):
        expected = f"{FORMAT!r}, {FORMAT_REUSED!r} or {FORMAT_ADDED!r}"
        raise ValueError(f"{folder / TYING} is of the format {about.get('format')!r}, expected {expected}")
    name = about.get("own_network")
    if name is None and not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is not a folder of export_tied: it has no {CONFIG}")
    if name is not None and given is None:
        raise TypeError(
            f"{folder} is of a network of the user's own, a {name}: give load_tied a new one, "
            f"load_tied(folder, model={name}(...))"
        )
    if name is None and given is not None:
        raise TypeError(f"{folder} is of a model of transformers, which its {CONFIG} describes: leave model= out")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged: {error}") from error
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}  # buffers may be whole numbers
    if len(dtypes) != 1 and given is None:
        raise ValueError(f"{folder / WEIGHTS} must hold numbers of one type, got {sorted(map(str, dtypes))}")
    if given is not None:
        model = given.to(device=place)
        if len(dtypes) == 1:
            model.to(dtype=dtypes.pop())
    else:
        added = about.get("additions", {}) if about["format"] == FORMAT_ADDED else {}
        with place:
            model = cast(_new_model(folder / CONFIG, added), dtypes.pop())
    try:
        network = with_units(model, tuple(map(str, about["blocks"])), about.get("units", "block"))
        sources = partition.validate_action(about["sources"], len(network.units))
        if not partition.is_tying(sources):
            raise ValueError(f"its sources are not in canonical form: {sources.tolist()}")
        only = about.get("tied_parameters", "all")
        kinds = network.kinds("within-kind", only).lowest
        tied = TiedBlocks(network.units, sources, kinds=kinds, only=only)
        if attention == "reused":
            add_reuse(network)
            reuse_as(network, sources.tolist())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / TYING} does not fit the model, a {type(model).__name__}: {error}") from error
    own = owned_tensors(network, tied)
    check_tensors(tensors, {name: tuple(t.shape) for name, t in own.items()}, str(folder / WEIGHTS))
    check_dtypes(tensors, {name: t.dtype for name, t in own.items()}, str(folder / WEIGHTS))
    return network, tied, own, tensors


def _check_class(model: nn.Module) -> None:
    """Check that the class of a model can be found again by its name.

    Raises:
        TypeError: it is no class of transformers.
    """
    import transformers

    if getattr(transformers, type(model).__name__, None) is not type(model):
        raise TypeError(
            f"{type(model).__name__} of {type(model).__module__} is no class of transformers: load_tied could not find "
            "it again; export it with dense=True, and open that with its own from_pretrained"
        )


def model_config(model: Any) -> Any:
    """Return a copy of a transformers model's configuration that its class can be found by, with its cache on."""
    config: Any = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    if hasattr(config, "use_cache"):
        config.use_cache = True
    return config


def is_transformers(model: nn.Module) -> bool:
    """Tell whether this is a model of transformers."""
    from transformers import PreTrainedModel

    return isinstance(model, PreTrainedModel)


def model_class(path: Path) -> Any:
    """Return the class of transformers that a config.json names.

    Raises:
        ValueError: it names none.
    """
    import transformers

    name = (_read_json(path).get("architectures") or [None])[0]
    found: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(f"{path} must name a model of transformers under 'architectures', got {name!r}")
    return found


def _new_model(path: Path, added: dict[str, Any]) -> Any:
    """Return a new model as config.json describes it, with what was added to it."""
    made = model_class(path)
    try:
        config = made.config_class.from_dict(_read_json(path))
        with torch_randomness_from(torch_stream(0, "weights")):
            model = made(config)
            add_to(model, added)
            return model
    except Exception as error:  # transformers' checks of a configuration have classes of their own
        raise ValueError(f"{path} does not describe a {made.__name__}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return value


def _write(path: Path, text: str) -> None:
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
