"""Smaller networks than training left: weights in few bits in a file of so many bytes, or pruned."""

from tying_env.compression.opening import load_packed, open_packed
from tying_env.compression.packing import Coded, Packed, PackedUnit, TooFewBytesError, pack_network

__all__ = ["Coded", "Packed", "PackedUnit", "TooFewBytesError", "load_packed", "open_packed", "pack_network"]
