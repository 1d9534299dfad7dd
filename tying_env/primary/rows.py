"""Which numbers of a weight are a row, the inputs of one output: they share a scale, and are pruned together.

With that goes what a weight takes in so many bits, by its shape.
"""

import math
from typing import Literal, get_args

from torch import Tensor, nn

# Which numbers of a tensor are a row, the inputs of one output: of `nn.Linear` and convolutions all behind the first
# axis, of transformers' Conv1D a column, of stacked matrices (a layer's experts) the last axis.
Layout = Literal["first", "column", "last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
# Bytes of a row's scale, and of a number of a vector.
_SCALE, _NUMBER = 2, 2


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


def bytes_in(bits: int, module: nn.Module, weight: Tensor) -> int:
    """Return what a module's weight takes before it is coded: a matrix in so many bits with a scale of 2 bytes a row.

    A vector takes 2 bytes a number.
    """
    shape = tuple(weight.shape)
    if len(shape) < 2:
        return _NUMBER * weight.numel()
    rows, columns = rows_shape(shape, layout_of(module, weight))
    return math.ceil(rows * columns * bits / 8) + _SCALE * rows


def network_bytes_in(bits: int, model: nn.Module) -> int:
    """Return what a network's weights take before they are coded, those that layers share once; see `bytes_in`."""
    found = {id(weight): (module, weight) for module in model.modules() for weight in module.parameters(recurse=False)}
    return sum(bytes_in(bits, module, weight) for module, weight in found.values())
