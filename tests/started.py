"""Scripts and code started as processes of their own, forked from one that has imported what they need.

An interpreter takes seconds to import torch and what a run needs, a fork has it all. Everything else is as with
`subprocess`: signals, exit codes, sessions, pipes. What a script does while it imports is not seen here:
tests of that start an interpreter.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky.backend import context

ROOT = Path(__file__).parents[1]
SERVER: Any = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])


def server_pid() -> int:
    """Return the process that forks, and is the parent of what it has forked."""
    forkserver.ensure_running()
    pid: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


class Started:
    """A process that has been started; like `subprocess.Popen`, with one pipe for output and errors."""

    def __init__(
        self, work: Callable[..., object], *arguments: Any, new_session: bool = False, forks: bool = True
    ) -> None:
        ours, theirs = SERVER.Pipe(duplex=False)
        here = (theirs, (new_session, forks), dict(os.environ), os.getcwd(), work, arguments)
        self._process = SERVER.Process(target=_work, args=here, daemon=True)  # ends with the tests at the latest
        self._process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()), encoding="utf-8", errors="replace")
        ours.close()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None as long as it runs."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        """Return the exit code, or None."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 100) -> tuple[str, str]:
        """Read to the end, wait for the end, and return what was printed; what went to stderr is in it, too."""
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.append(self.stdout.read()), daemon=True)
        reader.start()
        deadline = time.monotonic() + timeout
        reader.join(timeout)
        self._process.join(max(0.0, deadline - time.monotonic()))
        if reader.is_alive() or self.returncode is None:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        self.stdout.close()
        return read[0], ""


def script(name: str, *arguments: object, new_session: bool = False, forks: bool = True) -> Started:
    """Start scripts/NAME with arguments; without `forks` joblib's workers are interpreters, as they are for users."""
    path = str(ROOT / "scripts" / name)
    return Started(_run_script, [path, *map(str, arguments)], new_session=new_session, forks=forks)


def code(text: str, *arguments: object, new_session: bool = False) -> Started:
    """Start Python code, as `python -c` does."""
    return Started(_run_code, text, ["-c", *map(str, arguments)], new_session=new_session)


def _run_script(argv: Sequence[str]) -> None:
    sys.argv = list(argv)
    runpy.run_path(argv[0], run_name="__main__")


def _run_code(text: str, argv: Sequence[str]) -> None:
    sys.argv = list(argv)
    exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})


def _work(
    out: Any,
    how: tuple[bool, bool],
    environment: dict[str, str],
    folder: str,
    work: Callable[..., object],
    arguments: Any,
) -> None:
    """Be a process of its own: its output, its session, its surroundings, and an end as an interpreter has it."""
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    out.close()
    sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))  # noqa: SIM115
    new_session, forks = how
    if new_session:
        os.setsid()
    if forks:
        warnings.filterwarnings("ignore", "`fork` start method", UserWarning)
        context.set_start_method("fork", force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined] # it may have children
    torch.set_num_threads(1)
    try:
        work(*arguments)
    finally:
        # multiprocessing ends with os._exit, which skips all this.
        with contextlib.suppress(AttributeError):
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
