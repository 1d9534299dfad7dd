"""Tiny networks to prune and to pack, trained for a few steps on texts that are measured whole in no time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_runs import tiny_run
from tying_env.runs import LoadedRun, load_run

MakeRun = Callable[..., LoadedRun]


@pytest.fixture(scope="session")
def short_texts(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """The first characters of each split."""
    short = tmp_path_factory.mktemp("short")
    for text in text_folder.iterdir():
        (short / text.name).write_text(text.read_text(encoding="utf-8")[:2000], encoding="utf-8")
    return short


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, short_texts: Path) -> MakeRun:
    """Return what trains a tiny network, and reads it back."""

    def made(agent: str = "sandwich", **settings: Any) -> LoadedRun:
        own = settings.get("model", "")
        folder = tiny_run(tmp_path_factory.mktemp("run") / agent, short_texts, agent, **settings)
        return load_run(folder, model=own if ":" in own else None)

    return made


@pytest.fixture(scope="session")
def sandwich(make_run: MakeRun) -> LoadedRun:
    """Four layers, of which the two in the middle are one; nobody may change it."""
    return make_run()
