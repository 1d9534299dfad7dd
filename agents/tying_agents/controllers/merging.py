"""Merge what is alike: begin with all layers independent, and tie the two groups that are most alike, one by one.

The other way round than sharing first and splitting later (`tying_agents.controllers.splitting`). What groups take that
are merged is the environment's `later_tying`: the leader's weights, or the mean.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tying_agents.controllers.base import Context, Controller
from tying_agents.controllers.patterns import chance_groups
from tying_agents.settings import MergeConfig
from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy


class MergeAlike(Controller):
    """Tie two groups at a time, at equal intervals, until there are as few as wanted; then stay.

    It does not learn: it is a rule that looks at the network.
    """

    Settings = MergeConfig
    needs = frozenset({"gradients"})
    reads_tying = True

    def __init__(self, settings: MergeConfig, context: Context) -> None:
        self.config, self._kinds = settings, context.kinds
        largest = max(self._kinds.sizes)
        if settings.groups > largest:
            raise ValueError(f"groups must be at most the number of layers, {largest}, got {settings.groups}")
        self.wanted = [min(settings.groups or chance_groups(largest), size) for size in self._kinds.sizes]
        self.highest = 0.0  # cosine between the groups that were merged last
        self._rng = context.rng()
        self._begun = False
        self._env: Any = None

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return True: it plans by the training steps there are."""
        return True

    def initial_tying(self) -> IntVector:
        """Return all layers independent."""
        return self._kinds.position.copy()

    def bind(self, env: Any) -> None:
        """Take note of the environment to measure in."""
        self._env = env

    def begin(self) -> None:
        """Begin with another network."""
        self._begun, self.highest = False, 0.0

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying in force, or one with as many groups as there should be by now.

        Raises:
            ValueError: updates are to be compared, and the optimizer keeps no running mean of gradients.
        """
        env = self._env
        first, self._begun = not self._begun, True
        action = observation.copy()
        if first and self.config.by == "updates":
            env.update_agreement()  # refused before anything is trained
        if first or self._due(observation) <= 0:  # before the first decision nothing was trained
            return action
        if self.config.by == "gradients":
            if env.steps_of_agreement(self.config.windows or None) > env.steps_for_trials:
                return action
            alike = env.gradient_agreement(self.config.windows or None)
        elif self.config.by == "chance":
            alike = None
        else:
            alike = env.weight_agreement() if self.config.by == "weights" else env.update_agreement()
        for _ in range(self._due(observation)):
            measured = self._drawn(action) if alike is None else alike
            action, self.highest = merged(action, measured, self._kinds, self.wanted)
        return action

    def _drawn(self, action: IntVector) -> npt.NDArray[np.float64]:
        """Return how alike layers are by chance: a draw for each two groups, so that size does not tell."""
        return self._rng.random((len(action),) * 2)[np.ix_(action, action)]

    def _due(self, observation: IntVector) -> int:
        """Return how many groups more there are than there should be by now: from `start` to `until` they get fewer."""
        env, config = self._env, self.config
        passed = (env.ties_at + env.trial_steps) / env.total_steps
        share = (passed - config.start) / max(config.until - config.start, 1e-9)
        there = sum(len(partition.leaders(observation[units])) for units in self._kinds.members)
        surplus = self._kinds.n_units - sum(self.wanted)
        # Rounded, so that a merger is not put off by the last bit of a quotient.
        should = self._kinds.n_units - int(round(min(1.0, max(0.0, share)) * surplus, 9))
        return there - should

    def metrics(self) -> dict[str, float]:
        """Return the cosine between the groups that were merged last, unless chance merged them."""
        return {} if self.config.by == "chance" else {"agreement_when_merged": self.highest}

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured, whether there was a decision, and the state of the generator."""
        return {"begun": self._begun, "highest": self.highest, "rng": capture_numpy(self._rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self._begun, self.highest = state["begun"], state["highest"]
        if "rng" in state:  # checkpoints of before there was chance have none
            restore_numpy(self._rng, state["rng"])


def merged(
    action: IntVector, alike: npt.NDArray[np.float64], kinds: Kinds, wanted: list[int]
) -> tuple[IntVector, float]:
    """Return the action in which the two groups are one whose layers are most alike on average, and how alike they are.

    Args:
        action: canonical, shape (L,).
        alike: between each two layers, (L, L); what is not known counts as not alike.
        kinds: of the units; groups of one kind are merged.
        wanted: groups that each kind keeps.
    """
    best, found = -np.inf, action
    for units, least in zip(kinds.members, wanted, strict=True):
        own = action[units]
        leaders = partition.leaders(own)
        if len(leaders) <= least:
            continue
        within = np.nan_to_num(alike[np.ix_(units, units)], nan=-1.0)
        for place, lower in enumerate(leaders):
            for upper in leaders[place + 1 :]:
                mean = float(within[np.ix_(own == lower, own == upper)].mean())
                if mean > best:
                    best, found = mean, action.copy()
                    found[units] = partition.same_groups(np.where(own == upper, lower, own))
    return found, best
