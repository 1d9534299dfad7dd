"""Data sets of the Hugging Face hub: its answer is not waited for where there is no network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SECONDS = 5.0  # to wait for the hub's answer; its own client tries for half a minute, for every file


def load_from_hub(path: str, name: str | None = None, **arguments: Any) -> Any:
    """Return what `datasets.load_dataset` does; without a network, at once from the user's cache.

    Args:
        path: of the data set on the hub; or a local folder.
        name: of its configuration.
        arguments: others of `load_dataset`.

    Raises:
        ImportError: the package `datasets` is not installed.
        ConnectionError: the hub does not answer, and the cache has no copy.
        Exception: whatever else went wrong; every layer under `load_dataset` has classes of its own.
    """
    from datasets import load_dataset
    from huggingface_hub import constants

    if Path(path).exists() or _answers(constants.ENDPOINT):
        return load_dataset(path, name, **arguments)
    try:
        with _offline():
            return load_dataset(path, name, **arguments)
    except Exception as error:
        raise ConnectionError(f"{constants.ENDPOINT} does not answer, and there is no copy in the cache") from error


def _answers(endpoint: str) -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=_SECONDS)
    except Exception:  # the client's class depends on its version; HF_HUB_OFFLINE is one reason
        return False
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's libraries look into their cache alone."""
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (datasets.config, constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
