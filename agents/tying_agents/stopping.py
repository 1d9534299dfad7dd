"""How runs are asked to stop: by a signal to this process, or by a file that other processes see.

Ctrl-C, a scheduler's SIGTERM and a terminal that is gone (SIGHUP, which `nohup` has ignored) ask a run to end in order;
a second one ends it at once.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from tying_env.files import written_whole

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + the signal's number, as a shell has it
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


class StopSignals:
    """Inside this context the first SIGINT, SIGTERM or SIGHUP only sets `asked`; the second ends the program at once.

    At once means: a KeyboardInterrupt for SIGINT (it leaves the terminal in order), and for SIGTERM what the system
    does of itself.

    Args:
        note: is told that it came.
        on_first: is told which it was, to pass it on.
        also: asked between training steps whether there is another reason to stop.

    Attributes:
        asked: the signal that came first, SIGTERM for a SIGHUP; None as long as there was none.
    """

    def __init__(
        self,
        note: Callable[[str], None],
        on_first: Callable[[signal.Signals], None] = lambda asked: None,
        also: Callable[[], bool] = lambda: False,
    ) -> None:
        self.asked: signal.Signals | None = None
        self._note = note
        self._on_first = on_first
        self._also = also
        self._former: dict[signal.Signals, Any] = {}
        # Python lets only the main thread handle signals.
        self._handles = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._handles:
            self._former = {number: signal.signal(number, self._first) for number in EXIT_CODES}
            if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
                self._former[_HANGUP] = signal.signal(_HANGUP, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def should_stop(self) -> bool:
        """Tell whether a signal has come, or there is another reason."""
        return self.asked is not None or self._also()

    def _first(self, signum: int, frame: FrameType | None) -> None:
        self.asked = signal.SIGTERM if signum == _HANGUP else signal.Signals(signum)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if _HANGUP in self._former:
            signal.signal(_HANGUP, signal.SIG_IGN)  # a shell may send it to its children once more
        signal.signal(signal.SIGINT, self._second)
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        self._on_first(self.asked)
        self._note(f"{name}: finishing this training step, then saving. Once more ends at once.")

    def _second(self, signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt


class StoppedBySignal(Exception):
    """Runs were stopped by a signal, `asked`; each has a checkpoint of the moment it stopped."""

    def __init__(self, asked: signal.Signals) -> None:
        super().__init__(f"stopped by {asked.name}")
        self.asked = asked


@dataclass(frozen=True)
class StopFile:
    """Asks runs to stop, in whatever process they are made that sees this file: it holds the number of the signal.

    A run takes it in place of `StopSignals`.
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
    """Make this process a worker: SIGTERM stops its run, it ends with its parent, and other signals are its parent's.

    Args:
        parent: the process that began it.
    """
    _worker.begun = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _HANGUP is not None:
        signal.signal(_HANGUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _worker.told)
    threading.Thread(target=_worker.watch, args=(parent,), daemon=True).start()


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Keep a worker process alive until its run is saved."""
    with _worker.busy if _worker.begun else contextlib.nullcontext():
        yield
