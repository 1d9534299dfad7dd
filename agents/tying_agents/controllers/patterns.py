"""Fixed patterns of tying, as functions of the number of layers."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.partition import IntVector


def chance_groups(n_units: int) -> int:
    """Return the mean number of groups of uniformly random actions, rounded."""
    return round(partition.chance_independent_layers(n_units)[0])


def in_each_kind(kinds: Kinds, groups: int, make: Callable[[int, int], IntVector]) -> IntVector:
    """Return the action in which each kind is tied by a rule, shape (L,).

    Args:
        kinds: of the units.
        groups: of each kind. A kind that is smaller than the largest has at most as many as it has units.
        make: (units, groups) -> the tying of a kind.
    """
    largest = max(len(units) for units in kinds.members)
    return kinds.of_each(lambda n: make(n, groups if n == largest else min(groups, n)))


def random_of(kinds: Kinds, groups: int, rng: np.random.Generator) -> IntVector:
    """Draw an action in which each kind is tied at random, shape (L,).

    Args:
        kinds: of the units.
        groups: of each kind; 0 for as many as uniformly random actions have on average.
        rng: draws.

    Raises:
        ValueError: more groups than units of a kind.
    """
    return in_each_kind(kinds, groups, lambda n, g: partition.random_tying(n, g or chance_groups(n), rng))


def conventional(n_units: int) -> IntVector:
    """All layers independent: conventional training."""
    return np.arange(n_units)


def albert(n_units: int) -> IntVector:
    """All layers tied to layer 0 (Lan et al., ICLR 2020)."""
    return np.zeros(n_units, dtype=np.int64)


def cycle(n_units: int, groups: int = 0) -> IntVector:
    """Layers i and i + M tied: M layers, gone through again and again (paper, ablation vii; Takase & Kiyono, 2021).

    Args:
        n_units: L.
        groups: M; 0 for half of L, rounded up.

    Raises:
        ValueError: not 1 <= groups <= L.
    """
    return np.arange(n_units) % _half_or(groups, n_units)


def cycle_rev(n_units: int, groups: int = 0) -> IntVector:
    """As `cycle`, but the last M layers, or as many as are left of them, in reverse (paper, ablation viii).

    Args:
        n_units: L.
        groups: M; 0 for half of L, where layers i and L-1-i are tied, and for odd L the middle layer is alone.

    Raises:
        ValueError: not 1 <= groups <= L.
    """
    layers = np.arange(n_units)
    if groups == 0:
        return np.minimum(layers, n_units - 1 - layers)
    m = _half_or(groups, n_units)
    # Takase & Kiyono, Algorithm 1: the last of ceil(L / M) passes goes back.
    return np.where(layers < max(m, m * (math.ceil(n_units / m) - 1)), layers % m, m - 1 - layers % m)


def sequence(n_units: int, groups: int = 0) -> IntVector:
    """Consecutive layers tied, floor(L / M) of them at a time (paper, ablation ix).

    Args:
        n_units: L.
        groups: M; 0 for pairs, where for odd L the last layer is alone. Where M does not divide L, the layers that are
            left belong to the last group; `contiguous` shares them out.

    Raises:
        ValueError: not 1 <= groups <= L.
    """
    layers = np.arange(n_units)
    if groups == 0:
        return layers // 2 * 2
    length = n_units // _half_or(groups, n_units)
    return np.minimum(layers // length, groups - 1) * length


def _half_or(groups: int, n_units: int) -> int:
    if not 0 <= groups <= n_units:
        raise ValueError(f"groups must be from 0 to the number of layers {n_units}, got {groups}")
    return groups or (n_units + 1) // 2


def contiguous(n_units: int, groups: int) -> IntVector:
    """Runs of layers tied, of equal lengths or lengths that differ by one, the longer ones first.

    Raises:
        ValueError: not 1 <= groups <= L.
    """
    if not 1 <= groups <= n_units:
        raise ValueError(f"groups must be between 1 and the number of layers {n_units}, got {groups}")
    return np.concatenate([np.full(len(run), run[0]) for run in np.array_split(np.arange(n_units), groups)])


def periodic(n_units: int, period: int) -> IntVector:
    """Layers i and i + period tied: the trunk of `period` layers is gone through again and again.

    Raises:
        ValueError: not 1 <= period <= L.
    """
    if not 1 <= period <= n_units:
        raise ValueError(f"period must be between 1 and the number of layers {n_units}, got {period}")
    return np.arange(n_units) % period


def sandwich(n_units: int, untied_first: int, untied_last: int) -> IntVector:
    """A few independent layers first and last, one shared trunk between (Subformer: Reid et al., 2021).

    Raises:
        ValueError: the untied layers leave no trunk.
    """
    if untied_first < 0 or untied_last < 0 or untied_first + untied_last >= n_units:
        raise ValueError(
            f"untied_first and untied_last must leave a trunk between them, "
            f"got {untied_first} and {untied_last} of {n_units} layers"
        )
    layers = np.arange(n_units)
    trunk = (layers >= untied_first) & (layers < n_units - untied_last)
    return np.where(trunk, untied_first, layers)


def read_pattern(path: Path, n_units: int) -> IntVector:
    """Read a tying from a text file: L whole numbers between white space; an action will do.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold a valid action for L layers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no pattern file {path}")
    try:
        words = path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a pattern for {n_units} layers: it is not UTF-8 text ({error})") from error
    if len(words) != n_units or not all(word.isdecimal() for word in words):
        raise ValueError(
            f"{path} is not a pattern for {n_units} layers: it must hold {n_units} whole numbers, for each layer "
            f"the one whose weights it uses, got {len(words)} words: {' '.join(words[:20])!r}"
        )
    try:
        return partition.canonicalise(partition.validate_action([int(word) for word in words], n_units))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a pattern for {n_units} layers: {error}") from error
