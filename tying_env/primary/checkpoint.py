"""Starts a primary network from trained weights: a checkpoint of transformers in a local folder.

What a checkpoint is, its config.json says: torch and transformers are imported only where weights are read, since a
command line's defaults depend on the former.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tying_env.config import EnvConfig
from tying_env.config.network import CAUSAL, DECODER
from tying_env.primary.decoders import architecture_settings, read_architecture
from tying_env.primary.llama import computation, explicit

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tying_env.primary.models import PrimaryNetwork

TOKENIZER = "tokenizer.json"

# What our settings are called in transformers' configurations, by the type of model.
_SETTINGS: dict[str, dict[str, str]] = {
    "gpt2": {"n_layer": "n_layer", "n_embd": "n_embd", "n_head": "n_head"},
    "llama": {
        "n_layer": "num_hidden_layers",
        "n_embd": "hidden_size",
        "n_head": "num_attention_heads",
        "n_kv_head": "num_key_value_heads",
    },
    "bert": {"n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_head": "num_attention_heads"},
    "vit": {
        "n_layer": "num_hidden_layers",
        "n_embd": "hidden_size",
        "n_head": "num_attention_heads",
        "patch_size": "patch_size",
    },
}
# A table of positions may be cut to the length that is trained on.
_POSITIONS = ("wpe.weight", "position_embeddings.weight")
# What the networks that we build compute, where a configuration can say otherwise: the same numbers, other functions.
# "gelu_new" and "gelu_pytorch_tanh" are one function.
_COMPUTATION: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_pytorch_tanh", "gelu_new"),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    "bert": {
        "hidden_act": ("gelu",),
        "layer_norm_eps": (1e-12,),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    "vit": {"hidden_act": ("gelu",), "layer_norm_eps": (1e-12,), "qkv_bias": (True,)},
}
_log = logging.getLogger("tying_env")


def checkpoint_settings(path: str | Path, model: str | None = None) -> dict[str, Any]:
    """Return the settings of `EnvConfig` that a checkpoint decides: its model and sizes, a decoder's tokenizer as well.

    Args:
        path: the folder.
        model: the network that was asked for. A GPT-2, BERT or ViT is started as one unless this is "causal-lm"; a
            LLaMA, whose sizes and tokens are often its own, as a "causal-lm" unless this is "llama".

    Raises:
        FileNotFoundError: the folder is not there or has no config.json.
        ValueError: it is neither of a GPT-2, BERT or ViT nor of a decoder; or of one that computes otherwise than the
            network it would start.
    """
    folder = Path(path).expanduser()
    stored = _read_config(folder)
    kind = stored["model_type"]
    if model == DECODER or kind not in _SETTINGS or (kind == "llama" and model != "llama"):
        where = f"{folder / 'config.json'}"
        sizes = architecture_settings(read_architecture(stored, where), where)
        return {"model": DECODER, **sizes, "tokenizer": "checkpoint"}
    if kind == "llama":
        stored = explicit(stored)
    for name, ours in (_COMPUTATION | {"llama": computation(stored)})[kind].items():
        if (value := stored.get(name, ours[0])) not in ours:
            hint = f"; the model {DECODER!r} computes as its checkpoint says" if kind in CAUSAL else ""
            raise ValueError(
                f"the checkpoint {path} was trained with {name}={value!r}, the network it would start computes with "
                f"{' or '.join(map(repr, ours))}: its weights would mean something else{hint}"
            )
    missing = [name for name in _SETTINGS[kind].values() if type(stored.get(name)) is not int]
    if missing:
        raise ValueError(f"{path}/config.json must have a whole number under {missing[0]!r}")
    return {"model": kind, **{ours: stored[theirs] for ours, theirs in _SETTINGS[kind].items()}}


def check_checkpoint(config: EnvConfig) -> Path:
    """Check that the settings are those of the checkpoint `config.init_from`, and return its folder.

    Raises:
        FileNotFoundError: the checkpoint is not there.
        ValueError: the settings are others; the message names one.
    """
    assert config.init_from is not None
    path = Path(config.init_from).expanduser()
    for name, value in checkpoint_settings(path, config.model).items():
        here = config.key_value_heads if name == "n_kv_head" else getattr(config, name)
        if name != "tokenizer" and here != value:  # a decoder may read other tokens than its own
            raise ValueError(f"the checkpoint {path} has {name}={value!r}, the settings {here!r}")
    return path


def checkpoint_architecture(config: EnvConfig) -> dict[str, Any]:
    """Return the architecture of the decoder that `config.init_from` holds; see `tying_env.primary.decoders`.

    Raises:
        FileNotFoundError, ValueError: as `check_checkpoint`.
    """
    path = check_checkpoint(config)
    return read_architecture(_read_config(path), str(path / "config.json"))


def load_checkpoint(network: PrimaryNetwork, config: EnvConfig) -> None:
    """Copy the weights of the checkpoint `config.init_from` into a network.

    All blocks must fit. What lies outside of them and does not fit, such as embeddings for another vocabulary or a head
    for other classes, stays as it is, which is logged; of a longer table of positions the first are taken.

    Raises:
        FileNotFoundError: the checkpoint is not there.
        ValueError: it is damaged or does not fit; the message says where. Nothing is changed then.
    """
    import torch

    path = check_checkpoint(config)
    model: Any = network.model
    # A decoder is read as it was made: its own config.json could ask for code from elsewhere.
    given = {"config": copy.deepcopy(model.config)} if config.model == DECODER else {}
    try:
        # Safetensors only: other checkpoints are pickles, which may run any code.
        with _quiet():
            source, report = type(model).from_pretrained(
                path,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **given,
            )
    except Exception as error:  # transformers, safetensors and its checks have classes of their own
        raise ValueError(f"the checkpoint {path} cannot be read: {error}") from error
    theirs = dict(source.named_parameters())
    inside = tuple(f"{name}." for name in network.block_names)
    # Tensors that the file lacks, or has in another shape than its own config.json says, are random in `source`.
    absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if lacking := sorted(name for name in absent if name.startswith(inside)):
        raise ValueError(f"the checkpoint {path} lacks weights of its blocks: {', '.join(lacking)}")
    taken: list[tuple[nn.Parameter, torch.Tensor]] = []
    random: list[str] = []
    for full_name, parameter in network.model.named_parameters():
        name = full_name.replace(".base_layer.", ".")  # beside a low-rank delta
        if "lora_" in name:
            continue
        found = theirs[name].detach() if name in theirs and name not in absent else None
        if found is not None and name.endswith(_POSITIONS) and len(found) > len(parameter):
            found = found[: len(parameter)]
        if found is not None and found.shape == parameter.shape:
            taken.append((parameter, found))
        elif name.startswith(inside):
            there = "missing" if found is None else tuple(found.shape)
            raise ValueError(
                f"the checkpoint {path} does not fit: {name} is {there}, expected {tuple(parameter.shape)}"
            )
        else:
            there = "missing" if found is None else f"{tuple(found.shape)} there"
            random.append(f"{name} ({there}, {tuple(parameter.shape)} here)")
    with torch.no_grad():
        for parameter, values in taken:
            parameter.copy_(values)
    if random:
        _log.info("Started at random: %s", ", ".join(random))


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' own progress bars away: they would stand among what a command prints."""
    from transformers.utils import logging as reports

    bars = reports.is_progress_bar_enabled()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            reports.enable_progress_bar()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own reports and bars away: what matters of them is checked and said here."""
    from transformers.utils import logging as reports

    level = reports.get_verbosity()
    reports.set_verbosity(reports.CRITICAL)
    try:
        with without_bars():
            yield
    finally:
        reports.set_verbosity(level)


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is not a checkpoint of transformers: it has no config.json")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    kind = stored.get("model_type") if isinstance(stored, dict) else stored
    if not isinstance(kind, str):
        raise ValueError(f"{file} must name the type of the network under 'model_type', got {kind!r}")
    assert isinstance(stored, dict)
    return stored
