"""One training run on several processes: who is there, and gradients that travel for leaders only.

Every process holds the whole network, applies the same tyings and trains on its share of every batch. torch's
DistributedDataParallel averages the gradients. It learns its Parameters when it is built, so it is built again when
a change of the tying has changed the leaders.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tying_env.partition import IntVector

TIMEOUT = timedelta(minutes=10)  # a process that says nothing for so long is lost


class World(NamedTuple):
    """The processes of a run."""

    rank: int  # this process
    size: int  # all of them

    def share(self, n: int) -> slice:
        """Return this process's rows of a batch of n."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)


class LostProcess(RuntimeError):
    """Another process of the run has died or gone silent."""


def world() -> World:
    """Return the processes that have joined; one alone where none have."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World(0, 1)


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if world().size > 1:
        with naming_the_loss():
            dist.barrier()


def local_device(name: str) -> str:
    """Return the device of this process: of several on a machine, each takes the GPU of its number.

    Raises:
        ValueError: fewer GPUs than processes.
    """
    if world().size == 1 or not torch.cuda.is_available() or name not in ("auto", "cuda"):
        return name
    return f"cuda:{_local_gpu()}"


def _local_gpu() -> int:
    local = int(os.environ["LOCAL_RANK"])
    if local >= torch.cuda.device_count():
        raise ValueError(
            f"process {local} of this machine has no GPU of its own ({torch.cuda.device_count()} are there): "
            "start fewer with --nproc-per-node, or use --device cpu"
        )
    return local


@contextlib.contextmanager
def joined(on_cpu: bool) -> Iterator[World]:
    """Join the processes that torchrun has started; alone, where it has not.

    Raises:
        ValueError: fewer GPUs than processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield World(0, 1)
        return
    backend = "gloo" if on_cpu or not torch.cuda.is_available() else "nccl"
    if backend == "nccl":
        torch.cuda.set_device(_local_gpu())
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield world()
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def naming_the_loss() -> Iterator[None]:
    """Turn what the backends say of a broken connection into a `LostProcess`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if not isinstance(error, dist.DistError) and not any(word in text for word in ("gloo", "nccl", "peer")):
            raise
        raise LostProcess(
            f"process {world().rank} of {world().size} lost contact with another process of this run, which has died "
            f"or gone silent; all of them end here ({error})"
        ) from error


def agreed_number(value: float) -> float:
    """Return the number that process 0 has, so that all continue alike."""
    return _from_the_first([value])[0] if world().size > 1 else value


def agreed_action(action: IntVector) -> IntVector:
    """Return the action that process 0 has chosen, shape (L,)."""
    return np.array(_from_the_first(action.tolist()), dtype=action.dtype) if world().size > 1 else action


def agreed_stop(should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that says yes in every process once `should_stop` does in any.

    A signal may reach one process alone, or several not between the same two training steps.
    """
    if world().size == 1:
        return should_stop
    return lambda: bool(_exchanged([float(should_stop())], lambda flag: dist.all_reduce(flag, dist.ReduceOp.MAX))[0])


def summed(value: float) -> float:
    """Return the sum of what the processes have."""
    return _exchanged([value], dist.all_reduce)[0] if world().size > 1 else value


def _from_the_first(numbers: Sequence[float]) -> list[float]:
    return _exchanged(numbers, lambda values: dist.broadcast(values, 0))


def _exchanged(numbers: Sequence[float], exchange: Callable[[Tensor], object]) -> list[float]:
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None
    values = torch.tensor(numbers, dtype=torch.float64, device=device)
    with naming_the_loss():
        exchange(values)
        received: list[float] = values.tolist()
    return received


class _Loss(nn.Module):
    """A model and its task as one module: from a batch to a loss."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)


class DataParallel:
    """Losses whose backward pass averages the gradients of the given Parameters over all processes.

    Args:
        model: the network; equal in all processes.
        loss: from the model and a batch to a mean loss.
    """

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        self._module = _Loss(model, loss)
        self._wrapped: DistributedDataParallel | None = None
        self._trained: list[int] = []
        self._sent = 0  # bytes, in the running step
        self.bytes_per_step = 0  # of gradients that this process gave into the average in the last step

    def loss(self, batch: Any, trained: Sequence[nn.Parameter], last: bool) -> Tensor:
        """Return the loss of this process's share.

        Args:
            batch: the share, or a part of it.
            trained: the Parameters that train; if the set has changed, the wrapper is built again.
            last: whether this is the last part of the share: gradients travel with the last one.

        Raises:
            LostProcess: another process has died.
        """
        with naming_the_loss():  # the wrapper speaks to the others when it is made, and before its first forward pass
            if self._wrapped is None or self._trained != [id(p) for p in trained]:
                self._wrap(trained)
            assert self._wrapped is not None
            with contextlib.nullcontext() if last else self._wrapped.no_sync():
                loss: Tensor = self._wrapped(batch)
        return loss

    def backward(self, loss: Tensor, last: bool) -> None:
        """Run the backward pass; after the last part's, the gradients are averages.

        Raises:
            LostProcess: another process has died.
        """
        assert self._wrapped is not None
        with naming_the_loss(), contextlib.nullcontext() if last else self._wrapped.no_sync():
            loss.backward()
        if last:
            self.bytes_per_step, self._sent = self._sent, 0

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        values = values.clone()
        with naming_the_loss():
            dist.all_reduce(values)
        return values / world().size

    def _wrap(self, trained: Sequence[nn.Parameter]) -> None:
        kept = {id(p) for p in trained}
        # Followers under the leader's gradient and frozen layers take none: they are no concern of the wrapper.
        ignored = [name for name, p in self._module.named_parameters(remove_duplicate=False) if id(p) not in kept]
        ignored += [
            name for name, _ in self._module.named_buffers()
        ]  # each process has its own; those of process 0 are saved
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self._module, ignored)
        for parameter in trained:
            parameter.grad = None
        self._wrapped = DistributedDataParallel(
            self._module,
            gradient_as_bucket_view=True,  # else every gradient would be held twice
            init_sync=False,  # the processes are equal already: same seed, same tyings
        )
        self._wrapped.register_comm_hook(None, self._average)
        self._trained = [id(p) for p in trained]

    def _average(
        self,
        _: object,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # torch's stubs lack it, and torch checks for it
    ) -> torch.futures.Future[Tensor]:
        buffer = bucket.buffer()
        self._sent += buffer.numel() * buffer.element_size()
        buffer.div_(world().size)
        future: Any = dist.all_reduce(buffer, async_op=True)
        result: torch.futures.Future[Tensor] = future.get_future().then(lambda done: done.value()[0])
        return result
