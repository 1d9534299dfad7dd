"""Controllers that do not learn: chance, and fixed patterns of tying."""

import math
from pathlib import Path
from typing import Any, Self

import numpy as np

from tying_agents.controllers.base import Context, Controller, random_action
from tying_agents.settings import (
    GroupsConfig,
    NoSettings,
    PatternConfig,
    PeriodicConfig,
    RandomRedrawnConfig,
    SandwichConfig,
)
from tying_env import partition
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy


class RandomController(Controller):
    """A uniformly random action at every decision: what a controller has to be better than."""

    chooses_intervals = True

    @classmethod
    def create(cls, settings: NoSettings, context: Context) -> Self:
        """Return a new one that draws from the run's stream."""
        return cls(context.n_units, context.rng(), len(context.intervals))

    def __init__(self, n_units: int, rng: np.random.Generator, n_intervals: int = 0) -> None:
        self.n_units, self._n_intervals = n_units, n_intervals
        self._rng = rng

    def act(self, observation: IntVector) -> IntVector:
        """Return one of the L! actions, and of the intervals where there are any, all equally likely."""
        return random_action(self.n_units, self._n_intervals, self._rng)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator."""
        return {"rng": capture_numpy(self._rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the generator."""
        restore_numpy(self._rng, state["rng"])


class RedrawnController(Controller):
    """A random tying with so many groups, and another one with as many every few decisions: what changing costs.

    Raises:
        ValueError: more groups than layers.
    """

    Settings = RandomRedrawnConfig

    def __init__(self, settings: RandomRedrawnConfig, context: Context) -> None:
        self._settings, self._rng, self._n_units = settings, context.rng(), context.n_units
        self._groups = settings.groups or chance_groups(context.n_units)
        self._left = settings.redraw_every  # decisions until another is drawn
        self._tying = self._draw()

    def initial_tying(self) -> IntVector | None:
        """Return the first tying, or None for the frozen start."""
        return self._tying.copy() if self._settings.from_start else None

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying in force, or another one when that is due."""
        if self._settings.redraw_every and self._left == 0:
            self._tying, self._left = self._draw(), self._settings.redraw_every
        self._left -= 1
        return self._tying.copy()

    def state_dict(self) -> dict[str, Any]:
        """Return the tying, how long it stays, and the state of the generator."""
        return {"rng": capture_numpy(self._rng), "tying": self._tying.tolist(), "left": self._left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        restore_numpy(self._rng, state["rng"])
        self._tying, self._left = np.array(state["tying"], dtype=np.int64), state["left"]

    def _draw(self) -> IntVector:
        return partition.random_tying(self._n_units, self._groups, self._rng)


class FixedController(Controller):
    """One tying from the first training step to the last.

    Raises:
        TypeError, ValueError: not a valid tying.
    """

    def __init__(self, tying: IntVector) -> None:
        self._tying = partition.canonicalise(tying)

    def initial_tying(self) -> IntVector:
        """Return the pattern: it is in force from the start."""
        return self._tying.copy()

    def act(self, observation: IntVector) -> IntVector:
        """Return the pattern."""
        return self._tying.copy()


def chance_groups(n_units: int) -> int:
    """Return the mean number of groups of uniformly random actions, rounded."""
    return round(partition.chance_independent_layers(n_units)[0])


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


def make_conventional(settings: NoSettings, context: Context) -> FixedController:
    """Return a controller that keeps to `conventional`."""
    return FixedController(conventional(context.n_units))


def make_albert(settings: NoSettings, context: Context) -> FixedController:
    """Return a controller that keeps to `albert`."""
    return FixedController(albert(context.n_units))


def make_cycle(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `cycle`."""
    return FixedController(cycle(context.n_units, settings.groups))


def make_cycle_rev(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `cycle_rev`."""
    return FixedController(cycle_rev(context.n_units, settings.groups))


def make_sequence(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `sequence`."""
    return FixedController(sequence(context.n_units, settings.groups))


def make_random_static(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to one random tying."""
    groups = settings.groups or chance_groups(context.n_units)
    return FixedController(partition.random_tying(context.n_units, groups, context.rng()))


def make_contiguous(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `contiguous`."""
    return FixedController(contiguous(context.n_units, settings.groups or chance_groups(context.n_units)))


def make_periodic(settings: PeriodicConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `periodic`."""
    return FixedController(periodic(context.n_units, settings.period))


def make_sandwich(settings: SandwichConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `sandwich`."""
    return FixedController(sandwich(context.n_units, settings.untied_first, settings.untied_last))


def make_pattern(settings: PatternConfig, context: Context) -> FixedController:
    """Return a controller that keeps to the tying in a file.

    Raises:
        ValueError: no file is named, or as `read_pattern`.
        FileNotFoundError: the file is not there.
    """
    if settings.pattern is None:
        raise ValueError("the agent 'pattern' needs --pattern FILE, a text file with the tying")
    return FixedController(read_pattern(settings.pattern, context.n_units))
