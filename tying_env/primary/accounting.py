"""What a training holds: bytes in memory, and whether its numbers are finite."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor, nn

from tying_env import partition
from tying_env.primary.models import PrimaryNetwork
from tying_env.slots import TiedParameters, get, slots


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


def count_by_shapes(network: PrimaryNetwork, tying: npt.ArrayLike, only: TiedParameters) -> int:
    """Return how many parameters of an untied network would train where its units are tied so, shape (L,).

    Args:
        network: whose weights need no values.
        tying: shape (L,).
        only: what of a unit is tied.
    """
    everything = sum(p.numel() for p in network.model.parameters() if p.requires_grad)
    leaders = set(partition.leaders(tying))
    followers = [slots(unit, only) for i, unit in enumerate(network.units) if i not in leaders]
    return everything - sum(p.numel() for places in followers for p in dict.fromkeys(map(get, places.values())))


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
