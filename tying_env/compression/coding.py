"""Tensors as bytes, entropy-coded.

Brotli at its highest quality: on trained networks of 50,000 to 160,000 weights its streams were 1 to 8 % smaller than
those of zstandard (level 22) and of LZMA, in 8, 6 and 4 bits alike, and about as large as the entropy of the codes: it
finds by itself where one matrix ends and another begins. It takes some 3 seconds a megabyte.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tying_env.compression.rounding import Bits, Rounded, restored, rounded
from tying_env.compression.units import Unit
from tying_env.primary.rows import Layout, as_rows, from_rows, rows_shape

Shape = tuple[int, ...]

# What tensors can be of in a file.
DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


def squeeze(plain: bytes) -> bytes:
    """Return bytes entropy-coded.

    Raises:
        ImportError: Brotli is not installed.
    """
    return bytes(_brotli().compress(plain, quality=11, lgwin=24))


def expand(coded: bytes, length: int) -> bytes:
    """Return the bytes that `squeeze` was given; never does more than their length come into memory.

    Args:
        coded: what it returned.
        length: of the bytes.

    Raises:
        ValueError: they are not of this length, or damaged.
        ImportError: Brotli is not installed.
    """
    brotli = _brotli()
    decoder = brotli.Decompressor()
    try:
        plain = bytes(decoder.process(coded, output_buffer_limit=length + 1))
    except brotli.error as error:
        raise ValueError(f"its coded bytes cannot be read: {error}") from error
    if len(plain) != length or not decoder.is_finished():
        raise ValueError(f"its coded bytes are not of {length:,} bytes, as it says")
    return plain


def code_unit(unit: Unit, bits: Bits) -> bytes:
    """Return the matrices of a unit rounded and coded: all codes, then the scales of all rows."""
    matrices = [rounded(as_rows(matrix.weight, matrix.layout).cpu(), bits) for matrix in unit.matrices]
    codes = b"".join(_bytes(matrix.codes) for matrix in matrices)
    return squeeze(codes + _planes(_bytes(torch.cat([matrix.scales for matrix in matrices])), 2))


def decode_unit(coded: bytes, matrices: Sequence[tuple[Shape, Layout]]) -> list[Tensor]:
    """Return the matrices that `code_unit` coded, float32, in their order.

    Args:
        coded: what it returned.
        matrices: shape and layout of each.

    Raises:
        ValueError: the bytes are damaged, or of other matrices.
    """
    sizes = [rows_shape(shape, layout) for shape, layout in matrices]
    n_codes, n_rows = sum(rows * columns for rows, columns in sizes), sum(rows for rows, _ in sizes)
    plain = expand(coded, n_codes + 2 * n_rows)
    codes = _tensor(plain[:n_codes], torch.int8).split([rows * columns for rows, columns in sizes])
    scales = _tensor(_joined(plain[n_codes:], 2), torch.bfloat16).split([rows for rows, _ in sizes])
    return [
        from_rows(restored(Rounded(own.view(size), scale)), shape, layout)
        for own, scale, size, (shape, layout) in zip(codes, scales, sizes, matrices, strict=True)
    ]


def as_stored(vector: Tensor) -> Tensor:
    """Return a parameter that is no matrix as it is stored: in 16 bits, unless it is too large for them."""
    if vector.dtype not in (torch.float32, torch.float64):
        return vector
    half = vector.half()
    return half if bool(half.isfinite().all()) else vector


def code_plain(tensors: Sequence[Tensor]) -> bytes:
    """Return tensors coded bit for bit."""
    return squeeze(b"".join(_planes(_bytes(tensor), tensor.element_size()) for tensor in tensors))


def decode_plain(coded: bytes, tensors: Sequence[tuple[Shape, torch.dtype]]) -> list[Tensor]:
    """Return the tensors that `code_plain` coded.

    Args:
        coded: what it returned.
        tensors: shape and type of each.

    Raises:
        ValueError: the bytes are damaged, or of other tensors.
    """
    sizes = [int(np.prod(shape, dtype=object)) * dtype.itemsize for shape, dtype in tensors]
    plain, found, start = expand(coded, sum(sizes)), [], 0
    for size, (shape, dtype) in zip(sizes, tensors, strict=True):
        found.append(_tensor(_joined(plain[start : start + size], dtype.itemsize), dtype).view(shape))
        start += size
    return found


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _tensor(plain: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(plain), dtype=dtype) if plain else torch.empty(0, dtype=dtype)


def _planes(plain: bytes, width: int) -> bytes:
    """Return numbers of `width` bytes with all first bytes before all second ones: signs and exponents code well."""
    return np.frombuffer(plain, np.uint8).reshape(-1, width).T.tobytes()


def _joined(planes: bytes, width: int) -> bytes:
    return np.frombuffer(planes, np.uint8).reshape(width, -1).T.tobytes()


def _brotli() -> Any:
    try:
        import brotli
    except ImportError as error:
        raise ImportError("packed networks need the package brotli: pip install 'tying-env[pack]'") from error
    return brotli
