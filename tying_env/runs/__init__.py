"""Run directories: what a training run leaves behind, and how it is read back."""

from tying_env.runs.network_file import SavedNetwork, load_network, save_network
from tying_env.runs.run_directory import RunDirectory

__all__ = ["RunDirectory", "SavedNetwork", "load_network", "save_network"]
