"""Settings written as options of `layer-tying run` and `compare`, so that one command can print another."""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from tying_agents.many.tuning.search import Search
from tying_agents.run_config import RunConfig
from tying_agents.settings import NoSettings

# The arm's name in the comparison that a sweep ends with.
ARM = "tuned"


def options_of(name: str, value: Any) -> list[str]:
    """Return a setting as words of a command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    if isinstance(value, (tuple, list)):
        return [f"--{option}", *map(str, value)]
    text = "None" if value is None else repr(value) if isinstance(value, float) else str(value)
    return [f"--{option}={text}"] if text.startswith("-") else [f"--{option}", text]  # -1 is no option


def arm_text(config: RunConfig, searches: Sequence[Search]) -> str:
    """Return the arm "tuned: --..." as `layer-tying compare --arms` takes it: the agent, and what was searched."""
    words = ["--agent", config.agent]
    for search in searches:
        group = config if not search.group else getattr(config, search.group)
        words += options_of(search.name, getattr(group, search.name))
    return f"{ARM}: {shlex.join(words)}"


def common_options(base: RunConfig, usual: RunConfig) -> list[str]:
    """Return the options by which the settings differ from the usual ones, as `layer-tying compare` takes them.

    Args:
        base: the settings.
        usual: what the command has without options, for this --preset and --model.
    """
    decided = ("agent", "seed", "run_dir", "label", "measure_test", "env", "controller")
    words = []
    for field in dataclasses.fields(RunConfig):
        if field.name not in decided and getattr(base, field.name) != getattr(usual, field.name):
            words += options_of(field.name, getattr(base, field.name))
    own = type(base.controller)
    groups: list[tuple[Any, Any]] = [(base.env, usual.env)]
    if own is not NoSettings:
        groups.append((base.controller, own()))
    for chosen, default in groups:
        for field in dataclasses.fields(chosen):
            if getattr(chosen, field.name) != getattr(default, field.name):
                words += options_of(field.name, getattr(chosen, field.name))
    return words
