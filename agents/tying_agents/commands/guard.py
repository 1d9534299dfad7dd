"""What all commands do where something goes wrong: a word and an exit code in place of a traceback."""

from __future__ import annotations

import traceback
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
    from rich.console import Console

    from tying_env.plugins import ForeignCodeError

    shown = console or Console(emoji=False)
    try:
        return work(shown)
    except KeyboardInterrupt:
        shown.print(f"Interrupted. {hint}".rstrip(), highlight=False, markup=False)
        return INTERRUPTED
    except ForeignCodeError as error:
        say_error(shown, str(error))
        if error.__cause__ is not None:
            text = "".join(_from_foreign_code(error.__cause__))
            shown.print(text, end="", highlight=False, markup=False, soft_wrap=True)
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        say_error(shown, str(error))
        return 1


def say_error(console: Console, text: str) -> None:
    """Print an error; paths and names in it are no markup."""
    from rich.markup import escape

    console.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)


def _from_foreign_code(error: BaseException) -> list[str]:
    """Return a traceback without this package's own frames above the user's code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames.tb_frame.f_globals.get("__name__", "")):
        frames = frames.tb_next
    return traceback.format_exception(type(error), error, frames)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("tying_agents", "tying_env", "importlib", "contextlib")
