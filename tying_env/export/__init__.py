"""Exports a trained network: a small folder in which every weight is stored once, or a plain checkpoint."""

from tying_env.export.reading import load_export
from tying_env.export.tied_folder import load_tied
from tying_env.export.writing import export_changed, export_tied

__all__ = ["export_changed", "export_tied", "load_export", "load_tied"]
