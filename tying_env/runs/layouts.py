"""What config.json looked like in earlier versions, and how it reads today."""

import dataclasses
from typing import Any

from tying_env.config import EnvConfig

_SETTINGS = {field.name for field in dataclasses.fields(EnvConfig)}

# Of a run's own config.json. 1 (it had no number): the settings of all agents in four groups. 2: those of the run's
# agent, under "controller".
LAYOUT = 2

# Which of the four groups, and what of it, was an agent's own.
_GROUPS = ("dqn", "pattern", "search", "sb3")
_OF_AGENT: dict[str, tuple[str, tuple[str, ...] | None]] = {
    **dict.fromkeys(("dqn", "layer-sweep-dqn"), ("dqn", None)),
    **dict.fromkeys(("hill-climbing", "annealing", "tree-search"), ("search", None)),
    **dict.fromkeys(("ppo", "a2c", "sb3-dqn", "qrdqn", "maskable-ppo"), ("sb3", None)),
    "random-static": ("pattern", ("groups",)),
    "periodic": ("pattern", ("period",)),
    "sandwich": ("pattern", ("untied_first", "untied_last")),
    "pattern": ("pattern", ("pattern",)),
    "replay": ("pattern", ("trace", "permute", "final")),
}


def modern(about: dict[str, Any]) -> dict[str, Any]:
    """Return what a run's config.json of any version says, in the layout of this one.

    Raises:
        ValueError: it is of a later version, or has settings that are not known.
    """
    layout = about.get("layout", 1)
    if type(layout) is not int or not 1 <= layout <= LAYOUT:
        raise ValueError(
            f"the layout of its settings is {layout!r}, and this version reads up to {LAYOUT}: "
            "it was made by a later version, or is damaged"
        )
    env = about.get("env")
    if unknown := sorted(set(env if isinstance(env, dict) else ()) - _SETTINGS):
        raise ValueError(
            f"its setting env.{unknown[0]} is not known to this version, which would take the run for another: "
            "it was made by a later version, or is damaged"
        )
    if layout == LAYOUT or not any(isinstance(about.get(group), dict) for group in _GROUPS):
        return about
    rest = {name: value for name, value in about.items() if name not in _GROUPS}
    group, names = _OF_AGENT.get(str(about.get("agent")), ("", ()))
    found = about.get(group)
    own = found if isinstance(found, dict) else {}
    return {**rest, "controller": {name: own[name] for name in own if names is None or name in names}}
