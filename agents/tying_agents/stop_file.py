"""A stop that is passed on: from the process that was asked to those that make its runs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from tying_env.files import written_whole


class StoppedBySignal(Exception):
    """Runs were stopped by a signal, `asked`; each has a checkpoint of the moment it stopped."""

    def __init__(self, asked: signal.Signals) -> None:
        super().__init__(f"stopped by {asked.name}")
        self.asked = asked


@dataclass(frozen=True)
class StopFile:
    """Asks runs to stop, in whatever process they are made that sees this file: it holds the number of the signal.

    A run takes it in place of `tying_agents.stop_signals.StopSignals`.
    """

    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, asked: signal.Signals) -> None:
        """Ask all of them.

        Raises:
            OSError: the file cannot be written.
        """
        with written_whole(self.path) as unfinished:
            unfinished.write_text(str(int(asked)))

    @property
    def asked(self) -> signal.Signals | None:
        """The signal, or None as long as there was none."""
        if self.path.exists():
            with contextlib.suppress(FileNotFoundError):  # removed just now: the other process is gone
                return signal.Signals(int(self.path.read_text()))
        return _worker.asked

    def should_stop(self) -> bool:
        """Tell whether there was one."""
        return self.asked is not None


class _Worker:
    """What a worker process knows of itself; in other processes nothing is ever asked."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.begun = False
        self.busy = threading.Lock()

    def told(self, signum: int, frame: FrameType | None) -> None:
        self.asked = signal.SIGTERM

    def watch(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        self.asked = signal.SIGTERM
        with self.busy:  # the run under way has saved itself
            os._exit(143)


_worker = _Worker()


def begin_worker(parent: int) -> None:
    """Make this process a worker: Ctrl-C is its parent's business, SIGTERM stops its run, and it ends with its parent.

    Args:
        parent: the process that began it.
    """
    _worker.begun = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _worker.told)
    threading.Thread(target=_worker.watch, args=(parent,), daemon=True).start()


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Keep a worker process alive until its run is saved."""
    with _worker.busy if _worker.begun else contextlib.nullcontext():
        yield
