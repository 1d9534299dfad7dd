"""What every environment of tyings offers beside Gymnasium's methods, with a network or without. No torch.

Wrappers, the loop of decisions and controllers go by `TyingEnv`, so they work in all of its subclasses:
`LayerTyingEnv`, which trains a network, and those that only look a tying's score up (`tying_env.scored`).
"""

from abc import abstractmethod
from collections.abc import Set

import gymnasium as gym
import numpy as np

from tying_env import partition
from tying_env.kinds import Kinds


class TyingEnv(gym.Env[partition.IntVector, partition.IntVector]):
    """An environment whose actions and observations are tying vectors, in episodes of a known length.

    Time is counted in training steps. Where nothing is trained, a decision counts as one.
    """

    @property
    @abstractmethod
    def n_units(self) -> int:
        """L, the length of an action and of the tying."""

    @property
    @abstractmethod
    def tying(self) -> partition.IntVector:
        """The tying in force, shape (L,)."""

    @property
    @abstractmethod
    def decisions(self) -> int:
        """Decisions made in this episode."""

    @property
    @abstractmethod
    def decisions_per_episode(self) -> int:
        """Decisions in a whole episode, if nothing diverges."""

    @property
    @abstractmethod
    def steps_per_decision(self) -> int:
        """Training steps between two decisions, where nothing else is chosen."""

    @property
    def interval(self) -> int:
        """Training steps after the next action."""
        return self.steps_per_decision

    @property
    @abstractmethod
    def train_step(self) -> int:
        """Training steps done in this episode."""

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Training steps in a whole episode."""

    @property
    @abstractmethod
    def ties_at(self) -> int:
        """Training step at which the next action is applied."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether the episode has ended, so that the next call must be reset()."""

    @property
    def trial_steps(self) -> int:
        """Training steps done in trials for this episode, which ends that much earlier; 0 where nobody makes any."""
        return 0

    @property
    def kinds(self) -> Kinds:
        """The kinds of the units: one, where nothing else is said."""
        return Kinds.alike(self.n_units)

    def permitted(self, action: object) -> partition.IntVector:
        """Check an action, and return for each unit the one that it copies by its number among all, shape (L,).

        That is the action itself where all units are of one kind; see `tying_env.kinds`.

        Raises:
            TypeError, ValueError: not a valid action.
        """
        kinds = self.kinds
        return kinds.units_named(kinds.check_action(action))


def tying_space(kinds: Kinds) -> gym.spaces.MultiDiscrete:
    """Return the space of actions, and of observations: `MultiDiscrete([1, 2, ..., L])` for units of one kind."""
    return gym.spaces.MultiDiscrete(kinds.choices)


def check_whole(name: str, value: object, least: int) -> int:
    """Return `value` as an int.

    Raises:
        ValueError: it is not a whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_keys(state: object, keys: Set[str]) -> None:
    """Check that a state is a dictionary with these keys.

    Raises:
        ValueError: it is not; the message names what it lacks.
    """
    if not isinstance(state, dict) or (missing := keys - set(state)):
        lacks = f"lacks {sorted(missing)[0]!r}" if isinstance(state, dict) else f"is a {type(state).__name__}"
        raise ValueError(f"the state must be a dictionary that state_dict gave; it {lacks}")
