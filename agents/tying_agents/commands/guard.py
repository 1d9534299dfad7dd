"""What all commands do where something goes wrong: a word and an exit code in place of a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tying_agents.commands import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console


def guarded(work: Callable[[Console], int], hint: str = "", console: Console | None = None) -> int:
    """Do the work and return its exit code: 130 after Ctrl-C, 1 after an error in what it was given.

    An error of code of the user's own is shown with its traceback, beginning where that code does.

    Args:
        work: is given the console, and returns the exit code.
        hint: what to say after Ctrl-C.
        console: where to write; a new one by default.
    """
    from tying_env.plugins import ForeignCodeError

    shown = console or plain_console()
    try:
        return work(shown)
    except KeyboardInterrupt:
        shown.print(f"Interrupted. {hint}".rstrip(), highlight=False, markup=False)
        return INTERRUPTED
    except ForeignCodeError as error:
        say_error(shown, str(error))
        shown.print(error.traceback(), end="", highlight=False, markup=False, soft_wrap=True)
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        say_error(shown, str(error))
        return 1


def plain_console() -> Console:
    """Return a console that prints texts as they are: paths and names in them, in tables too, are no markup."""
    from rich.console import Console

    return Console(emoji=False, markup=False)


def say_error(console: Console, text: str) -> None:
    """Print an error; paths and names in it are no markup."""
    from rich.text import Text

    console.print(Text.assemble(("error:", "bold red"), " ", text), highlight=False, soft_wrap=True)
