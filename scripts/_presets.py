"""Reads which network and size is meant before the whole command line, whose defaults depend on them."""

import argparse
from typing import get_args

from tying_env import PRESETS, EnvConfig
from tying_env.config import Size
from tying_env.primary.checkpoint import checkpoint_settings


def chosen_preset() -> tuple[Size, EnvConfig]:
    """Return the size, and the settings of the environment that --model, --preset and --init-from lead to.

    It is GPT-2 and small where they say nothing, or nothing that there is.

    Raises:
        FileNotFoundError, ValueError: the checkpoint of --init-from is not there, or not of such a network.
    """
    first = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    first.add_argument("--model", choices=dict.fromkeys(model for model, _ in PRESETS))
    first.add_argument("--preset", choices=get_args(Size), default="small")
    first.add_argument("--init-from")
    try:
        chosen = first.parse_known_args()[0]
    except argparse.ArgumentError:
        return "small", EnvConfig()  # the full parser says what is wrong
    started = {} if chosen.init_from is None else checkpoint_settings(chosen.init_from)
    model = chosen.model or started.get("model", "gpt2")
    return chosen.preset, EnvConfig(**PRESETS[model, chosen.preset] | started | {"model": model})
