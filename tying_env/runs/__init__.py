"""Run directories: what a training run leaves behind, how it is read back, and how it is gone on with."""

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
