"""Tasks with a known best tying: what each tying is worth, what the best is, and what chance gives, all exactly.

Chance is a uniformly random action. Layer i then joins one of the i layers before it, or none, all equally likely. That
is the Chinese restaurant process with concentration 1 (Aldous, 1985), from which three facts follow:

- layer i is independent with probability 1 / (i + 1);
- its leader is layer j < i with probability 1 / ((j + 1) (j + 2)), whatever i is;
- two layers share weights with probability 1/2, whichever they are.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.seeding import numpy_stream

Kind = Literal["independent", "additive", "pairwise"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SyntheticTask:
    """What tyings are worth: value(s) = sum over i of layer[i, s[i]] + sum over i < j of pair[i, j] where s[i] = s[j].

    Attributes:
        best_tying: none is worth more. # (L,)
        best: what it is worth.
        chance: what a uniformly random action is worth on average.
        layer: value of layer i with leader j. # (L, L)
        pair: value of layers i < j sharing weights; zero elsewhere. # (L, L)
        offset: what every tying is worth.
    """

    best_tying: partition.IntVector
    best: float
    chance: float
    layer: Matrix
    pair: Matrix
    offset: float = 0.0

    def value(self, tying: partition.IntVector) -> float:
        """Return what a tying in canonical form is worth, without noise."""
        by_layer = float(self.layer[np.arange(len(tying)), tying].sum())
        if not self.pair.any():
            return self.offset + by_layer
        together = tying[:, None] == tying  # (L, L)
        return self.offset + by_layer + float(self.pair[together].sum())

    def share(self, value: float) -> float:
        """Return where a value is between what chance gives, 0, and the best, 1."""
        return (value - self.chance) / (self.best - self.chance)


def make_task(kind: Kind, n_units: int, instance: int = 0) -> SyntheticTask:
    """Return a task. The values of all kinds are of the order of L.

    - "independent": the number of independent layers. All independent is best, L. There is one instance.
    - "additive": each layer's leader has a value of its own, uniform in [0, 1); a planted tying has the highest of
      every layer. So the best is every layer's best choice, and the layers can be learned apart.
    - "pairwise": L times how far the pairs of layers agree with a planted tying: half for the pairs tied there that are
      tied, half for those apart there that are apart; within a half a pair's weight is uniform in [0.5, 1.5). All
      layers tied, and all independent, are worth what chance is, L/2; the best is L. No layer can be judged without
      the others.

    The planted tying is drawn uniformly among those of round(sqrt(L)) groups, at least 2.

    Args:
        kind: see above.
        n_units: L, at least 2.
        instance: seed of the values and of the planted tying.
    """
    if kind == "independent":
        return _by_layer(np.eye(n_units), np.arange(n_units))
    rng = numpy_stream(instance, f"synthetic {kind}")
    planted = partition.random_tying(n_units, max(2, round(np.sqrt(n_units))), rng)
    if kind == "additive":
        values = np.tril(rng.random((n_units, n_units)))
        values[0] = 0.0  # layer 0 has no choice
        rows = np.arange(n_units)
        highest = values.argmax(axis=1)
        values[rows, planted], values[rows, highest] = values[rows, highest], values[rows, planted]
        return _by_layer(values, planted)
    tied = planted[:, None] == planted  # (L, L)
    weight = np.triu(rng.uniform(0.5, 1.5, (n_units, n_units)), 1)
    for_tied, for_apart = float(weight[tied].sum()), float(weight[~tied].sum())
    half = n_units / 2 if for_tied and for_apart else float(n_units)  # L = 2 has one pair
    pair = weight * np.where(tied, half / max(for_tied, 1e-300), -half / max(for_apart, 1e-300))
    offset = half if for_apart else 0.0
    return SyntheticTask(planted, float(n_units), offset + float(pair.sum()) / 2, np.zeros_like(pair), pair, offset)


def _by_layer(values: Matrix, best_tying: partition.IntVector) -> SyntheticTask:
    n_units = len(values)
    best = float(values[np.arange(n_units), best_tying].sum())
    return SyntheticTask(
        best_tying, best, float((values * leader_chances(n_units)).sum()), values, np.zeros_like(values)
    )


def leader_chances(n_units: int) -> Matrix:
    """Return how likely a uniformly random action makes layer j the leader of layer i, shape (L, L)."""
    j = np.arange(n_units)
    chances = np.tril(np.broadcast_to(1.0 / ((j + 1) * (j + 2)), (n_units, n_units)), -1)
    return chances + np.diag(1.0 / (j + 1))
