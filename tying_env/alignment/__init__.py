"""How far layers are aligned: whether head by head and unit by unit they hold the same weights in the same order."""

from tying_env.alignment.measure import KINDS, Alignment, Kind, measure_alignment
from tying_env.alignment.order import match_units, move_layers, permute_units

__all__ = ["KINDS", "Alignment", "Kind", "match_units", "measure_alignment", "move_layers", "permute_units"]
