"""Where many runs are made: local processes, or an existing Ray or Dask cluster, all through joblib."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tying_agents.many.plan import CLUSTERS, Backend, import_backend
from tying_agents.many.threads import computing_on
from tying_agents.stopping import begin_worker


def in_parallel(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    on_done: Callable[[int], None],
    *,
    backend: Backend,
    address: str | None,
    jobs: int,
    threads: int,
) -> None:
    """Call a function with each of the arguments, several at a time.

    Args:
        function: what to call; on a cluster it must be importable there.
        calls: arguments, a tuple each.
        on_done: is told after each how many are done; from any thread.
        backend: where.
        address: of the cluster's scheduler; None for what the environment says.
        jobs: calls at a time; a Dask cluster uses all its workers.
        threads: CPU threads of each call; in this process, where a single job runs, they are as before afterwards.

    Raises:
        OSError: there is no cluster at the address.
        Exception: whatever a call raised.
    """
    if not calls:
        return
    from joblib import Parallel, delayed, parallel_config

    class Telling(Parallel):  # type: ignore[misc]
        # Where joblib finds a single worker it makes the calls right here; a cluster of one is a cluster, too.
        def _initialize_backend(self) -> int:
            found: int = super()._initialize_backend()
            return max(2, found) if backend == "dask" else found

        # joblib calls this after each batch on every backend; Ray's has no generator of results to count by.
        def print_progress(self) -> None:
            on_done(self.n_completed_tasks)

    with _connected(backend, address) as settings:
        if backend == "loky":
            settings |= {"inner_max_num_threads": threads, "initializer": begin_worker, "initargs": (os.getpid(),)}
        with parallel_config(backend=backend, n_jobs=jobs, **settings):
            Telling(batch_size=1)(delayed(_call)(function, threads, call) for call in calls)


# joblib makes the calls of a single job in the caller's process, and knows nothing of a cluster's threads.
def _call(function: Callable[..., Any], threads: int, call: tuple[Any, ...]) -> Any:
    with computing_on(threads):
        return function(*call)


def end_workers() -> None:
    """End the local processes that wait for more calls, if there are any."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True).shutdown(wait=True)


@contextlib.contextmanager
def _connected(backend: Backend, address: str | None) -> Iterator[dict[str, Any]]:
    """Connect to a cluster; yield what joblib has to be told of it."""
    if backend == "ray":
        ray = import_backend("ray")
        ray.init(address=address or os.environ[CLUSTERS["ray"][1]], log_to_driver=False, ignore_reinit_error=True)
        import_backend("ray", "util.joblib").register_ray()
        try:
            yield {}
        finally:
            ray.shutdown()
    elif backend == "dask":
        with import_backend("distributed").Client(address or os.environ[CLUSTERS["dask"][1]]) as client:
            yield {"client": client}
    else:
        yield {}
