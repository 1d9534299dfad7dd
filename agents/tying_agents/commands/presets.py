"""Reads what the whole command line's defaults depend on before it is read: which network, size and semantics."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Literal, get_args

from tying_agents.run_config import RunConfig
from tying_env import PRESETS, EnvConfig
from tying_env.config import Size
from tying_env.primary.checkpoint import checkpoint_settings

Semantics = Literal["paper", "published-code"]


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


def chosen_semantics(arguments: Sequence[str] | None = None) -> Semantics:
    """Return what --semantics says, of the command line or of these arguments; the paper's if it says nothing."""
    first = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    first.add_argument("--semantics", choices=get_args(Semantics), default="paper")
    try:
        semantics: Semantics = first.parse_known_args(arguments)[0].semantics
    except argparse.ArgumentError:
        return "paper"  # the full parser says what is wrong
    return semantics


def default_run(size: Size, env: EnvConfig) -> RunConfig:
    """Return the settings of a run of a size in this environment."""
    windows = 0 if size == "paper" else RunConfig.test_windows  # the paper measures the whole test split
    return RunConfig(env=env, test_windows=windows)


def as_published(config: RunConfig) -> RunConfig:
    """Return the choices of the paper's published code: see tying_agents.controllers.published and tying_env.replication."""
    vit = config.env.model == "vit"
    env = dataclasses.replace(config.env, k=10 if vit else 4, gradient="leader", replication="aliased", dropout=0.2)
    dqn = dataclasses.replace(config.dqn, epsilon_floor=0.1 if vit else 0.01)
    return dataclasses.replace(config, agent="layer-sweep-dqn", rewards=("clipped",), env=env, dqn=dqn)


def description(doc: str | None) -> str:
    """Return a script's docstring for --help, which runs lines together: each example becomes a paragraph."""
    return re.sub(r"\n(?=python |torchrun )", "\n\n", doc or "")
