"""The file of a packed network.

    8 bytes    "tyingpck"
    2 bytes    version of the format
    8 bytes    length of the rest
    32 bytes   its SHA-256
    the rest   two lengths, of the header as it is coded and plain; the header, JSON: settings, tying, and of every
               tensor name, shape and type; what is no matrix; a stream for each unit

Numbers are little-endian. Nothing in it makes code run.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tying_env.compression.coding import (
    DTYPES,
    Shape,
    as_stored,
    code_plain,
    decode_plain,
    decode_unit,
    expand,
    squeeze,
)
from tying_env.compression.units import Unit
from tying_env.files import to_json
from tying_env.primary.rows import LAYOUTS, Layout
from tying_env.runs.exported import MAGIC

VERSION = 1
_HEAD, _LENGTHS = struct.Struct("<8sHQ32s"), struct.Struct("<II")
_LONGEST_HEADER = 2**26  # bytes; that of a network of 1,000 layers takes some 2^20
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Stored(NamedTuple):
    """A tensor as a file has it.

    Attributes:
        name: of the parameter or buffer.
        shape: its shape.
        dtype: its type in the network.
        how: a matrix's layout, or the type in which it is stored.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    how: Layout | torch.dtype


class Contents(NamedTuple):
    """A file whose hash is right, its streams still coded.

    Attributes:
        about: settings, tying, sources, sizes.
        units: for each its matrices and its stream.
        plain: all that is no matrix, and its stream.
        constants: how many of `plain`, the last ones, are no part of the network's state.
    """

    about: dict[str, Any]
    units: list[tuple[list[Stored], bytes]]
    plain: tuple[list[Stored], bytes]
    constants: int

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every weight and buffer of the network's state, by name."""
        plain = self.plain[0][: len(self.plain[0]) - self.constants]
        return {each.name: each.shape for stored in (*(unit for unit, _ in self.units), plain) for each in stored}

    def decode(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors of the state and the constants, by name.

        Raises:
            ValueError: a stream is damaged, or of other tensors than the header says.
        """
        found: dict[str, Tensor] = {}
        for matrices, coded in self.units:
            values = decode_unit(coded, [(each.shape, each.how) for each in matrices])  # type: ignore[misc]
            found |= {each.name: value.to(each.dtype) for each, value in zip(matrices, values, strict=True)}
        stored, coded = self.plain
        values = decode_plain(coded, [(each.shape, each.how) for each in stored])  # type: ignore[misc]
        others = [value.to(each.dtype) for each, value in zip(stored, values, strict=True)]
        names = [each.name for each in stored]
        split = len(names) - self.constants
        found |= dict(zip(names[:split], others[:split], strict=True))
        return found, dict(zip(names[split:], others[split:], strict=True))


def make_file(
    about: dict[str, Any],
    units: Sequence[tuple[Unit, bytes]],
    vectors: dict[str, Tensor],
    buffers: dict[str, Tensor],
    constants: dict[str, Tensor],
) -> bytes:
    """Return the bytes of a file.

    Args:
        about: what is said of the network, ready for JSON.
        units: each with its stream, see `code_unit`.
        vectors: the parameters that are in no unit, by name; stored in 16 bits.
        buffers: of the network's state, by name; stored bit for bit.
        constants: buffers that are no part of it, by name; bit for bit.

    Raises:
        ValueError: a tensor is of a type that is unknown here, complex numbers say.
    """
    kept = {**{name: as_stored(vector) for name, vector in vectors.items()}, **buffers, **constants}
    types = {**vectors, **buffers, **constants}
    header = {
        "network": about,
        "units": [
            {
                "bytes": len(coded),
                "tensors": [[m.name, list(m.weight.shape), _named(m.name, m.weight), m.layout] for m in unit.matrices],
            }
            for unit, coded in units
        ],
        "plain": [[n, list(t.shape), _named(n, types[n]), _named(n, t)] for n, t in kept.items()],
        "constants": len(constants),
    }
    text = to_json(header).encode()
    coded, plain = squeeze(text), code_plain(list(kept.values()))
    rest = _LENGTHS.pack(len(coded), len(text)) + coded
    rest += struct.pack("<Q", len(plain)) + plain + b"".join(stream for _, stream in units)
    return _HEAD.pack(MAGIC, VERSION, len(rest), hashlib.sha256(rest).digest()) + rest


def read_file(path: Path) -> Contents:
    """Read a file and check it against its hash; no stream is decoded yet.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no packed network, of another version, cut short or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no packed network {path}")
    whole = path.read_bytes()
    if whole[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is not a packed network: it begins with {whole[: len(MAGIC)]!r}, not {MAGIC!r}")
    if len(whole) < _HEAD.size:
        raise ValueError(f"{path} is cut short: it has {len(whole):,} bytes")
    _, version, length, digest = _HEAD.unpack(whole[: _HEAD.size])
    if version != VERSION:
        raise ValueError(f"{path} is of version {version} of the format, this package reads version {VERSION}")
    rest = whole[_HEAD.size :]
    if len(rest) != length:
        what = "is cut short" if len(rest) < length else "has something behind its end"
        raise ValueError(f"{path} {what}: {len(whole):,} bytes, it was written with {length + _HEAD.size:,}")
    if hashlib.sha256(rest).digest() != digest:
        raise ValueError(f"{path} is damaged: it is not as it was written (its sha256 differs)")
    try:
        return _contents(rest)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _contents(rest: bytes) -> Contents:
    coded, plain = _LENGTHS.unpack_from(rest)
    if plain > _LONGEST_HEADER:
        raise ValueError(f"its header is of {plain:,} bytes, at most {_LONGEST_HEADER:,} can be")
    at = _LENGTHS.size
    header = json.loads(expand(rest[at : at + coded], plain))
    at += coded
    (length,) = struct.unpack_from("<Q", rest, at)
    at += 8
    others = [_stored(entry, DTYPES) for entry in header["plain"]]
    kept, at = (others, rest[at : at + length]), at + length
    units = []
    for unit in header["units"]:
        if type(unit["bytes"]) is not int or unit["bytes"] < 0:
            raise ValueError(f"a unit cannot be of {unit['bytes']!r:.20} bytes")
        matrices = [_stored(entry, {way: way for way in LAYOUTS}) for entry in unit["tensors"]]
        if thin := [each.name for each in matrices if len(each.shape) < 2]:
            raise ValueError(f"{thin[0]!r} is no matrix")
        units.append((matrices, rest[at : at + unit["bytes"]]))
        at += unit["bytes"]
    constants = header["constants"]
    if type(constants) is not int or not 0 <= constants <= len(others):
        raise ValueError(f"it cannot have {constants!r:.20} constants")
    return Contents(header["network"], units, kept, constants)


def _stored(entry: Any, ways: dict[Any, Any]) -> Stored:
    """Read what the header says of a tensor: name, shape, type, and one of the `ways` it can be stored."""
    name, shape, dtype, how = entry
    if type(name) is not str or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"a tensor cannot be {entry!r:.80}")
    return Stored(name, tuple(shape), DTYPES[dtype], ways[how])


def _named(name: str, tensor: Tensor) -> str:
    """Return the name of a tensor's type.

    Raises:
        ValueError: it has none here.
    """
    if tensor.dtype not in _NAMES:
        raise ValueError(f"{name!r} is in {tensor.dtype}, which a packed network cannot hold")
    return _NAMES[tensor.dtype]
