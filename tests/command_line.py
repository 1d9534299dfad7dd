"""Commands called in this process, as from a shell: starting an interpreter for each takes seconds."""

import contextlib
import io
import os
from subprocess import CompletedProcess
from unittest import mock

from tying_agents.commands import start


def called(command: str, *arguments: object, columns: int = 80, prog: str | None = None) -> CompletedProcess[str]:
    """Call a command, and return its exit code and what it printed.

    Args:
        command: "run", "compare", ...
        arguments: its arguments.
        columns: width of the terminal that it believes to print to.
        prog: as which program it was called.
    """
    words, out, error = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
    ):
        try:
            code = start(command, words, prog)
        except SystemExit as end:  # --help, and what the parser refuses
            code = end.code if isinstance(end.code, int) else 1
    return CompletedProcess([command, *words], code, out.getvalue(), error.getvalue())
