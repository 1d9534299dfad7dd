"""Smaller networks than training left: weights in few bits in a file of so many bytes, or pruned."""

from tying_env.compression.packing import Packed, load_packed, open_packed, pack_network

__all__ = ["Packed", "load_packed", "open_packed", "pack_network"]
