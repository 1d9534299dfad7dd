"""Ctrl-C asks a run to end in order; a second one ends it at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class Interrupt:
    """Inside this context the first Ctrl-C only sets `asked`; the second raises KeyboardInterrupt as usual."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.asked = False
        self._note = note
        self._former: Any = None
        # Python lets only the main thread handle signals.
        self._handles = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._handles:
            self._former = signal.signal(signal.SIGINT, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handles:
            signal.signal(signal.SIGINT, self._former)

    def _first(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._former)
        self._note("Ctrl-C: finishing this decision, then saving. Press it again to stop at once.")
