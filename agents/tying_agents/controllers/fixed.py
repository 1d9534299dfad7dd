"""Controllers that do not learn: chance, and fixed patterns of tying."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from tying_agents.controllers.base import Context, Controller, random_action
from tying_agents.controllers.patterns import (
    albert,
    chance_groups,
    contiguous,
    conventional,
    cycle,
    cycle_rev,
    in_each_kind,
    periodic,
    random_of,
    read_pattern,
    sandwich,
    sequence,
)
from tying_agents.settings import (
    GroupsConfig,
    NoSettings,
    PatternConfig,
    PeriodicConfig,
    RandomRedrawnConfig,
    SandwichConfig,
    SharedConfig,
)
from tying_env import partition
from tying_env.kinds import ATTENTION, FEED_FORWARD, Kinds
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy


class RandomController(Controller):
    """A uniformly random action at every decision: what a controller has to be better than."""

    chooses_intervals = True

    @classmethod
    def create(cls, settings: NoSettings, context: Context) -> Self:
        """Return a new one that draws from the run's stream."""
        return cls(context.kinds, context.rng(), len(context.intervals))

    def __init__(self, kinds: Kinds, rng: np.random.Generator, n_intervals: int = 0) -> None:
        self._kinds, self._rng, self._n_intervals = kinds, rng, n_intervals

    def act(self, observation: IntVector) -> IntVector:
        """Return one of the L! actions, and of the intervals where there are any, all equally likely."""
        return random_action(self._kinds, self._n_intervals, self._rng)

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
        self._settings, self._rng, self._kinds = settings, context.rng(), context.kinds
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
        return random_of(self._kinds, self._settings.groups, self._rng)


class FixedController(Controller):
    """One tying from the first training step to the last.

    Args:
        action: that leads to it, shape (L,).
        kinds: of the units; None: they are all alike.

    Raises:
        TypeError, ValueError: not a valid action.
    """

    def __init__(self, action: IntVector, kinds: Kinds | None = None) -> None:
        kinds = kinds or Kinds.alike(len(action))
        self._tying = kinds.action_for(partition.canonicalise(kinds.units_named(kinds.check_action(action))))

    def initial_tying(self) -> IntVector:
        """Return the pattern: it is in force from the start."""
        return self._tying.copy()

    def act(self, observation: IntVector) -> IntVector:
        """Return the pattern."""
        return self._tying.copy()


def make_conventional(settings: NoSettings, context: Context) -> FixedController:
    """Return a controller that keeps to `conventional`."""
    return _fixed(context, 0, lambda n, groups: conventional(n))


def make_albert(settings: NoSettings, context: Context) -> FixedController:
    """Return a controller that keeps to `albert`."""
    return _fixed(context, 0, lambda n, groups: albert(n))


def make_cycle(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `cycle`."""
    return _fixed(context, settings.groups, cycle)


def make_cycle_rev(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `cycle_rev`."""
    return _fixed(context, settings.groups, cycle_rev)


def make_sequence(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `sequence`."""
    return _fixed(context, settings.groups, sequence)


def make_random_static(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to one random tying."""
    return FixedController(random_of(context.kinds, settings.groups, context.rng()), context.kinds)


def make_contiguous(settings: GroupsConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `contiguous`."""
    return _fixed(context, settings.groups, lambda n, groups: contiguous(n, groups or chance_groups(n)))


def make_periodic(settings: PeriodicConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `periodic`."""
    return _fixed(context, settings.period, periodic)


def make_sandwich(settings: SandwichConfig, context: Context) -> FixedController:
    """Return a controller that keeps to `sandwich`."""
    first, last = settings.untied_first, settings.untied_last
    own = max(first + last, 0) + 1  # groups that leave a trunk
    return _fixed(context, own, lambda n, groups: sandwich(n, first, last) if groups == own else conventional(n))


def make_shared_attention(settings: SharedConfig, context: Context) -> FixedController:
    """Return a controller that shares attention and leaves every feed-forward part its own.

    Raises:
        ValueError: the units are not sublayers, or there are more groups than blocks.
    """
    return _one_shared(ATTENTION, settings, context)


def make_shared_feed_forward(settings: SharedConfig, context: Context) -> FixedController:
    """Return a controller that shares feed-forward parts and leaves every attention its own.

    Raises:
        ValueError: the units are not sublayers, or there are more groups than blocks.
    """
    return _one_shared(FEED_FORWARD, settings, context)


def make_pattern(settings: PatternConfig, context: Context) -> FixedController:
    """Return a controller that keeps to the tying in a file.

    Raises:
        ValueError: no file is named, as `read_pattern`, or it ties units of two kinds.
        FileNotFoundError: the file is not there.
    """
    if settings.pattern is None:
        raise ValueError("the agent 'pattern' needs --pattern FILE, a text file with the tying")
    tying, kinds = read_pattern(settings.pattern, context.n_units), context.kinds
    if len(crossing := np.flatnonzero(kinds.lowest[tying] != kinds.lowest)):
        i = int(crossing[0])
        raise ValueError(
            f"{settings.pattern} ties {kinds.unit_named(i)} (number {i} of all) to {kinds.unit_named(int(tying[i]))} "
            f"(number {tying[i]}), which is of another kind"
        )
    return FixedController(kinds.action_for(tying), kinds)


def _fixed(context: Context, groups: int, make: Callable[[int, int], IntVector]) -> FixedController:
    return FixedController(in_each_kind(context.kinds, groups, make), context.kinds)


def _one_shared(shared: str, settings: SharedConfig, context: Context) -> FixedController:
    kinds = context.kinds
    if shared not in kinds.names:
        raise ValueError(f"to share {shared} alone it must be a unit of its own: use units='sublayers'")
    action = kinds.position.copy()
    for name, units in zip(kinds.names, kinds.members, strict=True):
        groups = settings.groups if name == shared else settings.other_groups or len(units)
        action[units] = contiguous(len(units), groups)
    return FixedController(action, kinds)
