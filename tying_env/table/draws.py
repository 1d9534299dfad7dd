"""Which seed's training an action sees: a number that follows from the episode's seed, the decision and the row.

A counter in place of a generator: forks, restored and batched environments see the same without any state, and it
costs less than a step may. The mixing is SplitMix64's (Steele, Lea & Flood, OOPSLA 2014).
"""

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draw(seed: int, decision: int, row: int, n_seeds: int) -> int:
    """Return a number below `n_seeds`, as good as uniform."""
    return _mixed(_mixed(_mixed(seed) ^ decision) ^ row) % n_seeds


def draws(
    seeds: npt.NDArray[np.uint64], decision: int, rows: npt.NDArray[np.int64], n_seeds: int
) -> npt.NDArray[np.int64]:
    """Return the same as `draw` for each of N environments, shape (N,).

    Args:
        seeds: what `mixed` made of the seeds. # (N,)
        decision: its number, in all of them.
        rows: what is asked for. # (N,)
        n_seeds: of the table.
    """
    found = mixed(mixed(seeds ^ np.uint64(decision)) ^ rows.astype(np.uint64))
    return np.asarray(found % np.uint64(n_seeds), dtype=np.int64)


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return other numbers for the numbers, each as good as random."""
    values = values + np.uint64(_GOLDEN)  # wraps, as it should
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)


def _mixed(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)
