"""Rounds matrices to few levels, each row with a scale of its own.

Plain rounding to the nearest level, without a library: torchao 0.18 leaves GPT-2's `Conv1D` as it is, gives layers that
share a weight one each, and codes nothing; what it would do here is one line. Scales below a row's maximum, chosen for
the least squared error, made larger files that predict no better.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Bits = Literal[8, 6, 4]
BITS: tuple[Bits, ...] = get_args(Bits)


class Rounded(NamedTuple):
    """A matrix in few levels: `codes * scales[:, None]`."""

    codes: Tensor  # (R, C), int8, from -(2^(bits-1) - 1) to 2^(bits-1) - 1
    scales: Tensor  # (R,), bfloat16


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
