"""Tying vectors and the set partitions they stand for. NumPy only.

Words (all vectors have length L, layers are counted from 0):

- action a: `0 <= a[i] <= i`; `a[i] == i` makes layer i independent, `a[i] < i` makes it copy layer `a[i]`.
- tying s, the canonical form: `s[i]` is the lowest layer that has the same weights as layer i (paper, Sec. 3).
- leader: a layer with `s[i] == i`; follower: any other; group: a leader with its followers.

Every set partition of the L layers is exactly one tying, so there are Bell(L) tyings for L! actions.

Source: Hay & Wolf, "Dynamic Layer Tying for Parameter-Efficient Transformers", ICLR 2024, Sec. 3 and Algorithm 1.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntVector = npt.NDArray[np.int64]


class TyingEvents(NamedTuple):
    """How many layers changed state between two tyings (paper, Fig. 2)."""

    tied: int
    untied: int


def validate_action(action: object, n_units: int) -> IntVector:
    """Return `action` as a fresh int64 vector, shape (L,), after checking every entry.

    Args:
        action: anything NumPy can read as a vector of whole numbers.
        n_units: L, the number of layers.

    Raises:
        TypeError: the entries are not integers (floats are refused even when whole: they hint at a mistake upstream).
        ValueError: wrong length, or an entry outside `0 <= action[i] <= i`; the message names layer and value.
    """
    vector = whole_numbers(action, n_units)
    outside = np.flatnonzero((vector < 0) | (vector > np.arange(n_units)))
    if outside.size:
        i = int(outside[0])
        raise ValueError(
            f"action[{i}] is {vector[i]}, expected 0 <= action[{i}] <= {i}: "
            f"a layer is independent ({i}) or copies an earlier one"
        )
    return vector


def whole_numbers(action: object, n_units: int) -> IntVector:
    """Return `action` as a fresh int64 vector, shape (L,), whatever its entries are.

    Raises:
        TypeError: the entries are not integers.
        ValueError: wrong length.
    """
    try:
        array = np.asarray(action)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"action must be a vector of {n_units} integers, got {type(action).__name__} {action!r}"
        ) from error
    if array.shape != (n_units,):
        raise ValueError(
            f"action must have one entry per layer, shape ({n_units},); got shape {array.shape} from {action!r}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"action must hold integers, got dtype {array.dtype} in {action!r}")
    return array.astype(np.int64)


def canonicalise(action: npt.ArrayLike) -> IntVector:
    """Return the tying of an action, shape (L,): Eq. 1, `s[i] = i if a[i] == i else s[a[i]]`.

    Raises:
        TypeError, ValueError: as `validate_action`.
    """
    tying = validate_action(action, np.shape(action)[0] if np.ndim(action) == 1 else 0)
    for i, source in enumerate(tying.tolist()):
        if source != i:  # the entry of an earlier layer is canonical by now
            tying[i] = tying[source]
    return tying


def is_tying(vector: npt.ArrayLike) -> bool:
    """Tell whether `vector` is a valid action that is its own canonical form."""
    try:
        return bool(np.array_equal(canonicalise(vector), np.asarray(vector)))
    except (TypeError, ValueError):
        return False


def other_choices(tying: IntVector, layer: int) -> list[int]:
    """Return the entries of a layer that give another tying than this one, each another: leaders before it, itself.

    Args:
        tying: a tying. # (L,)
        layer: whose entry.
    """
    return [i for i in [*leaders(tying[:layer]), layer] if i != tying[layer]]


def uniform_random_action(n_units: int, rng: np.random.Generator) -> IntVector:
    """Draw one of the L! actions, all equally likely, shape (L,): the exploration of Eq. 2."""
    return rng.integers(0, np.arange(1, n_units + 1), dtype=np.int64)


def leaders(tying: npt.ArrayLike) -> list[int]:
    """Return the leaders in ascending order."""
    return [i for i, s in enumerate(np.asarray(tying).tolist()) if s == i]


def groups(tying: npt.ArrayLike) -> dict[int, list[int]]:
    """Return every group, leader -> its layers in ascending order (the leader first)."""
    members: dict[int, list[int]] = {}
    for i, leader in enumerate(np.asarray(tying).tolist()):
        members.setdefault(leader, []).append(i)
    return members


def events(before: npt.ArrayLike, after: npt.ArrayLike) -> TyingEvents:
    """Count the layers whose state changed from tying `before` to tying `after`.

    A tied event: the layer now copies another one. An untied event: it is now independent. (Paper, Sec. 4 and Fig. 2.)
    """
    old, new = np.asarray(before), np.asarray(after)
    changed, independent = new != old, new == np.arange(len(new))
    return TyingEvents(tied=int(np.sum(changed & ~independent)), untied=int(np.sum(changed & independent)))


def all_tyings(n_units: int) -> Iterator[IntVector]:
    """Yield every tying of L layers once, Bell(L) of them, in lexicographic order."""

    def extend(prefix: list[int]) -> Iterator[IntVector]:
        i = len(prefix)
        if i == n_units:
            yield np.array(prefix, dtype=np.int64)
            return
        for leader in leaders(prefix):
            yield from extend([*prefix, leader])
        yield from extend([*prefix, i])

    return extend([])


def random_tying(n_units: int, n_groups: int, rng: np.random.Generator) -> IntVector:
    """Draw one of the tyings with exactly `n_groups` groups, all equally likely, shape (L,).

    With S(n, g) partitions of n layers into g groups (Stirling), layer n-1 is alone in S(n-1, g-1) of the S(n, g), and
    else in any of g groups alike. Drawn from the last layer down, then the groups are named.

    Raises:
        ValueError: not 1 <= n_groups <= L.
    """
    if not 1 <= n_groups <= n_units:
        raise ValueError(f"n_groups must be between 1 and the number of layers {n_units}, got {n_groups}")
    count = [[0] * (n_groups + 1) for _ in range(n_units + 1)]  # S(n, g)
    count[0][0] = 1
    for n in range(1, n_units + 1):
        for g in range(1, n_groups + 1):
            count[n][g] = count[n - 1][g - 1] + g * count[n - 1][g]
    labels, g = np.zeros(n_units, dtype=np.int64), n_groups
    for n in range(n_units, 0, -1):
        if rng.random() < count[n - 1][g - 1] / count[n][g]:  # whole numbers too large for a float, but for their ratio
            g -= 1
            labels[n - 1] = g
        else:
            labels[n - 1] = rng.integers(g)
    return same_groups(labels)


def same_groups(labels: npt.ArrayLike) -> IntVector:
    """Return the tying in which layers with equal labels share weights, shape (L,)."""
    listed = np.asarray(labels).tolist()
    return np.array([listed.index(label) for label in listed], dtype=np.int64)


def permute(tying: npt.ArrayLike, order: npt.ArrayLike) -> IntVector:
    """Return the tying in which layer `order[i]` takes the place of layer i (paper, ablation iii), shape (L,)."""
    labels = np.empty(len(np.asarray(order)), dtype=np.int64)
    labels[np.asarray(order)] = np.asarray(tying)
    return same_groups(labels)


def bell_number(n: int) -> int:
    """Return Bell(n), the number of tyings of n layers, by the Bell triangle."""
    row = [1]
    for _ in range(n):
        following = [row[-1]]
        for value in row:
            following.append(following[-1] + value)
        row = following
    return row[0]


def chance_independent_layers(*sizes: int) -> tuple[float, float]:
    """Return mean and standard deviation of the number of leaders under a uniformly random action.

    Args:
        sizes: L; or where units are of several kinds, how many there are of each.

    Layer i is a leader with probability 1/(i+1), independently of the others: the mean is the harmonic number
    H_L = 1 + 1/2 + ... + 1/L and the variance is H_L - (1 + 1/4 + ... + 1/L^2).
    """
    chance = np.concatenate([1.0 / np.arange(1, n_units + 1) for n_units in sizes])
    return float(chance.sum()), float(np.sqrt((chance * (1 - chance)).sum()))
