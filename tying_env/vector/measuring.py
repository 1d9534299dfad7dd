"""Measures many networks at once, each as `tying_env.primary.evaluation` measures one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tying_env.primary.dependence import Spread, input_dependence, merged, spread_of
from tying_env.primary.evaluation import ENOUGH_POSITIONS, Measurement

Look = Callable[[Tensor], None]


@torch.no_grad()
def measure_all(
    losses: Callable[[Tensor, Look | None], Tensor], windows: Tensor, batch_size: int, *, dependence: bool
) -> list[Measurement]:
    """Return what each network comes to on its windows.

    Args:
        losses: takes windows (N, B, T + 1) and what to show logits (N, positions, V), if anything; returns each
            network's mean loss in nats, (N,).
        windows: (N, W, T + 1).
        batch_size: windows of each computed at once.
        dependence: whether input dependence is asked for; on the first positions, as of a network alone.
    """
    total = torch.zeros(len(windows), dtype=torch.float64, device=windows.device)
    spreads: list[Spread | None] = [None] * len(windows)

    def look(logits: Tensor) -> None:
        spreads[:] = [merged(former, spread_of(own)) for former, own in zip(spreads, logits, strict=True)]

    for part in windows.split(batch_size, dim=1):
        enough = spreads[0] is not None and spreads[0].positions >= ENOUGH_POSITIONS
        total += losses(part, look if dependence and not enough else None).double() * part.shape[1]
    means = (total / windows.shape[1]).tolist()
    return [
        Measurement(mean if math.isfinite(mean) else math.inf, input_dependence=input_dependence(spread))
        for mean, spread in zip(means, spreads, strict=True)
    ]
