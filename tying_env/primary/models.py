"""Builds primary networks from transformers' configurations."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tying_env.config import EnvConfig
from tying_env.config.network import BUILT, DECODER
from tying_env.config.tying import UnequalBlocks
from tying_env.kinds import ATTENTION, FEED_FORWARD, Kinds
from tying_env.primary.additions import add_to, additions_of
from tying_env.primary.blocks import check_blocks, find_blocks
from tying_env.primary.decoders import build_decoder
from tying_env.primary.kernels.for_transformers import ATTENTION as KERNEL
from tying_env.primary.llama import build_llama
from tying_env.primary.relaxation import add_deltas
from tying_env.primary.residual import add_scales
from tying_env.primary.reuse import add_reuse
from tying_env.primary.units import OwnUnits, bundle, check_units, sublayers
from tying_env.redrawing import Recipe
from tying_env.slots import TiedParameters, check_kinds, find_kinds

# What it takes, beside the settings, to make a network again without its data: whole numbers, `vocab_size` or
# `channels`, `height`, `width`, `classes`; of speech `features`, `classes`; of a decoder its `architecture` and
# `tokenizer`; of a network of the user's own its `code`. Ready for JSON.
Sizes = Mapping[str, Any]


@dataclass(frozen=True)
class _Unit:
    """Where a unit is.

    Attributes:
        part: what part of a block it is; "" for a whole one.
        paths: of its modules in the network.
        place: of the list that its block is in.
    """

    part: str
    paths: tuple[str, ...]
    place: str = ""


@dataclass(frozen=True)
class PrimaryNetwork:
    """A network and the units in it that can be tied.

    Attributes:
        model: the whole network.
        blocks_paths: where the lists of blocks hang in `model`, in dots; one, or an encoder's and a decoder's.
        recipes: how to draw the initial values of Parameters that are on the meta device.
        original: what `model` is a copy of, if it is one.
        divided: what of it is a unit, which a tying moves as one: every block, or each of its two sublayers.
        own_units: instead of blocks, the units of a user's own choice: of each kind the paths of their modules.
    """

    model: nn.Module
    blocks_paths: tuple[str, ...]
    recipes: Mapping[nn.Parameter, Recipe] = field(default_factory=dict)
    original: nn.Module | None = None
    divided: str = "block"
    own_units: OwnUnits = field(default_factory=dict)

    @property
    def blocks(self) -> list[nn.Module]:
        """The L blocks in the order in which they are computed."""
        return [self.model.get_submodule(name) for name in self.block_names]

    @property
    def block_names(self) -> list[str]:
        """The path of each block in `model`, L of them."""
        return [f"{path}.{name}" for path in self.blocks_paths for name in self._numbers(path)]

    @property
    def depth(self) -> int:
        """The number of blocks, or of units of a user's own choice: the setting `n_layer`."""
        return len(self.units) if self.own_units else len(self.blocks)

    @property
    def units(self) -> list[nn.Module]:
        """The L units: those of a kind one after the other, in the order in which they are computed."""
        return [bundle(self.model, unit.paths)[1] for unit in self._division()]

    @property
    def unit_names(self) -> list[str]:
        """The path in `model` that the names of each unit's Parameters go on from, L of them; "" for the model."""
        return [bundle(self.model, unit.paths)[0] for unit in self._division()]

    def kinds(self, unequal: UnequalBlocks = "refuse", only: TiedParameters = "all") -> Kinds:
        """Return the kinds of the units: by what part of a block they are.

        Args:
            unequal: `"within-kind"` tells those apart, too, that are in different lists, or are made otherwise.
            only: what of a unit is tied, and so has to be alike.
        """
        division = self._division()
        marks: list[Hashable] = [unit.part for unit in division]
        if unequal == "within-kind":
            return Kinds(find_kinds(self.units, [(unit.part, unit.place) for unit in division], only))
        names = [unit.part for unit in division if unit.part]
        return Kinds([marks.index(mark) for mark in marks], tuple(dict.fromkeys(names)))

    def _division(self) -> list[_Unit]:
        if self.own_units:
            return [_Unit(part, paths) for part, units in self.own_units.items() for paths in units]
        if self.divided == "block":
            return [_Unit("", (f"{path}.{name}",), path) for path in self.blocks_paths for name in self._numbers(path)]
        found = []
        for path in self.blocks_paths:
            parts = {name: sublayers(block) for name, block in self._list(path).named_children()}
            for part in (ATTENTION, FEED_FORWARD):
                found += [
                    _Unit(part, tuple(f"{path}.{name}.{inside}" for inside in parts[name][part]), path)
                    for name in self._numbers(path)
                ]
        return found

    def _numbers(self, path: str) -> list[str]:
        return [name for name, _ in self._list(path).named_children()]

    def _list(self, path: str) -> nn.Module:
        return self.model.get_submodule(path)


def with_units(
    model: nn.Module, blocks: tuple[str, ...], units: str | Mapping[str, Any], original: nn.Module | None = None
) -> PrimaryNetwork:
    """Return a network with its units, after checking where they are.

    Args:
        model: the network.
        blocks: where its lists of blocks are; none where the units are named.
        units: "block" or "sublayers"; or the units by their kinds, see `OwnNetwork`.
        original: what `model` is a copy of.

    Raises:
        TypeError, ValueError: there is something else at a path, or units overlap; the message names it.
    """
    if isinstance(units, str):
        check_blocks(model, blocks)
        return PrimaryNetwork(model, blocks, original=original, divided=units)
    return PrimaryNetwork(model, blocks, original=original, divided="own", own_units=check_units(model, units))


def checked_kinds(network: PrimaryNetwork, config: EnvConfig) -> Kinds:
    """Return the kinds of a network's units, after checking that those of a kind can be tied.

    Raises:
        ValueError: units of a kind differ, and the settings do not allow for that; or each is one of its own.
    """
    units, kinds = network.units, network.kinds(config.unequal_blocks, config.tied_parameters)
    if len(kinds.members) == len(units) > 1:
        at = ", ".join(map(repr, network.own_units or network.blocks_paths))
        found = f"no two blocks are alike among the {len(units)} at {at}"
        raise ValueError(f"{found}, so nothing could be tied: name another list of blocks")
    named = [f"{' + '.join(paths)} ({kind})" for kind, own in network.own_units.items() for paths in own]
    try:
        check_kinds(units, kinds.lowest, config.tied_parameters, within=network.model, names=named or None)
    except ValueError as error:
        if config.unequal_blocks == "within-kind" or "same names" not in str(error):
            raise
        raise ValueError(f"{error}; unequal_blocks='within-kind' ties each with those of its kind") from error
    return kinds


def build_model(config: EnvConfig, sizes: Sizes) -> nn.Module:
    """Return the bare model that `config` describes; its weights come from torch's global generator.

    Raises:
        ValueError: `config` describes none of the networks that can be built.
    """
    model: nn.Module
    match config.model:
        case "gpt2":
            model = _gpt2(config, sizes["vocab_size"])
        case "llama":
            model = build_llama(config, sizes["vocab_size"], KERNEL)
        case "bert":
            model = _bert(config, sizes["vocab_size"] + 1)  # the mask token
        case "vit":
            model = _vit(config, sizes)
        case "speech":
            model = _speech(config, sizes)
        case "causal-lm":
            model = build_decoder(sizes["architecture"])
        case _:
            raise ValueError(
                f"the model {config.model!r} cannot be built from settings: only {', '.join(BUILT)} and {DECODER} can"
            )
    add_to(model, additions_of(config))
    if config.delta_rank:
        add_deltas(model, PrimaryNetwork(model, find_blocks(model)).block_names, config.delta_rank)
    if config.residual_scale != "none":
        add_scales(PrimaryNetwork(model, find_blocks(model)).blocks)
    if config.attention == "reused":
        add_reuse(PrimaryNetwork(model, find_blocks(model)))
    return model


def _gpt2(config: EnvConfig, vocab_size: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    architecture = GPT2Config(
        vocab_size=vocab_size,
        n_positions=config.seq_len,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation_function="gelu_pytorch_tanh",  # the function of GPT-2's "gelu_new", fused: 8 % faster
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=KERNEL,
    )
    model: nn.Module = GPT2LMHeadModel(architecture)
    return model


def _bert(config: EnvConfig, vocab_size: int) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    architecture = BertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=config.seq_len,
        pad_token_id=None,  # nothing is padded in training, and token 0 is a word like any other
        **_encoder(config),
    )
    model: nn.Module = BertForMaskedLM(architecture)
    return model


def _vit(config: EnvConfig, sizes: Sizes) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    architecture = ViTConfig(
        image_size=(sizes["height"], sizes["width"]),
        num_channels=sizes["channels"],
        patch_size=config.patch_size,
        num_labels=sizes["classes"],
        **_encoder(config),
    )
    model: nn.Module = ViTForImageClassification(architecture)
    return model


def _speech(config: EnvConfig, sizes: Sizes) -> nn.Module:
    from transformers import BertConfig

    from tying_env.primary.speech_encoder import SpeechEncoder

    architecture = BertConfig(max_position_embeddings=config.seq_len, **_encoder(config))
    return SpeechEncoder(architecture, sizes["features"], sizes["classes"])


def _encoder(config: EnvConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "intermediate_size": 4 * config.n_embd,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "attn_implementation": KERNEL,
    }


def find_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is the GPU where there is one, else the CPU.

    Raises:
        ValueError: no such device; the message says what there is.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"device {name!r} is not there: this machine has {count} CUDA devices; use 'cpu' or 'auto'")
    return device
