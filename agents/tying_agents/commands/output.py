"""Standard output that may go away: a run is worth more than what it prints."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def lasting_output() -> Iterator[Callable[[], bool]]:
    """Let a command work on when its output cannot be written any more, and print in any encoding.

    A closed pipe (`| head`), a full disk or a terminal that is gone is said once on standard error; after that nothing
    is printed. What an encoding does not have is printed as "?".

    Yields:
        Whether output was lost that somebody waits for: not to a closed pipe, whose reader has had enough.
    """
    plain = sys.stdout
    if plain is not sys.__stdout__ or not isinstance(plain, io.TextIOWrapper):  # a program that calls us has its own
        yield lambda: False
        return
    errors = plain.errors
    plain.reconfigure(errors="replace")
    sys.stdout = lasting = _Lasting(plain)
    try:
        yield lambda: lasting.lost
        sys.stdout.flush()
    finally:
        sys.stdout = plain
        plain.reconfigure(errors=errors)


class _Lasting:
    """A stream whose writing never fails."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._let_go(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._let_go(error)

    def _let_go(self, error: OSError) -> None:
        """Print into nothing from now on; what is buffered goes there, too, also when the program ends."""
        self.lost = self.lost or not isinstance(error, BrokenPipeError)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
        with contextlib.suppress(OSError):
            print(f"standard output cannot be written ({error}): the command goes on in silence", file=sys.stderr)
