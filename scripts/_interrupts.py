"""Imported before everything large: until a script is at work, Ctrl-C ends it with a word and not with a traceback."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

EXIT_CODE = 130


def at_work() -> None:
    """Let Ctrl-C be a KeyboardInterrupt from here on."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(signum: int, frame: FrameType | None) -> None:
    os.write(1, b"Interrupted.\n")
    os._exit(EXIT_CODE)


# Only where a script of this folder was started, not where one is imported.
if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
    signal.signal(signal.SIGINT, _end)
