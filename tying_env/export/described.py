"""What training.json of an exported folder describes: the settings, and a network that only this package makes."""

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from tying_env.config import EnvConfig, with_later_settings
from tying_env.config.network import BUILT
from tying_env.primary.models import build_model
from tying_env.runs.exported import TRAINING, read_training
from tying_env.seeding import torch_randomness_from, torch_stream

# In place of the path of data that were on another machine.
ELSEWHERE = "data that this folder does not name"


def described_settings(folder: Path, about: dict[str, Any]) -> EnvConfig:
    """Return the settings in what `read_training` gave.

    Raises:
        ValueError: they are damaged.
    """
    found = about["env"]
    try:
        plain = {"compile_blocks": False, "checkpoint_blocks": False, "frozen_weights": "held"}
        settings = with_later_settings(found) | plain | {"dataset": found.get("dataset") or ELSEWHERE}
        return EnvConfig.from_settings(settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / TRAINING} is damaged: {error}") from error


def described_network(folder: Path) -> nn.Module | None:
    """Return a new network, to be filled, of a class of this package; None where the folder describes none.

    Neither low-rank deltas nor scales are in a folder: they are refused or merged when it is written.

    Raises:
        ValueError: training.json is damaged.
    """
    if not (folder / TRAINING).is_file():
        return None
    about = read_training(folder)
    if about["env"].get("model") not in BUILT:
        return None
    config = described_settings(folder, about)
    ramp = EnvConfig.residual_ramp  # no other is allowed without a scale
    plain = dataclasses.replace(config, delta_rank=0, residual_scale="none", residual_ramp=ramp)
    try:
        with torch_randomness_from(torch_stream(0, "weights")):
            return build_model(plain, about["sizes"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder / TRAINING} does not describe a {config.model}: {error!r}") from error
