"""Short by default; with --reliability the full numbers. Either way the counts are printed at the end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from tests.reliability.runs import finish, outcome, small, stop_at_five


class Counts:
    """How many of each thing were tried; every promise reports here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, what: str, number: int, remark: str = "") -> None:
        """Take note of `number` things tried, all of which came out as promised."""
        (self._folder / f"{what}.json").write_text(json.dumps([what, number, remark]))


_FOLDER = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to try everything."""
    return bool(request.config.getoption("--reliability"))


@pytest.fixture(scope="session")
def counts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counts]:
    """Where to report."""
    folder = tmp_path_factory.getbasetemp() / "counts"
    folder.mkdir(exist_ok=True)
    request.config.stash[_FOLDER] = folder
    yield Counts(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the counts."""
    folder = config.stash.get(_FOLDER, None)
    lines = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))] if folder else []
    if lines:
        terminalreporter.section("reliability: tried, and all as promised")
    for what, number, remark in lines:
        terminalreporter.line(f"{number:>7,}  {what}{f' ({remark})' if remark else ''}")


# Nine decisions, of one training step each: runs are stopped, killed and damaged between decisions.
BRIEF: dict[str, Any] = TINY | {"k": 1, "total_steps": 10, "validate_every": 2}


@pytest.fixture
def tiny(text_folder: Path) -> dict[str, Any]:
    """Settings of a short run of a tiny environment on real text."""
    return BRIEF | {"dataset": str(text_folder)}


@pytest.fixture(scope="session")
def run_whole(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run of `small` comes to when nothing happens to it."""
    return outcome(finish(small(BRIEF | {"dataset": str(text_folder)}, tmp_path_factory.mktemp("whole") / "run")))


@pytest.fixture(scope="session")
def stopped_once(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `stopped`, which is copied for each test."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    return stop_at_five(small(BRIEF | {"dataset": str(text_folder)}, path, "random", keep_checkpoints=5))


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run that was stopped at its fifth decision: checkpoints 1 and 2 by the way, 3 by the stop."""
    path = shutil.copytree(stopped_once, tmp_path / "stopped")
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["000001", "000002", "000003"]
    return path
