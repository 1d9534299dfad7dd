"""Where many runs are made: local processes, or an existing Ray or Dask cluster, all through joblib."""

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from tying_agents.stop_file import begin_worker

Backend = Literal["loky", "ray", "dask"]

# Backend -> the package it needs, and the variable that its users name the scheduler with.
_CLUSTERS: dict[str, tuple[str, str]] = {
    "ray": ("ray", "RAY_ADDRESS"),
    "dask": ("distributed", "DASK_SCHEDULER_ADDRESS"),
}


def check_backend(backend: Backend, address: str | None) -> None:
    """Check that a backend is installed and has a cluster to go to; no connection is made.

    Raises:
        ValueError: no such backend, a cluster without an address, or an address that nothing is done with.
        ImportError: the backend's package is not installed; the message says what to install.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "loky":
        if address is not None:
            raise ValueError(f"address is for the backends ray and dask, got {address!r} with loky")
        return
    package, variable = _CLUSTERS[backend]
    if not (address or os.environ.get(variable)):
        raise ValueError(f"the backend {backend!r} needs a cluster: give its --address, or set {variable}")
    _import(package)


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
        threads: CPU threads of each call.

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
            Telling(batch_size=1)(delayed(function)(*call) for call in calls)


def end_workers() -> None:
    """End the local processes that wait for more calls, if there are any."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True).shutdown(wait=True)


@contextlib.contextmanager
def _connected(backend: Backend, address: str | None) -> Iterator[dict[str, Any]]:
    """Connect to a cluster; yield what joblib has to be told of it."""
    if backend == "ray":
        ray = _import("ray")
        ray.init(address=address or os.environ[_CLUSTERS["ray"][1]], log_to_driver=False, ignore_reinit_error=True)
        _import("ray", "util.joblib").register_ray()
        try:
            yield {}
        finally:
            ray.shutdown()
    elif backend == "dask":
        with _import("distributed").Client(address or os.environ[_CLUSTERS["dask"][1]]) as client:
            yield {"client": client}
    else:
        yield {}


def _import(package: str, module: str = "") -> Any:
    try:
        return importlib.import_module(f"{package}.{module}" if module else package)
    except ImportError as error:
        raise ImportError(f"this backend needs the package {package!r}: pip install {package}") from error
