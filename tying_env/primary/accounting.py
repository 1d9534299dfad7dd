"""What a training holds: bytes in memory, and whether its numbers are finite."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class MemoryBytes(NamedTuple):
    """Bytes held by what is trained: each storage counted once, an optimizer's step counters left out."""

    weights: int
    gradients: int
    optimizer_state: int

    @property
    def total(self) -> int:
        """All three together."""
        return sum(self)


def count_memory(model: nn.Module, optimizer: torch.optim.Optimizer) -> MemoryBytes:
    """Count the bytes of weights, gradients and optimizer state that are held now."""
    parameters = [p for p in model.parameters() if not p.is_meta]  # values that are not held
    state = [
        value
        for parameter, entries in optimizer.state.items()
        for value in entries.values()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
    gradients = [p.grad for p in parameters if p.grad is not None]
    return MemoryBytes(_bytes(parameters), _bytes(gradients), _bytes(state))


@torch.no_grad()
def all_finite(parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether these weights and all optimizer state are finite.

    The optimizer's infinity does not show in the weights: an infinite second moment makes every update of AdamW zero.

    A sum is not finite if any term is not: the cheapest pass over the numbers that cannot miss one. (It also says no
    when finite numbers add up to more than the largest float, 3e38: training is lost by then as well.)
    """
    state = [value for entries in optimizer.state.values() for value in entries.values()]
    if not all(math.isfinite(value) for value in state if not isinstance(value, Tensor)):
        return False
    sums: dict[torch.device, list[Tensor]] = defaultdict(list)  # some optimizers count their steps on the CPU
    for tensor in (*parameters, *(value for value in state if isinstance(value, Tensor))):
        sums[tensor.device].append(tensor.sum())
    return all(bool(torch.stack(values).isfinite().all()) for values in sums.values())


def _bytes(tensors: Sequence[Tensor]) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
