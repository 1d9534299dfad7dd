"""Ctrl-C and a scheduler's SIGTERM ask a run to end in order; a second one ends it at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from tying_env.primary.trainer import never

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + the signal's number, as a shell has it


class StopSignals:
    """Inside this context the first SIGINT or SIGTERM only sets `asked`; the second ends the program at once.

    At once means: a KeyboardInterrupt for SIGINT (it leaves the terminal in order), and for SIGTERM what the system
    does of itself.

    Args:
        note: is told that it came.
        on_first: is told which it was, to pass it on.
        also: asked between training steps whether there is another reason to stop.

    Attributes:
        asked: the signal that came first, None as long as there was none.
    """

    def __init__(
        self,
        note: Callable[[str], None],
        on_first: Callable[[signal.Signals], None] = lambda asked: None,
        also: Callable[[], bool] = never,
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
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def should_stop(self) -> bool:
        """Tell whether a signal has come, or there is another reason."""
        return self.asked is not None or self._also()

    def _first(self, signum: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(signum)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, self._second)
        name = "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
        self._on_first(self.asked)
        self._note(f"{name}: finishing this training step, then saving. Once more ends at once.")

    def _second(self, signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt
