"""Run directories: what a training run leaves behind, how it is read back, and how it is resumed."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tying_env.runs.checkpoints import Checkpoint, Checkpoints
    from tying_env.runs.network_file import SavedNetwork, load_network, save_network
    from tying_env.runs.run_directory import RunDirectory
    from tying_env.runs.saved_run import LoadedRun, load_run, tokenizer_of

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "LoadedRun",
    "RunDirectory",
    "SavedNetwork",
    "load_network",
    "load_run",
    "save_network",
    "tokenizer_of",
]

# Imported when they are asked for: who only reads settings need not import torch.
_ROOMS = {
    **dict.fromkeys(("Checkpoint", "Checkpoints"), "checkpoints"),
    **dict.fromkeys(("SavedNetwork", "load_network", "save_network"), "network_file"),
    **dict.fromkeys(("LoadedRun", "load_run", "tokenizer_of"), "saved_run"),
    "RunDirectory": "run_directory",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
