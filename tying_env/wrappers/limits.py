"""Limits on how the tying changes: how many of its entries in a decision, and until when.

Both wrappers take whole tying vectors and hand on others, so a wrapper of one-layer actions goes around them. What is
observed is the tying in force, as ever: not the one that was asked for. They remember nothing. What they do follows
from the state of the environment, so a step that was stopped, called again, continues as it would have, in another
process, too.
"""

import math
from typing import Any

import gymnasium as gym
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from tying_env import partition
from tying_env.environment import check_whole
from tying_env.partition import IntVector
from tying_env.seeding import check_seed, numpy_stream
from tying_env.wrappers.base import AnyEnv, check_finite, check_vector_actions, tying_env_below


class LimitChanges(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Let at most `max_changes` entries of the tying change in a decision.

    Where an action asks for more, its changes are taken up one layer after the other, in random order, each unless more
    entries than that would differ from the tying in force. A change carries the followers of its layer along (Eq. 1),
    and they count: a leader of many may be bound to stay. All orders of the layers are equally likely, so that low
    layers are not preferred; the order follows from `seed`, the seed of the last `reset`, and the number of the
    decision.

    The first decision counts from the tying that the frozen start reports, all zeros.

    Example (4 layers):
        >>> env = LimitChanges(make(), max_changes=1)
        >>> observation, info = env.reset(seed=0, options={"tying": [0, 1, 1, 1]})
        >>> asked = [0, 1, 2, 3]  # two entries would change
        >>> observation = env.step(asked)[0]
        >>> int((observation != [0, 1, 1, 1]).sum())
        1
        >>> env.step(observation)[0].tolist() == observation.tolist()  # nothing to limit
        True

    Args:
        env: a TyingEnv, wrapped or not, whose actions are vectors.
        max_changes: entries of the tying that may change in a decision.
        seed: tells choices under one and the same seed of the environment apart.

    Raises:
        TypeError: it is not a TyingEnv.
        ValueError: its actions are no vectors, it has fewer than 2 layers, or a setting is not a whole number of at
            least 1 (`max_changes`) or 0 (`seed`).
    """

    def __init__(self, env: AnyEnv, max_changes: int = 1, seed: int = 0) -> None:
        RecordConstructorArgs.__init__(self, max_changes=max_changes, seed=seed)
        gym.ActionWrapper.__init__(self, env)
        check_vector_actions(type(self).__name__, env)
        self._most = check_whole("max_changes", max_changes, 1)
        self._name = f"changes kept {check_seed(seed)}"

    def action(self, action: npt.ArrayLike) -> IntVector:
        """Return an action whose tying has at most `max_changes` entries changed, shape (L,).

        Raises:
            TypeError, ValueError: not a valid action.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        env = tying_env_below(self)
        before, asked = env.tying, partition.canonicalise(env.permitted(action))
        if int((asked != before).sum()) <= self._most:
            return env.kinds.action_for(asked)
        kept = before
        for layer in self._order(env.np_random_seed, env.decisions, len(asked)):
            taken_up = kept.copy()
            taken_up[layer] = asked[layer]
            taken_up = partition.canonicalise(taken_up)
            if int((taken_up != before).sum()) <= self._most:
                kept = taken_up
        return env.kinds.action_for(kept)

    def _order(self, reset_seed: int | None, decisions: int, n_units: int) -> list[int]:
        # A stream for each decision: one for all would have to be wound back when a step is stopped.
        known = max(reset_seed or 0, 0)  # Gymnasium says -1 of a generator that was put there by hand
        order: list[int] = numpy_stream(known, f"{self._name} at {decisions}").permutation(n_units).tolist()
        return order


class SettleTying(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Keep the tying as it is once a share of the training steps is done, whatever the actions say.

    It takes effect with the first decision that would be applied at or after `after` x `total_steps` training steps,
    those of trials included.
    Rewards and observations stay as before; only actions have no effect any more. If that is the very first decision
    (`after=0`), it is the tying that the frozen start reports, all zeros, that stays.

    Example (4 layers, 20 training steps, k = 2):
        >>> env = SettleTying(make(), after=0.2)
        >>> observation, info = env.reset(seed=0)
        >>> env.step([0, 1, 1, 3])[0]  # applied after 2 training steps
        array([0, 1, 1, 3])
        >>> env.step([0, 0, 2, 2])[0]  # after 4: settled
        array([0, 1, 1, 3])

    Args:
        env: a TyingEnv, wrapped or not, whose actions are vectors.
        after: share of `total_steps`, from 0 to 1; 1 never settles.

    Raises:
        TypeError: it is not a TyingEnv.
        ValueError: its actions are no vectors, it has fewer than 2 layers, or `after` is not a number from 0 to 1.
    """

    def __init__(self, env: AnyEnv, after: float = 0.66) -> None:
        RecordConstructorArgs.__init__(self, after=after)
        gym.ActionWrapper.__init__(self, env)
        check_vector_actions(type(self).__name__, env)
        if not 0 <= check_finite("after", after) <= 1:
            raise ValueError(f"after must be a share of the training steps, from 0 to 1, got {after!r}")
        # Less a hair: 0.07 x 100 is 7.000000000000001.
        self._settled_at = math.ceil(after * tying_env_below(env).total_steps - 1e-9)

    @property
    def settled(self) -> bool:
        """Whether the next action has no effect."""
        below = tying_env_below(self)
        return below.ties_at + below.trial_steps >= self._settled_at

    def action(self, action: npt.ArrayLike) -> IntVector:
        """Return the action, or that which keeps the tying once it is settled, shape (L,).

        Raises:
            TypeError, ValueError: not a valid action.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        env = tying_env_below(self)
        asked = env.kinds.check_action(action)
        return env.kinds.action_for(env.tying) if self.settled else asked
