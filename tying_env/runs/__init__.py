"""Run directories: what a training run leaves behind, how it is read back, and how it is gone on with."""

from tying_env.runs.checkpoints import Checkpoint, Checkpoints
from tying_env.runs.network_file import SavedNetwork, load_network, save_network
from tying_env.runs.run_directory import RunDirectory

__all__ = ["Checkpoint", "Checkpoints", "RunDirectory", "SavedNetwork", "load_network", "save_network"]
