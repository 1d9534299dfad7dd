"""Reads which network and size is meant before the whole command line, whose defaults depend on them."""

import argparse
from typing import get_args

from tying_env import PRESETS, EnvConfig
from tying_env.config import Model, Size


def chosen_preset() -> tuple[Model, Size]:
    """Return what --model and --preset say; GPT-2 and small where they say nothing, or nothing that there is."""
    first = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    first.add_argument("--model", choices=dict.fromkeys(model for model, _ in PRESETS), default="gpt2")
    first.add_argument("--preset", choices=get_args(Size), default="small")
    try:
        chosen = first.parse_known_args()[0]
    except argparse.ArgumentError:
        return "gpt2", "small"  # the full parser says what is wrong
    return chosen.model, chosen.preset


def preset_settings(model: Model, size: Size) -> EnvConfig:
    """Return the environment's settings for a network and size."""
    return EnvConfig(**PRESETS[model, size])
