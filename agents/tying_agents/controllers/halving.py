"""Successive halving: train some tyings for a while in trials, go on with the better half, then train with the last.

Jamieson & Talwalkar, 2016 (arXiv 1502.07943). All trials begin in the state that the run begins in and see the same
batches, so what differs between them is the tying. They hold a network each, half as many after every round. The run
pays for all of their training steps, and begins with the tying found.

On a tying table whose actions say how long to train, the first rounds buy short trainings, each round's twice as long
as the one's before.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tying_agents.controllers.base import Context, Controller
from tying_agents.controllers.patterns import random_of
from tying_agents.controllers.rules import PRIORS, best_by
from tying_agents.controllers.view import Trial
from tying_agents.settings import HalvingConfig
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy


class SuccessiveHalving(Controller):
    """Decides once, at the beginning; then it stays."""

    Settings = HalvingConfig
    needs = frozenset({"forks"})

    def __init__(self, settings: HalvingConfig, context: Context) -> None:
        self.config = settings
        largest = max(len(units) for units in context.kinds.members)
        if settings.groups > largest:
            raise ValueError(f"groups must be at most the number of layers, {largest}, got {settings.groups}")
        self.tying: IntVector | None = None  # what was found: the action that leads to it
        self._kinds, self._rng = context.kinds, context.rng()
        self._env: Any = None

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return True: it plans by the training steps there are."""
        return True

    def initial_tying(self) -> IntVector:
        """Return all layers independent: nothing is trained before the first decision."""
        return self._kinds.position.copy()

    def bind(self, env: Any) -> None:
        """Take note of the environment to try tyings in."""
        self._env = env

    def begin(self) -> None:
        """Begin with another network."""
        self.tying = None

    def notes(self) -> list[str]:
        """Say what the trials take."""
        n = self.config.candidates
        return [
            f"{n} tyings are tried before the first decision, with {self.config.share:.0%} of all training steps; they "
            f"hold {n} networks at once. A run that is stopped in between tries them again."
        ]

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying found; at the first decision find it.

        Raises:
            ValueError: the run is too short for the trials.
        """
        if self.tying is None:
            before = capture_numpy(self._rng)
            try:
                self.tying = self._find(self.candidates())
            except BaseException:
                restore_numpy(self._rng, before)
                raise
        return _with_entry(self.tying, len(self._points) - 1 if self._points else None)

    @property
    def _points(self) -> tuple[int, ...]:
        """Training steps among which an action chooses; none but on a tying table that offers them."""
        points: tuple[int, ...] = getattr(self._env, "points", ())
        return points if len(points) > 1 else ()

    def candidates(self) -> list[IntVector]:
        """Return the actions to try, all with as many groups: those of the simple rules, then random ones."""
        groups, found = self.config.groups, dict[tuple[int, ...], IntVector]()
        if self.config.patterns:
            for rule in PRIORS.values():
                tying = best_by(rule, self._kinds, groups)
                found.setdefault(tuple(tying.tolist()), tying)
        for _ in range(100 * self.config.candidates):  # there may be fewer
            if len(found) >= self.config.candidates:
                break
            tying = random_of(self._kinds, groups, self._rng)
            found.setdefault(tuple(tying.tolist()), tying)
        return list(found.values())[: self.config.candidates]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator, and what was found."""
        tying = None if self.tying is None else self.tying.tolist()
        return {"rng": capture_numpy(self._rng), "tying": tying}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        restore_numpy(self._rng, state["rng"])
        self.tying = None if state["tying"] is None else np.array(state["tying"], dtype=np.int64)

    def _find(self, tyings: list[IntVector]) -> IntVector:
        alive: list[tuple[IntVector, Trial]] = [(tying, self._env.fork()) for tying in tyings]
        for decisions, point in self._rounds(len(alive)):
            ranked = sorted(alive, key=lambda pair: _mean_loss(_with_entry(pair[0], point), pair[1], decisions))
            alive = ranked[: math.ceil(len(ranked) / 2)]
        return alive[0][0]

    def _rounds(self, n: int) -> list[tuple[int, int | None]]:
        """Return how many decisions each trial of a round makes, so that all rounds take about as many steps.

        And where an action chooses among lengths of trainings, which: in the last round the longest.

        Raises:
            ValueError: not even one decision of each can be paid for.
        """
        sizes, left = [], n
        while left > 1:
            sizes.append(left)
            left = math.ceil(left / 2)
        points = self._points
        places = [_nearest(points, points[-1] / 2**doublings) if points else None for doublings in range(len(sizes))]
        places.reverse()
        lengths = [self._env.interval if place is None else points[place] for place in places]
        share = self.config.share * self._env.total_steps / max(len(sizes), 1)
        rounds = [max(1, int(share / k / size)) for size, k in zip(sizes, lengths, strict=True)]
        steps = sum(size * n * k for size, n, k in zip(sizes, rounds, lengths, strict=True))
        if steps > self._env.steps_for_trials:
            raise ValueError(
                f"halving {n} candidates takes {steps} training steps of trials, and the run has "
                f"{self._env.steps_for_trials:g} for them: give it more training steps (on a tying table, trainings), "
                "a smaller k or fewer candidates"
            )
        return list(zip(rounds, places, strict=True))


def _nearest(points: Sequence[int], steps: float) -> int:
    """Return the place of the point with the number of training steps nearest to this one, by their ratio."""
    return min(range(len(points)), key=lambda place: abs(math.log(points[place] / steps)))


def _with_entry(tying: IntVector, entry: int | None) -> IntVector:
    """Return an action with one entry more, or a copy as it is."""
    return tying.copy() if entry is None else np.append(tying, entry)


def _mean_loss(action: IntVector, trial: Trial, decisions: int) -> float:
    """Return the mean log-perplexity over so many decisions in a trial; infinity if it diverged."""
    losses = []
    for _ in range(decisions):
        *_, terminated, _, info = trial.step(action)
        losses.append(math.log(info["perplexity"]) if math.isfinite(info["perplexity"]) else math.inf)
        if terminated:
            return math.inf
    return float(np.mean(losses))
