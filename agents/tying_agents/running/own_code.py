"""Code of a user's own: what a run writes down of it, and whether it has changed since. No torch here."""

from collections.abc import Mapping
from typing import Any

from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_env.plugins import describe_object


def describe_code(config: RunConfig) -> dict[str, str]:
    """Return the hash of each file of code of the user's own, by import string; an installed agent's, too."""
    agent = find_agent(config.agent)
    specs = dict.fromkeys([spec for _, spec in config.foreign()] + ([agent.target] if agent.foreign else []))
    return {spec: describe_object(spec)["sha256"] for spec in specs}


def changed_code(about: dict[str, Any], config: RunConfig) -> dict[str, tuple[str | None, str]]:
    """Return the files and modules whose code is not what config.json describes.

    Returns:
        Path or module, as the user writes it -> the hash in config.json (None where it has none) and that of now.
    """
    saved = about.get("code")
    before, now = _by_file(saved if isinstance(saved, dict) else {}), _by_file(describe_code(config))
    return {where: (before.get(where), now[where]) for where in now if before.get(where) != now[where]}


def in_words(changed: dict[str, tuple[str | None, str]]) -> str:
    """Return in words what `changed_code` found."""
    return "; ".join(
        f"{where} was no part of this run when it began (sha256 {now:.8} now)"
        if before is None
        else f"{where} has changed since this run began (sha256 {before:.8} then, {now:.8} now)"
        for where, (before, now) in changed.items()
    )


def _by_file(hashes: Mapping[str, str]) -> dict[str, str]:
    """Return hashes by what is before the colon: several names of one file have one hash."""
    return {spec.rpartition(":")[0]: sha256 for spec, sha256 in hashes.items()}
