"""The parts of a transformer block that can change places: attention heads, feed-forward units, channels.

Known are the blocks of GPT-2, BERT (RoBERTa), ViT (DeiT) and of LLaMA-like decoders (LLaMA, Mistral, Qwen, Gemma). A
head is its rows of the query, key and value projections with its columns of the output projection. Where several query
heads share a key-value head (grouped-query attention) the group is the part. A feed-forward unit is its row of the up
projection, and of the gate where there is one, with its column of the down projection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tying_env.primary.blocks import find_blocks
from tying_env.primary.models import PrimaryNetwork

# Where the values of some parts lie: address of the storage and offset in it, of each slab.
Place = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Slab:
    """A weight or bias, or a part of one, that is cut among the parts of a block.

    Attributes:
        values: the live values, detached: a matrix, or a vector (a bias).
        axis: along which the parts follow each other; each has equally many entries. The other axis of a matrix is that
            of the channels.
    """

    values: Tensor
    axis: int


@dataclass(frozen=True)
class Parts:
    """The parts of one kind in one block.

    Attributes:
        count: how many there are.
        slabs: what they are made of.
    """

    count: int
    slabs: tuple[Slab, ...]

    @property
    def place(self) -> "Place":
        """Where the values lie."""
        return tuple((s.values.untyped_storage().data_ptr(), int(s.values.storage_offset())) for s in self.slabs)

    def vectors(self) -> Tensor:
        """Return the weights of each part in one row, without biases, (count, weights of a part), a copy.

        Every projection is scaled to a root mean square of 1, so that all count alike: GPT-2 draws those that write to
        the residual stream much smaller than those that read it.
        """
        rows = [_scaled(_first(s)).reshape(self.count, -1) for s in self.slabs if s.values.ndim == 2]
        return torch.cat(rows, 1)

    @torch.no_grad()
    def reorder(self, order: Sequence[int]) -> None:
        """Put the parts in another order: that at `order[i]` comes to place i."""
        if sorted(order) != list(range(self.count)):
            raise ValueError(f"order must be a permutation of {self.count} parts, got {list(order)!r:.200}")
        index = torch.as_tensor(list(order))
        for slab in self.slabs:
            first = _first(slab)
            cut = first.reshape(self.count, -1, *first.shape[1:])
            first.copy_(cut[index.to(first.device)].reshape(first.shape))


@dataclass(frozen=True)
class BlockParts:
    """A block in parts.

    Attributes:
        heads: attention heads, or groups of query heads that share a key-value head.
        units: feed-forward units.
    """

    heads: Parts
    units: Parts

    def channels(self) -> Tensor:
        """Return the weights by which each channel of the residual stream is read and written, (channels, weights).

        Heads and units stand in the order that they have. Projections are scaled as by `Parts.vectors`.
        """
        slabs = (s for s in (*self.heads.slabs, *self.units.slabs) if s.values.ndim == 2)
        return torch.cat([_scaled(_first(Slab(s.values, 1 - s.axis))) for s in slabs], 1)

    @property
    def place(self) -> "Place":
        """Where the values lie: equal for layers that share them."""
        return self.heads.place + self.units.place

    def shares(self, other: "BlockParts", kind: str) -> bool:
        """Tell whether another layer has the same weights in its parts of a kind; of "channels", in any of its parts.

        Where attention and feed-forward part are tied apart, layers may share one of them.
        """
        same = {"heads": self.heads.place == other.heads.place, "units": self.units.place == other.units.place}
        return same.get(kind, any(same.values()))


def blocks_of(network: PrimaryNetwork) -> list[nn.Module]:
    """Return the blocks of a network, also where what is tied are units that its user has named.

    Raises:
        ValueError: there are none.
    """
    if network.blocks:
        return network.blocks
    try:
        paths = find_blocks(network.model)
    except ValueError as error:
        raise ValueError(
            f"its units are of its user's own choice ({', '.join(network.own_units)}), and blocks, which are what is "
            f"compared, are not found: {error}"
        ) from error
    return PrimaryNetwork(network.model, paths).blocks


def find_parts(blocks: Sequence[nn.Module]) -> list[BlockParts]:
    """Return the parts of each block; all blocks have equally many.

    Raises:
        ValueError: there is no block; a block is none of those that are known, and the message names it and what was
            looked for; or blocks differ.
    """
    if not blocks:
        raise ValueError("there is no block")
    found = [_parts_of(block) for block in blocks]
    shapes = [tuple(s.values.shape for s in (*p.heads.slabs, *p.units.slabs)) for p in found]
    counts = [(parts.heads.count, parts.units.count, shape) for parts, shape in zip(found, shapes, strict=True)]
    if odd := next((i for i, each in enumerate(counts) if each != counts[0]), None):
        raise ValueError(f"blocks must have equally many heads and units of equal sizes; blocks 0 and {odd} differ")
    return found


def _parts_of(block: nn.Module) -> BlockParts:
    known = (("attn.c_attn", _gpt2), ("attention.self.query", _bert), ("attention.q_proj", _vit))
    linears = _Linears(block)
    for name, cut in (*known, ("self_attn.q_proj", _llama)):
        if name in linears.modules:
            found = cut(linears)
            break
    else:
        looked_for = ", ".join(name for name, _ in known)
        raise _unknown(block, f"it has no {looked_for} or self_attn.q_proj")
    channels = found.channels().shape[0]
    for name, parameter in block.named_parameters():
        if name in linears.taken:
            continue
        norm_of_heads = name.endswith(("q_norm.weight", "k_norm.weight"))
        expected = linears.head_dim if norm_of_heads else channels
        if parameter.ndim != 1 or len(parameter) != expected:  # no norm that is the same for every head and unit
            raise _unknown(block, f"nothing is known of its {name}, {tuple(parameter.shape)}")
    return found


class _Linears:
    """The linear layers of a block, by name.

    Attributes:
        modules: all modules of the block.
        taken: names of the parameters of those that were asked for.
    """

    def __init__(self, block: nn.Module) -> None:
        self.modules: dict[str, Any] = dict(block.named_modules())
        self.taken: set[str] = set()

    @property
    def head_dim(self) -> int | None:
        """Dimensions of a head, where the block says."""
        return getattr(self.modules.get("self_attn"), "head_dim", None)

    def outputs(self, *names: str) -> list[Slab]:
        """Return weights and biases of layers, cut along their outputs."""
        slabs = []
        for name in names:
            weight, axis, bias = self._find(name)
            slabs += [Slab(weight, axis), *([] if bias is None else [Slab(bias, 0)])]
        return slabs

    def inputs(self, name: str) -> list[Slab]:
        """Return the weight of a layer, cut along its inputs; its bias belongs to no input."""
        weight, axis, _ = self._find(name)
        return [Slab(weight, 1 - axis)]

    def _find(self, name: str) -> tuple[Tensor, int, Tensor | None]:
        from transformers.pytorch_utils import Conv1D

        module = self.modules.get(name)
        if not isinstance(module, (nn.Linear, Conv1D)):
            what = "nothing" if module is None else f"a {type(module).__name__}"
            raise _unknown(self.modules[""], f"at {name} a linear layer was expected, there is {what}")
        if module.weight.is_meta:
            raise ValueError(f"{name} holds no values: they are drawn again whenever it computes (frozen_weights)")
        self.taken |= {f"{name}.weight", f"{name}.bias"}
        bias = None if module.bias is None else module.bias.detach()
        return module.weight.detach(), 1 if isinstance(module, Conv1D) else 0, bias


def _gpt2(linears: _Linears) -> BlockParts:
    fused = linears.outputs("attn.c_attn")  # query, key and value behind each other
    heads = [Slab(part, s.axis) for s in fused for part in s.values.chunk(3, s.axis)]
    heads += linears.inputs("attn.c_proj")
    units = [*linears.outputs("mlp.c_fc"), *linears.inputs("mlp.c_proj")]
    return _block(linears.modules["attn"].num_heads, heads, units)


def _bert(linears: _Linears) -> BlockParts:
    heads = linears.outputs("attention.self.query", "attention.self.key", "attention.self.value")
    heads += linears.inputs("attention.output.dense")
    units = [*linears.outputs("intermediate.dense"), *linears.inputs("output.dense")]
    return _block(linears.modules["attention.self"].num_attention_heads, heads, units)


def _vit(linears: _Linears) -> BlockParts:
    return _projected(linears, "attention", [*linears.outputs("mlp.fc1"), *linears.inputs("mlp.fc2")])


def _llama(linears: _Linears) -> BlockParts:
    units = [*linears.outputs("mlp.gate_proj", "mlp.up_proj"), *linears.inputs("mlp.down_proj")]
    return _projected(linears, "self_attn", units)


def _projected(linears: _Linears, attention: str, units: list[Slab]) -> BlockParts:
    heads = linears.outputs(*(f"{attention}.{name}_proj" for name in "qkv")) + linears.inputs(f"{attention}.o_proj")
    keys, head_dim = linears.modules[f"{attention}.k_proj"].out_features, linears.modules[attention].head_dim
    return _block(keys // head_dim, heads, units)


def _block(n_heads: int, heads: Sequence[Slab], units: Sequence[Slab]) -> BlockParts:
    width = units[0].values.shape[units[0].axis]
    return BlockParts(Parts(n_heads, tuple(heads)), Parts(width, tuple(units)))


def _first(slab: Slab) -> Tensor:
    """Return a view with the axis of the parts in front."""
    return slab.values.movedim(slab.axis, 0)


def _scaled(matrix: Tensor) -> Tensor:
    """Return a copy in float32 on the CPU with a root mean square of 1; zeros stay."""
    values = matrix.float().cpu()
    scale = values.square().mean().sqrt()
    return values / scale if scale > 0 else values.clone()


def _unknown(block: nn.Module, why: str) -> ValueError:
    return ValueError(
        f"the attention heads and feed-forward units of a {type(block).__name__} cannot be told apart: {why}; known "
        "are the blocks of GPT-2, BERT, ViT and LLaMA-like decoders"
    )
