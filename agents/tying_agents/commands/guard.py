"""What all scripts do where something goes wrong: a word and an exit code in place of a traceback.

Imported before everything large, so that Ctrl-C does so while the rest is imported, too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EXIT_CODE = 130


def guarded(work: Callable[[Console], int], hint: str = "", console: Console | None = None) -> int:
    """Do the work and return its exit code: 130 after Ctrl-C, 1 after an error in what it was given.

    Args:
        work: is given the console, and returns the exit code.
        hint: what to say after Ctrl-C.
        console: where to write; a new one by default.
    """
    from rich.console import Console
    from rich.markup import escape

    shown = console or Console()
    try:
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return work(shown)
    except KeyboardInterrupt:
        shown.print(f"Interrupted. {hint}".rstrip(), highlight=False, markup=False)
        return EXIT_CODE
    except (ValueError, TypeError, OSError, ImportError) as error:
        shown.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1


def _end(signum: int, frame: FrameType | None) -> None:
    os.write(1, b"Interrupted.\n")
    os._exit(EXIT_CODE)


# Only where a script of this folder was started, not where one is imported.
if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
    signal.signal(signal.SIGINT, _end)
