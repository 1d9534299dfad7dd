"""Rounds matrices to few levels, each row with a scale of its own.

Plain rounding to the nearest level, without a library: torchao 0.18 leaves GPT-2's `Conv1D` as it is, gives layers that
share a weight one each, and codes nothing; what it would do here is one line. Scales below a row's maximum, chosen for
the least squared error, made larger files that predict no better.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

Bits = Literal[8, 6, 4]
BITS: tuple[Bits, ...] = get_args(Bits)

# Which numbers of a tensor are a row, the inputs of one output: of `nn.Linear` and convolutions all behind the first
# axis, of transformers' Conv1D a column, of stacked matrices (a layer's experts) the last axis.
Layout = Literal["first", "column", "last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Rounded(NamedTuple):
    """A matrix in few levels: `codes * scales[:, None]`."""

    codes: Tensor  # (R, C), int8, from -(2^(bits-1) - 1) to 2^(bits-1) - 1
    scales: Tensor  # (R,), bfloat16


def layout_of(module: nn.Module, weight: Tensor) -> Layout:
    """Return how the rows of a module's weight lie in it."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return "column"
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    return "first" if weight.ndim == 2 or convolution else "last"


def as_rows(weight: Tensor, layout: Layout) -> Tensor:
    """Return a weight as rows, (R, C): a view where there can be one."""
    if layout == "column":
        return weight.T
    return weight.flatten(1) if layout == "first" else weight.flatten(0, -2)


def from_rows(rows: Tensor, shape: tuple[int, ...], layout: Layout) -> Tensor:
    """Return the weight of this shape whose rows these are, contiguous: the inverse of `as_rows`."""
    return (rows.T if layout == "column" else rows.reshape(shape)).contiguous()


def rows_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, int]:
    """Return (R, C) of a weight of at least two axes."""
    total = 1
    for size in shape:
        total *= size
    rows = {"first": shape[0], "column": shape[-1], "last": total // shape[-1] if shape[-1] else 0}[layout]
    return rows, total // rows if rows else 0


def rounded(rows: Tensor, bits: Bits) -> Rounded:
    """Round each row to 2^bits - 1 levels around 0; its scale is its largest magnitude by the highest level.

    Args:
        rows: (R, C), finite.
        bits: 8, 6 or 4.
    """
    highest = 2 ** (bits - 1) - 1
    rows = rows.float()
    # The scale is rounded first, so that the codes make up for what is lost of it.
    scales = (rows.abs().amax(1) / highest).bfloat16()
    steps = torch.where(scales > 0, scales.float(), 1.0)[:, None]
    return Rounded((rows / steps).round().clamp(-highest, highest).to(torch.int8), scales)


def restored(matrix: Rounded) -> Tensor:
    """Return the rows that are meant, (R, C), float32."""
    return matrix.codes.float() * matrix.scales.float()[:, None]
