"""Which layers want something else of the weights that they share? Two rules that look, and give them their own.

Which do, the gradients tell: of the weights that a group shares, every layer has a gradient of its own
(`tying_env.primary.agreement`). Where two point apart, the layers hold each other back. Sharing weights at first and
unsharing them later is from Yang et al. (2021, arXiv 2110.03848), who choose the layers beforehand.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tying_agents.controllers.base import Context, Controller
from tying_agents.settings import ProbeConfig, SplitConfig
from tying_env import partition
from tying_env.partition import IntVector


class ShareThenSplit(Controller):
    """Split the group whose layers disagree most, one a decision, until enough are apart; then stay.

    It does not learn: it is a rule that looks at the network.
    """

    Settings = SplitConfig
    needs = frozenset({"gradients"})
    reads_tying = True

    def __init__(self, settings: SplitConfig, context: Context) -> None:
        if settings.groups > context.n_units:
            raise ValueError(f"groups must be at most the number of layers, {context.n_units}, got {settings.groups}")
        self.config = settings
        self.settled = False
        self.lowest = 1.0  # cosine within a group, when last measured
        self._n_units, self._decided = context.n_units, 0
        self._env: Any = None

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return True: it plans by the training steps there are."""
        return True

    def initial_tying(self) -> IntVector:
        """Return all layers tied, of each kind."""
        return np.zeros(self._n_units, dtype=np.int64)

    def bind(self, env: Any) -> None:
        """Take note of the environment to measure in."""
        self._env = env

    def begin(self) -> None:
        """Begin with another network."""
        self.settled, self.lowest, self._decided = False, 1.0, 0

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying in force, or with one group split in two."""
        env, config = self._env, self.config
        self._decided += 1
        late = env.ties_at + env.trial_steps >= config.until * env.total_steps
        if self.settled or late or self._decided == 1 or (self._decided - 1) % config.every:
            return observation.copy()  # nothing has been trained before the first decision
        enough = len(partition.leaders(env.tying)) >= (config.groups or self._n_units)
        if enough or env.steps_of_agreement(config.windows or None) > env.steps_for_trials:
            self.settled = True
            return observation.copy()
        tying: IntVector = self._split(env.tying, env.gradient_agreement(config.windows or None))
        action: IntVector = env.kinds.action_for(tying)
        return action

    def metrics(self) -> dict[str, float]:
        """Return the lowest cosine within a group that was measured last."""
        return {"agreement_when_split": self.lowest}

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured, and how often it was asked."""
        return {"settled": self.settled, "lowest": self.lowest, "decided": self._decided}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.settled, self.lowest, self._decided = state["settled"], state["lowest"], state["decided"]

    def _split(self, tying: IntVector, agreement: npt.NDArray[np.float64]) -> IntVector:
        """Return `tying` with that group split in which two layers agree least; `tying` if all agree well enough."""
        pair = most_apart(tying, agreement)
        self.lowest = 1.0 if pair is None else float(agreement[pair])
        if pair is None or self.lowest >= self.config.threshold:
            return tying.copy()
        return split(tying, agreement, *pair)


class ProbeThenTie(Controller):
    """Tie all layers in a trial, look which ones disagree there, and train with the groups found, from the start.

    The trial pays for itself with training steps of the run. It does not learn either.
    """

    Settings = ProbeConfig
    needs = frozenset({"forks", "gradients"})

    def __init__(self, settings: ProbeConfig, context: Context) -> None:
        if settings.groups > context.n_units:
            raise ValueError(f"groups must be at most the number of layers, {context.n_units}, got {settings.groups}")
        self.config = settings
        self.tying: IntVector | None = None  # what was found
        self.agreement: npt.NDArray[np.float64] | None = None  # (L, L), by which it was
        self._n_units, self._independent = context.n_units, context.kinds.position
        self._env: Any = None

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return True: it plans by the training steps there are."""
        return True

    def initial_tying(self) -> IntVector:
        """Return all layers independent: nothing is trained before the first decision, which is on the groups found."""
        return self._independent.copy()

    def bind(self, env: Any) -> None:
        """Take note of the environment to probe."""
        self._env = env

    def begin(self) -> None:
        """Begin with another network."""
        self.tying = self.agreement = None

    def act(self, observation: IntVector) -> IntVector:
        """Return the groups found; at the first decision find them.

        Raises:
            tying_env.budget.BudgetSpent: the run is too short for the trial.
        """
        if self.tying is None:
            trial, windows = self._env.fork(), self.config.windows or None
            together = np.zeros(self._n_units, dtype=np.int64)  # all of each kind
            for _ in range(max(1, round(self.config.share * self._env.total_steps / self._env.interval))):
                trial.step(together)
            self.agreement = trial.gradient_agreement(windows)
            self.tying = self._groups(self._env.permitted(together), self.agreement)
        action: IntVector = self._env.kinds.action_for(self.tying)
        return action

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        return {"tying": None if self.tying is None else self.tying.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.tying = None if state["tying"] is None else np.array(state["tying"], dtype=np.int64)

    def _groups(self, tying: IntVector, agreement: npt.NDArray[np.float64]) -> IntVector:
        """Return the groups that splitting leads to, whose layers agree, or of which there are enough."""
        while len(partition.leaders(tying)) < (self.config.groups or self._n_units):
            pair = most_apart(tying, agreement)
            if pair is None or agreement[pair] >= self.config.threshold:
                break
            tying = split(tying, agreement, *pair)
        return tying


def most_apart(tying: IntVector, agreement: npt.NDArray[np.float64]) -> tuple[int, int] | None:
    """Return the two layers of one group that agree least, the lower first; None if all layers are alone.

    Args:
        tying: shape (L,).
        agreement: cosines, (L, L), NaN where they are not known.
    """
    together = np.triu(tying[:, None] == tying[None, :], 1) & np.isfinite(agreement)
    if not together.any():
        return None
    i, j = np.unravel_index(int(np.argmin(np.where(together, agreement, np.inf))), agreement.shape)
    return int(i), int(j)


def split(tying: IntVector, agreement: npt.NDArray[np.float64], i: int, j: int) -> IntVector:
    """Return `tying` with the group of layers i and j split: each other layer of it goes with whom it agrees more.

    Args:
        tying: shape (L,), in canonical form.
        agreement: cosines, (L, L).
        i: a layer.
        j: another one, of the same group.
    """
    members = np.flatnonzero(tying == tying[i])
    with_j = members[np.nan_to_num(agreement[members, j], nan=-1) > np.nan_to_num(agreement[members, i], nan=-1)]
    parted = tying.copy()
    parted[with_j] = len(tying)  # a label that no group has
    return partition.same_groups(parted)
