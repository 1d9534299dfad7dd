"""Searches that change little, then stop: one layer moves at a time, seldom, and after a while none.

A change of the tying costs more than most tyings gain (docs/results/cost_of_change.md). So these searches begin with a
pattern, try a move for some decisions in trials beside the tying in force, on the same batches, and take it only if
it was the better of the two. They look at longer and longer intervals, and not after `until`.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tying_agents.controllers.base import Context
from tying_agents.controllers.patterns import chance_groups, in_each_kind
from tying_agents.controllers.rules import PRIORS
from tying_agents.controllers.search import SearchController
from tying_agents.settings import ChangeConfig, PatientConfig
from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.partition import IntVector

Patient = TypeVar("Patient", bound=PatientConfig)


class PatientSearch(SearchController[Patient], Generic[Patient]):
    """What these searches share: where they begin, what they may move, when they look, and what a trial shows."""

    Settings: ClassVar[type] = PatientConfig

    @classmethod
    def create(cls, settings: Any, context: Context) -> Self:
        """Return a new search whose draws come from the run's stream.

        Raises:
            ValueError: more groups than layers.
        """
        return cls(settings, context)

    def __init__(self, settings: Patient, context: Context) -> None:
        super().__init__(context.n_units, settings, context.rng())
        self.kinds = context.kinds
        largest = max(self.kinds.sizes)
        if settings.groups > largest:
            raise ValueError(f"groups must be at most the number of layers, {largest}, got {settings.groups}")
        self.most = [min(settings.groups or chance_groups(largest), size) for size in self.kinds.sizes]
        self._begun, self._looks = False, 0  # whether there was a decision, and how often it has looked ahead

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return True: it plans by the training steps there are."""
        return True

    def initial_tying(self) -> IntVector:
        """Return the pattern to begin with."""
        return in_each_kind(self.kinds, max(self.most), PRIORS[self.config.begin].best)

    def begin(self) -> None:
        """Begin with another network."""
        self._begun, self._looks = False, 0

    def notes(self) -> list[str]:
        """Say what the trials cost."""
        c = self.config
        return [
            f"This search looks ahead in {self.trials} trials of {c.patience} decisions each, for which it takes up to "
            f"{c.share:.0%} of the run's training steps; after {c.until:.0%} of them the tying stays."
        ]

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying in force, or a better one that trials have shown.

        Raises:
            tying_env.episode.Stopped: a trial was asked to stop; this controller is as before then.
        """
        first, self._begun = not self._begun, True
        if first or not self._is_time():  # before the first decision nothing was trained
            return observation.copy()
        chosen = super().act(observation)
        self._looks += 1
        return chosen

    def _is_time(self) -> bool:
        """Return whether the next look ahead is due: look j of n at `until` times (j / n) squared of the run."""
        env, config = self._bound(), self.config
        looks = int(config.share * env.total_steps / (self.trials * config.patience * env.interval))
        if self._looks >= looks:
            return False
        due = config.until * env.total_steps * (self._looks / looks) ** 2
        passed = env.ties_at + env.trial_steps
        return bool(due <= passed < config.until * env.total_steps)

    @property
    def decisions_of_trial(self) -> int:
        """The length of a trial."""
        return self.config.patience

    def losses(self, env: Any, actions: Sequence[IntVector]) -> list[float]:
        """Return the mean log-perplexity of each action in a trial; infinity where one diverged.

        With `blind` the results are dealt out at random.
        """
        found = [self._trial(env, action) for action in actions]
        return [found[i] for i in self._rng.permutation(len(found))] if self.config.blind else found

    def one_of(self, values: Sequence[float]) -> float:
        """Draw one of these."""
        return values[int(self._rng.integers(len(values)))]

    def noise(self, n: int) -> npt.NDArray[np.float64]:
        """Draw n positive weights of mean 1, shape (n,)."""
        return self._rng.exponential(size=n)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator, and where in its plan it is."""
        return super().state_dict() | {"begun": self._begun, "looks": self._looks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        super().load_state_dict(state)
        self._begun, self._looks = state["begun"], state["looks"]

    def moves(self, action: IntVector) -> list[IntVector]:
        """Return the actions in which one layer has another group, or its own, with no more groups than there may be.

        Args:
            action: whose tying is in force, shape (L,).
        """
        return moves(action, self.kinds, self.most)

    def _trial(self, env: Any, action: IntVector) -> float:
        fork, losses = env.fork(), list[float]()
        for _ in range(self.config.patience):
            *_, terminated, _, info = fork.step(action)
            losses.append(math.log(info["perplexity"]) if math.isfinite(info["perplexity"]) else math.inf)
            if terminated or fork.over:
                break
        return float(np.mean(losses))


class ChangeLittle(PatientSearch[ChangeConfig]):
    """Try one random move beside the tying in force, and take it if it was better. It does not learn."""

    Settings = ChangeConfig

    @property
    def trials(self) -> int:
        """The tying in force, and each move."""
        return 1 + self.config.candidates

    def _choose(self, observation: IntVector) -> IntVector:
        found = self.moves(observation)
        drawn = self._rng.permutation(len(found))[: self.config.candidates].tolist()
        options = [observation, *(found[i] for i in drawn)]
        best: IntVector = options[int(np.argmin(self.losses(self._bound(), options)))]
        return best.copy()


def moves(action: IntVector, kinds: Kinds, most: Sequence[int]) -> list[IntVector]:
    """Return the actions whose tyings differ in the group of one layer: another one, or its own; each tying once.

    Args:
        action: canonical, shape (L,).
        kinds: of the units.
        most: the highest number of groups of each kind.
    """
    found: dict[tuple[int, ...], IntVector] = {}
    for members, limit in zip(kinds.members, most, strict=True):
        own = action[members]  # the tying of this kind, counted within it
        alone = len(own)  # a label that no group has
        for layer in range(len(own)):
            for label in (*partition.leaders(own), alone):
                labels = own.copy()
                labels[layer] = label
                moved = partition.same_groups(labels)
                if len(partition.leaders(moved)) <= limit and not np.array_equal(moved, own):
                    changed = action.copy()
                    changed[members] = moved
                    found[tuple(changed.tolist())] = changed
    return list(found.values())
