"""Many calls that a signal ends in order, each after what it is doing: for work that is kept piece by piece."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

from tying_agents.many.cluster import end_workers, in_parallel
from tying_agents.many.plan import Backend
from tying_agents.stopping import StopFile, StoppedBySignal, StopSignals


def call_until_stopped(
    function: Callable[..., None],
    calls: Sequence[tuple[Any, ...]],
    folder: Path,
    on_done: Callable[[int], None],
    note: Callable[[str], None],
    *,
    jobs: int,
    threads: int = 1,
    backend: Backend = "loky",
    address: str | None = None,
) -> None:
    """Call a function with each of the arguments, several at a time, until all are done or there is a signal.

    Args:
        function: what to call; a call that has not begun when the signal comes is left out.
        calls: arguments, a tuple each.
        folder: where workers see that they are to stop; it is there.
        on_done: is told after each how many are done; not after a signal.
        note: is told of a signal.
        jobs: calls at a time.
        threads: CPU threads of each call.
        backend: where, as `tying_agents.many.cluster.in_parallel`.
        address: of the cluster's scheduler.

    Raises:
        tying_agents.stopping.StoppedBySignal: there was a signal.
        Exception: as `in_parallel`.
    """
    stop = StopFile(folder / f"stop-{os.getpid()}")
    stop.path.unlink(missing_ok=True)
    try:
        with StopSignals(note, stop.tell) as signals:
            in_parallel(
                _call,
                [(stop, function, call) for call in calls],
                lambda done: None if stop.should_stop() else on_done(done),
                backend=backend,
                address=address,
                jobs=jobs,
                threads=threads,
            )
            if (asked := signals.asked or stop.asked) is not None:
                raise StoppedBySignal(asked)
    except BrokenExecutor:  # the signal may also end a worker that had not yet begun
        if stop.asked is None:
            raise
        raise StoppedBySignal(stop.asked) from None
    finally:
        stop.path.unlink(missing_ok=True)
        if jobs > 1:
            end_workers()


def _call(stop: StopFile, function: Callable[..., None], call: tuple[Any, ...]) -> None:
    if not stop.should_stop():
        function(*call)
