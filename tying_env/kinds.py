"""Which units can share weights: those of one kind. And what actions are where there are several kinds. No torch.

A tying names units by their number among all, 0..L-1. An action counts within a kind instead: the entry of a unit that
has p units of its kind before it is one of 0..p, so every action of the space is a tying, and uniformly random actions
are uniform within each kind. Where all units are of one kind the two are the same.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.partition import IntVector

# The two parts of a block, in the order in which they are computed.
ATTENTION, FEED_FORWARD = "attention", "feed-forward"


class Kinds:
    """The kinds of L units.

    Args:
        lowest: for each unit the lowest one of its kind, shape (L,).
        names: of the kinds, in the order of their lowest units; none if they need no names.

    Attributes:
        lowest: as given, shape (L,).
        names: as given.
        position: how many units of its kind are before each unit, shape (L,).
        members: the units of each kind, in ascending order, kind by kind.

    Raises:
        ValueError: `lowest` does not name lowest units, or there are not as many names as kinds.
    """

    def __init__(self, lowest: npt.ArrayLike, names: Sequence[str] = ()) -> None:
        self.lowest: IntVector = np.array(lowest, dtype=np.int64)
        if not len(self.lowest) or not partition.is_tying(self.lowest):
            raise ValueError(f"the kinds must name the lowest unit of each unit's kind, got {self.lowest.tolist()}")
        self.members: list[IntVector] = [np.flatnonzero(self.lowest == i) for i in partition.leaders(self.lowest)]
        self.names = tuple(names)
        if self.names and len(self.names) != len(self.members):
            raise ValueError(f"there must be a name for each of {len(self.members)} kinds, got {self.names}")
        self.position: IntVector = np.zeros_like(self.lowest)
        for units in self.members:
            self.position[units] = np.arange(len(units))
        for array in (self.lowest, self.position):  # one object serves many environments
            array.setflags(write=False)

    @staticmethod
    @functools.lru_cache
    def alike(n_units: int) -> "Kinds":
        """Return the kinds of units that are all alike."""
        return Kinds(np.zeros(n_units, dtype=np.int64))

    @staticmethod
    @functools.lru_cache
    def one_after_the_other(sizes: tuple[int, ...], names: tuple[str, ...] = ()) -> "Kinds":
        """Return kinds of so many units each, all those of a kind before those of the next."""
        return Kinds(np.repeat(np.cumsum([0, *sizes[:-1]]), sizes), names)

    @classmethod
    def described(cls, about: Mapping[str, Any]) -> "Kinds":
        """Return the kinds of the units of a run.

        Args:
            about: its config.json.
        """
        if (found := about.get("kinds")) is not None:
            return cls(found["lowest"], found["names"])
        return cls.alike(int(about["env"]["n_layer"]))

    def description(self) -> dict[str, Any]:
        """Return what `described` reads, an entry of config.json: none where all are alike."""
        return {"kinds": {"lowest": self.lowest.tolist(), "names": list(self.names)}} if self.several else {}

    @property
    def n_units(self) -> int:
        """L, the number of units."""
        return len(self.lowest)

    @property
    def sizes(self) -> list[int]:
        """How many units each kind has."""
        return [len(units) for units in self.members]

    @property
    def counted(self) -> str:
        """What tables count: "layers"; "units" where kinds have names, of which a block has one each."""
        return "units" if self.names else "layers"

    @property
    def several(self) -> bool:
        """Whether there is more than one kind."""
        return len(self.members) > 1

    @property
    def choices(self) -> IntVector:
        """How many values the entry of each unit in an action has, shape (L,)."""
        return self.position + 1

    @property
    def open(self) -> IntVector:
        """The units that have a choice, in ascending order: all but the lowest of each kind."""
        return np.flatnonzero(self.position)

    def check_action(self, action: object) -> IntVector:
        """Return an action as whole numbers, shape (L,).

        Raises:
            TypeError: it is not made of whole numbers.
            ValueError: it does not hold L of them, or an entry names no unit of the kind up to the unit itself.
        """
        if not self.several:
            return partition.validate_action(action, self.n_units)
        vector = partition.whole_numbers(action, self.n_units)
        wrong = np.flatnonzero((vector < 0) | (vector > self.position))
        if len(wrong):
            i = int(wrong[0])
            whose = f" ({self.unit_named(i)})" if self.names else ""
            raise ValueError(
                f"action[{i}]{whose} must be one of 0..{self.position[i]}, counted within its kind, got {vector[i]}"
            )
        return vector

    def is_canonical(self, action: npt.ArrayLike) -> bool:
        """Tell whether this is a valid action that is the canonical one of its tying."""
        try:
            named = partition.canonicalise(self.units_named(self.check_action(action)))
        except (TypeError, ValueError):
            return False
        return bool(np.array_equal(self.action_for(named), np.asarray(action)))

    def units_named(self, action: IntVector) -> IntVector:
        """Return the units that the entries of an action stand for, by their numbers among all, shape (L,)."""
        if not self.several:
            return action
        named = np.empty_like(action)
        for units in self.members:
            named[units] = units[action[units]]
        return named

    def action_for(self, tying: IntVector) -> IntVector:
        """Return the action that leads to a tying, shape (L,): its canonical one, which is also what is observed."""
        return self.position[tying]

    def uniform_action(self, rng: np.random.Generator) -> IntVector:
        """Draw an action, all equally likely, shape (L,): the exploration of Eq. 2."""
        return rng.integers(0, self.choices, dtype=np.int64)

    def of_each(self, make: Callable[[int], npt.ArrayLike]) -> IntVector:
        """Return the action in which each kind is tied as `make` says of its number of units, shape (L,)."""
        action = np.zeros(self.n_units, dtype=np.int64)
        for units in self.members:
            action[units] = partition.canonicalise(make(len(units)))
        return action

    def tyings(self, tying: npt.ArrayLike) -> list[IntVector]:
        """Return the tying of each kind, counted within it."""
        counted = self.position[np.asarray(tying)]
        return [counted[units] for units in self.members]

    def unit_named(self, unit: int) -> str:
        """Return a unit in words: "attention 3"; its number where kinds have no names."""
        kind = int(np.flatnonzero([self.lowest[unit] == units[0] for units in self.members])[0])
        return f"{self.names[kind]} {self.position[unit]}" if self.names else str(unit)
