"""Runs in processes of their own, which die where they are told to."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run

from tests.reliability.runs import Watcher
from tests.started import SERVER
from tying_env.runs import RunDirectory

# What changes the disk: a process can die before, after, and (the last ones) in the middle of each.
CALLS = ("fsync", "replace", "rename", "mkdir", "ftruncate")


def start(config: RunConfig, die_at: int | None = None, count_into: Any = None) -> Any:
    """Begin a run, or resume the one that is there, in a process of its own.

    Args:
        config: the run.
        die_at: the moment at which the process kills itself: that many changes of the disk are begun then.
        count_into: a shared number that is set to how many such moments there were.
    """
    process = SERVER.Process(target=_work, args=(config, die_at, count_into))
    process.start()
    return process


def number() -> Any:
    """Return a shared number."""
    return SERVER.Value("i", 0)


def _work(config: RunConfig, die_at: int | None, count_into: Any) -> None:
    torch.set_num_threads(1)
    path = config.run_dir
    assert path is not None
    moments = _Moments(die_at)
    moments.install()
    watcher = Watcher()
    try:
        status = resume(path, [watcher])[1] if path.exists() else run(config, [watcher])[1]
    except ValueError as error:
        if "is finished" not in str(error):
            raise
        status = "finished"  # it was killed after its last change of the disk
    if count_into is not None:
        count_into.value = moments.count
    assert status == "finished", status
    assert not [note for note in watcher.notes if "cannot be used" in note], watcher.notes


class _Moments:
    """Counts the changes of the disk, and ends the process at one of them: before it, half-way through, or after it."""

    def __init__(self, die_at: int | None) -> None:
        self.count = 0
        self._die_at = die_at

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self._before_and_after(getattr(os, name)))
        save_file, append, write_text = safetensors.torch.save_file, RunDirectory.append, Path.write_text
        copyfile = shutil.copyfile

        def save_half(tensors: Any, path: Any, *rest: Any, **named: Any) -> None:
            self._moment()
            save_file(tensors, path, *rest, **named)
            self._moment(lambda: os.truncate(path, os.path.getsize(path) // 2))
            self._moment()

        def copy_half(source: Any, target: Any) -> Any:
            self._moment()
            self._moment(lambda: (copyfile(source, target), os.truncate(target, os.path.getsize(target) // 2)))
            return copyfile(source, target)

        def append_half(directory: RunDirectory, name: str, text: str) -> None:
            self._moment()
            self._moment(lambda: append(directory, name, text[: len(text) // 2]))
            append(directory, name, text)
            self._moment()

        def write_half(path: Path, text: str, *rest: Any, **named: Any) -> int:
            self._moment()
            self._moment(lambda: write_text(path, text[: len(text) // 2], *rest, **named))
            return write_text(path, text, *rest, **named)

        safetensors.torch.save_file = save_half
        shutil.copyfile = copy_half  # type: ignore[assignment]
        RunDirectory.append = append_half  # type: ignore[method-assign]
        Path.write_text = write_half  # type: ignore[method-assign,assignment]

    def _before_and_after(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            self._moment()
            result = call(*args, **named)
            self._moment()
            return result

        return counted

    def _moment(self, first: Callable[[], object] = lambda: None) -> None:
        self.count += 1
        if self.count == self._die_at:
            self._die_at = None
            first()
            os.kill(os.getpid(), signal.SIGKILL)
