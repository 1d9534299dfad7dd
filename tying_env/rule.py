"""The rule of tying, for every way of computing: what a change does to weights, and who trains. NumPy only.

    W'[i] = W[s'[i]]    for every layer i, a change from tying s to s', W[i] the weights layer i computed with before

`tied_blocks` carries it out on the Parameters of one network, `vector` on rows of the weights of many. Neither decides
anything about it: whose weights, whose optimizer state, which learning rate is asked here.

The frozen start (Algorithm 1, line 2) is the exception of the rule: its tying is reported as all zeros, but every layer
computes with initial values of its own.

Source: Hay & Wolf, ICLR 2024, Sec. 3 and Algorithm 1 lines 2 and 10-19.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.partition import IntVector

GroupLR = Literal["none", "sqrt", "linear"]


def origins(before: npt.ArrayLike, frozen: bool, after: npt.ArrayLike) -> dict[int, int]:
    """Return for each leader of `after` the layer whose weights it takes over.

    That is the leader itself where it keeps its own, untouched; otherwise it takes a copy, and with it the optimizer
    state, if that is inherited.

    Args:
        before: the tying in force, canonical. # (L,)
        frozen: whether `before` is the frozen start, where every layer holds weights of its own.
        after: the tying to put in force, canonical. # (L,)
    """
    former = np.asarray(before).tolist()
    return {leader: leader if frozen else former[leader] for leader in partition.leaders(after)}


def trained(tying: npt.ArrayLike, frozen: bool = False, kinds: npt.ArrayLike | None = None) -> dict[int, list[int]]:
    """Return the layers whose weights train, each with the layers that move with it, itself first.

    Args:
        tying: canonical. # (L,)
        frozen: whether this is the frozen start, where only the lowest layer of each kind trains, and alone.
        kinds: for each layer the lowest one of its kind; None: all are of one kind. # (L,)
    """
    if frozen:
        return {leader: [leader] for leader in partition.leaders(np.zeros_like(tying) if kinds is None else kinds)}
    return partition.groups(tying)


def sources(tying: npt.ArrayLike, frozen: bool) -> IntVector:
    """Return for each layer the layer whose weights it computes with, shape (L,)."""
    return np.arange(len(np.asarray(tying))) if frozen else np.array(tying, dtype=np.int64)


def lr_divisor(group_lr: GroupLR, size: int) -> float:
    """Return what the learning rate of a group of `size` layers is divided by."""
    return {"none": 1.0, "sqrt": math.sqrt(size), "linear": float(size)}[group_lr]
