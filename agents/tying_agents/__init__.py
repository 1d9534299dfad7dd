"""Who chooses the tying, and all around a run: agents, the loop of decisions, callbacks, run directories, commands.

    from tying_agents import Callback, Context, Controller, RunConfig, drive, register, run

Importing this package stays light: torch is imported when something is run.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tying_agents.callbacks import Callback
    from tying_agents.controllers.base import Context, Controller, Transition
    from tying_agents.loop import Loop, drive
    from tying_agents.registry import agent_names, find_agent, register
    from tying_agents.run_config import RunConfig
    from tying_agents.running.runner import resume, run

__all__ = [
    "Callback",
    "Context",
    "Controller",
    "Loop",
    "RunConfig",
    "Transition",
    "agent_names",
    "drive",
    "find_agent",
    "register",
    "resume",
    "run",
]

_ROOMS = {
    "Callback": "callbacks",
    **dict.fromkeys(("Context", "Controller", "Transition"), "controllers.base"),
    **dict.fromkeys(("Loop", "drive"), "loop"),
    **dict.fromkeys(("agent_names", "find_agent", "register"), "registry"),
    "RunConfig": "run_config",
    **dict.fromkeys(("resume", "run"), "running.runner"),
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
