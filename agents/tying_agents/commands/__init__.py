"""The commands: what `layer-tying`, `python -m tying_env` and scripts/*.py call.

Nothing heavy is imported before a command is at work: `--help` and refused options answer at once.
"""

import importlib
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

# Command -> its module, and what it does in a line.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "train one network while one agent ties its layers"),
    "compare": ("compare", "agents over seeds, one report"),
    "ablations": ("ablations", "the paper's Table 4"),
    "tune": ("tune", "search settings, with Optuna"),
    "smallest": ("smallest", "the smallest network that is as good as conventional training"),
    "report": ("report", "a report of runs that are there"),
    "evaluate": ("evaluate", "measure the network of a run on a split"),
    "align": ("align", "how far layers are aligned; heads and units in another order"),
    "generate": ("generate", "let the network of a run continue a text"),
    "finetune": ("finetune", "train networks of runs on GLUE"),
    "export": ("export", "export the network of a run"),
    "prune": ("prune", "prune the networks of runs: Wanda, magnitude"),
    "pack": ("pack", "pack the network of a run into so many bytes"),
    "reproduce": ("reproduce", "the paper's Table 1, in slices of a given time"),
    "control": ("control", "controllers on tasks whose best tying is known"),
    "studies": ("studies", "make the studies of docs/results"),
    "tabulate": ("tabulate", "train every tying of six layers: the tying table"),
    "leaderboard": ("leaderboard", "every agent on the tying table, as a page"),
    "pretrain": ("pretrain", "let a DQN learn on the tying table, for pretrained-dqn"),
    "findings": ("findings", "what the tying table says, as a page"),
    "benchmark": ("benchmark", "measure speed and memory, side by side"),
    "completion": ("completion", "print a completion script for the shell"),
}

INTERRUPTED = 130
# Packages that commands need and the environment does not.
EXTRAS = ("rich", "tensorboard", "tomli_w", "tyro", "jinja2", "joblib", "scipy")

# Where other processes take the CPUs, threads that wait for one of their own turn round for hundreds of milliseconds:
# at three runs of two threads on two CPUs a training step took 1.5 s, and 0.4 s with GNU's OpenMP told this. Intel's
# and LLVM's, which torch has on other systems, count milliseconds, 200 by themselves.
SHORT_WAITS = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}

# Commands whose result is what they print.
_PRINTS = frozenset({"align", "completion", "evaluate", "generate"})


def start(command: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run a command and return its exit code; Ctrl-C while it is still being imported ends it in a word.

    Args:
        command: a key of COMMANDS.
        argv: its arguments; the process's by default.
        prog: how the command was called, for its help text.
    """
    _leave_the_scripts()
    if not {"OMP_WAIT_POLICY", *SHORT_WAITS} & set(os.environ):
        os.environ.update(SHORT_WAITS)
    # A shell starts a command in the background with SIGINT ignored; who sends it to one means it.
    watches = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        signal.SIG_IGN,
    )
    if watches:
        signal.signal(signal.SIGINT, _end)
    try:
        module = importlib.import_module(f"tying_agents.commands.{COMMANDS[command][0]}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(f"error: this command needs {error.name}: pip install 'tying-env[run,compare]'", file=sys.stderr)
        return 1
    finally:
        if watches and signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    from tying_agents.commands.output import lasting_output

    words = _with_homes(sys.argv[1:] if argv is None else argv)
    with lasting_output() as lost:
        code: int = module.main(words, prog or f"layer-tying {command}")
    # A run that went on in silence is in its folder; what is only printed is gone.
    return 1 if code == 0 and lost() and (command in _PRINTS or "--print-config" in words) else code


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the command that the first argument names, and return its exit code.

    Args:
        argv: the command and its arguments; the process's by default.
        program: how this was called, "python -m tying_env"; the installed program by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from tying_env import __version__

        print(f"layer-tying {__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"layer-tying: there is no command {words[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return start(words[0], words[1:], f"{program or _installed_program()} {words[0]}")


def usage() -> str:
    """Return what `layer-tying --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: layer-tying COMMAND [OPTIONS]",
            "",
            "Dynamic layer tying: which layers of a transformer deserve weights of their own?",
            "",
            *lines,
            "",
            "layer-tying COMMAND --help lists the options of a command.",
        ]
    )


def _leave_the_scripts() -> None:
    """Take scripts/ off the path of imports, where Python puts it first: packages have its files' names, too.

    (torch imports a package `tabulate` where there is one, and would get scripts/tabulate.py.)
    """
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    if sys.path and sys.path[0] == folder and os.path.exists(os.path.join(folder, "run_agent.py")):
        del sys.path[0]


def _installed_program() -> str:
    """Return how the installed program was called: by its name, or by its path where the name does not find it."""
    name, program = "layer-tying", Path(sys.argv[0])
    if program.stem != name:  # called from Python
        return name
    found = shutil.which(name)
    return name if found and program.exists() and os.path.samefile(found, program) else shlex.quote(str(program))


# Options whose values are texts, and no paths.
_TEXTS = ("--prompt", "--label")


def _with_homes(words: Sequence[str]) -> list[str]:
    """Return words with the home folder for ~: shells do that for `--out ~/x`, not for `--out=~/x` or "~/x"."""
    found: list[str] = []
    for i, word in enumerate(words):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        before = words[i - 1] if i and not option else option
        known = before not in _TEXTS and (value == "~" or value.startswith("~/"))
        found.append(f"{option}{equals}{os.path.expanduser(value)}" if known else word)
    return found


def _end(signum: int, frame: FrameType | None) -> None:
    os.write(1, b"Interrupted.\n")
    os._exit(INTERRUPTED)
