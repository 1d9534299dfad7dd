"""Command lines to type again: as the command was called, with all that has to be named."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence

from tying_agents.config_files import NamesCode


def command_line(prog: str, words: Sequence[str]) -> str:
    """Return a command line to type.

    Args:
        prog: how the command was called: "layer-tying run", "python -m tying_env run", a script's path.
        words: the arguments.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    # Of several machines each was given a command of its own.
    alone = processes == "1" or os.environ.get("LOCAL_WORLD_SIZE") != processes
    python = "python" if alone else f"torchrun --nproc-per-node {processes}"
    if prog.endswith(".py"):
        prog = f"{python} {shlex.quote(prog)}"
    elif prog.startswith("python "):
        prog = python + prog.removeprefix("python")
    return f"{prog} {shlex.join(words)}"


@contextlib.contextmanager
def saying_what_to_type(argv: Sequence[str], prog: str) -> Iterator[None]:
    """Let an error because of code that nobody has named end with the whole command that names it.

    Args:
        argv: the arguments that were given.
        prog: how the command was called.
    """
    try:
        yield
    except NamesCode as error:
        named = {word for word in error.words if word.startswith("--")}
        whole = command_line(prog, [*_without(argv, named), *error.words])
        raise NamesCode(f"{error}\nthe whole command: {whole}", error.words) from error


def _without(argv: Sequence[str], options: set[str]) -> list[str]:
    """Return a command line without these options and their values."""
    kept: list[str] = []
    dropping = False
    for word in argv:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in options
        if not dropping:
            kept.append(word)
    return kept
