"""Tiny networks, trained for a few steps: their run directories."""

from pathlib import Path
from typing import Any

from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY
from tying_env import EnvConfig


def tiny_run(folder: Path, text_folder: Path, agent: str = "sandwich", seed: int = 1, **settings: Any) -> Path:
    """Train, by default four layers of which the two in the middle are one, and return the folder."""
    tiny: dict[str, Any] = TINY | {"dataset": str(text_folder), "total_steps": 8} | settings
    if settings.get("model") == "vit":
        tiny = {name: value for name, value in tiny.items() if name not in ("tokenizer", "seq_len")}
    run(RunConfig(agent, seed, run_dir=folder, env=EnvConfig(**tiny), test_windows=4))
    return folder
