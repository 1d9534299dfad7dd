"""Print a completion script for the shell.

source <(layer-tying completion bash)
autoload -U bashcompinit && bashcompinit && source <(layer-tying completion zsh)

It completes the commands, each command's options, and file names after them. zsh reads bash's form.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tyro

from tying_agents.commands import COMMANDS, guard, start
from tying_agents.commands.early import read_options

if TYPE_CHECKING:
    from rich.console import Console

_SCRIPT = """\
_layer_tying() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _layer_tying layer-tying
"""


@dataclass(frozen=True)
class Options:
    """Print a completion script for the shell."""

    shell: tyro.conf.Positional[Literal["bash", "zsh"]] = "bash"
    """Which shell."""


def main(argv: Sequence[str], prog: str = "layer-tying completion") -> int:
    """Print the script, and return the exit code."""

    def work(console: "Console") -> int:
        read_options(Options, argv, prog, __doc__)
        cases = [
            f'    {name}) options="{" ".join(options_in_help(name))}" ;;' for name in COMMANDS if name != "completion"
        ]
        print(_SCRIPT.format(commands=" ".join(COMMANDS), cases="\n".join(cases)), end="")
        return 0

    return guard.guarded(work)


def options_in_help(command: str) -> list[str]:
    """Return the options of a command, as its help text has them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        start(command, ["--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text.getvalue())))
