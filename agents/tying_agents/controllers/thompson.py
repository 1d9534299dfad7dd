"""Thompson sampling over which pairs of layers are tied (Thompson, 1933; Agrawal & Goyal, 2013, arXiv 1209.3352).

What tying layers i and j costs is thought to be a number for each pair, and the log-perplexity of a tying the sum over
the pairs that it ties. A Bayesian linear regression holds what is known of these numbers. At a decision a set of them
is drawn from what is known, and the move that is best by it is tried beside the tying in force, on the same batches, so
that the trend of training cancels. The difference is learned from. The move is taken if it is better by the mean of
what is known then.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tying_agents.controllers.base import Context
from tying_agents.controllers.pair_costs import pair_costs
from tying_agents.controllers.patient import PatientSearch
from tying_agents.settings import ThompsonConfig
from tying_env.kinds import Kinds
from tying_env.partition import IntVector

Floats = npt.NDArray[np.float64]


class PairEffects:
    """Normal beliefs about what tying each pair costs, in nats of log-perplexity.

    Args:
        mean: of each pair before anything was seen, shape (P,).
        spread: standard deviation of each before anything was seen.
        noise: standard deviation of a difference between two trials.
    """

    def __init__(self, mean: Floats, spread: float, noise: float) -> None:
        self.noise = noise
        self.precision: Floats = np.zeros((len(mean), len(mean)))  # (P, P)
        np.fill_diagonal(self.precision, spread**-2.0)
        self.weighted: Floats = mean / spread**2  # precision times mean, (P,)

    @property
    def mean(self) -> Floats:
        """The mean of each pair's cost, shape (P,)."""
        return np.asarray(np.linalg.solve(self.precision, self.weighted), dtype=np.float64)

    def draw(self, rng: np.random.Generator) -> Floats:
        """Draw a cost for each pair, shape (P,)."""
        lower = np.linalg.cholesky(self.precision)
        around = np.linalg.solve(lower.T, rng.standard_normal(len(self.weighted)))
        return np.asarray(self.mean + around, dtype=np.float64)

    def learn(self, features: Floats, difference: float) -> None:
        """Learn that a change of the pairs, shape (P,), has changed the log-perplexity by so much."""
        self.precision = self.precision + np.outer(features, features) / self.noise**2
        self.weighted = self.weighted + features * difference / self.noise**2


class ThompsonSampling(PatientSearch[ThompsonConfig]):
    """Learn what tying each pair of layers costs, from moves that are tried beside the tying in force."""

    Settings = ThompsonConfig

    def __init__(self, settings: ThompsonConfig, context: Context) -> None:
        super().__init__(settings, context)
        mean = np.zeros(len(pairs_of(self.kinds)))
        if settings.start == "table":
            mean = np.concatenate([pair_costs(size, settings.table) for size in self.kinds.sizes])
        self.effects = PairEffects(mean, settings.spread, settings.noise)

    @property
    def trials(self) -> int:
        """The tying in force, and a move."""
        return 2

    def _choose(self, observation: IntVector) -> IntVector:
        found = self.moves(observation)
        changes = [tied_pairs(move, self.kinds) - tied_pairs(observation, self.kinds) for move in found]
        costs = self.effects.draw(self._rng)
        best = int(np.argmin([change @ costs for change in changes]))
        kept, moved = self.losses(self._bound(), [observation, found[best]])
        if not np.isfinite([kept, moved]).all():  # nothing to learn from infinity, and no reason to go there
            return observation.copy()
        self.effects.learn(changes[best], moved - kept)
        return (found[best] if changes[best] @ self.effects.mean < 0 else observation).copy()

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the pairs as well."""
        known = {"precision": self.effects.precision.tolist(), "weighted": self.effects.weighted.tolist()}
        return super().state_dict() | known

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what is known of the pairs as well."""
        super().load_state_dict(state)
        self.effects.precision, self.effects.weighted = np.array(state["precision"]), np.array(state["weighted"])


def pairs_of(kinds: Kinds) -> list[tuple[int, int]]:
    """Return the pairs of units of one kind, the lower first, kind by kind."""
    return [
        (int(units[i]), int(units[j]))
        for units in kinds.members
        for i in range(len(units))
        for j in range(i + 1, len(units))
    ]


def tied_pairs(action: IntVector, kinds: Kinds) -> Floats:
    """Return which pairs of units of one kind an action ties, as 0 and 1, shape (P,), in the order of `pairs_of`.

    Args:
        action: canonical, shape (L,).
        kinds: of the units.
    """
    lower, upper = np.array(pairs_of(kinds), dtype=np.int64).reshape(-1, 2).T
    tied: Floats = (action[lower] == action[upper]).astype(np.float64)
    return tied
