"""A decision: what is kept of it while it is under way, the tasks it is carried out in, and what came of it."""

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, TypeAlias, TypeVar

from tying_env import partition
from tying_env.primary.evaluation import Measurement
from tying_env.primary.trainer import TrainResult

T = TypeVar("T")


@dataclass
class Decision:
    """A decision that is under way: its tying is applied, not all of its training steps are done."""

    action: list[int]  # (L,)
    tying_before: list[int]  # (L,)
    tied_events: int
    untied_events: int
    steps_left: int
    validation_due_at: int  # the first training step at which the next validation is due
    losses: list[float] = field(default_factory=list)  # nats per token, of the training steps done
    reward_loss: float | None = None  # nats per token; None: not measured yet
    reward_accuracy: float | None = None  # of a network that classifies

    def __post_init__(self) -> None:
        n_units = len(self.action)
        self.action = partition.validate_action(self.action, n_units).tolist()
        if not partition.is_tying(partition.validate_action(self.tying_before, n_units)):
            raise ValueError(f"the decision under way began at {self.tying_before}, not a tying in canonical form")
        for name in ("tied_events", "untied_events", "steps_left", "validation_due_at"):
            check_count(name, getattr(self, name))
        numbers = [*self.losses, *(x for x in (self.reward_loss, self.reward_accuracy) if x is not None)]
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"the decision under way has losses that are not finite numbers: {numbers}")


class Outcome(NamedTuple):
    """What a decision led to."""

    train_loss: float  # nats per token, mean over the training steps after the action; infinity without any
    measured: Measurement  # on the reward's batches
    events: partition.TyingEvents
    diverged: bool


class Stage(IntEnum):
    """The stages of a decision that take computing, in order. The tying is changed between the first two."""

    FROZEN_START = 0
    EARLY_REWARD = 1
    TRAINING = 2
    REWARD = 3
    VALIDATION = 4


@dataclass
class Train:
    """A task: run so many training steps, and tell whether loss, gradient, weights and optimizer state are finite.

    With 0 steps only weights and optimizer state are left to be looked at.
    """

    stage: Stage
    steps: int
    result: TrainResult | None = None  # to be filled in


@dataclass
class Measure:
    """A task: measure the network, without dropout.

    On validation examples at the stage VALIDATION, else on the reward's: `Episode.next_reward_batches`.
    """

    stage: Stage
    result: Measurement | None = None  # to be filled in


Computation: TypeAlias = Train | Measure


def check_count(name: str, value: object, most: int = 2**63, least: int = 0) -> int:
    """Return a count of a saved state.

    Raises:
        ValueError: it is not a whole number from `least` to `most`.
    """
    if type(value) is not int or not least <= value <= most:
        from_least = f"from {least} " if least else ""
        raise ValueError(f"the state's {name} must be a whole number {from_least}up to {most}, got {value!r}")
    return value


def check_share(name: str, value: object) -> float:
    """Return a share of a saved state.

    Raises:
        ValueError: it is not a number from 0 to 1.
    """
    if not (isinstance(value, float) and 0 <= value <= 1):
        raise ValueError(f"the state's {name} must be a number from 0 to 1, got {value!r}")
    return value


def rewarded(task: Measure, decision: Decision) -> bool:
    """Keep what was measured for the reward; return whether it is not finite."""
    measured = result_of(task.result)
    decision.reward_loss = measured.mean_loss if math.isfinite(measured.mean_loss) else None
    decision.reward_accuracy = measured.accuracy
    return decision.reward_loss is None


def result_of(result: T | None) -> T:
    """Return the result of a task, which whoever carries it out has filled in.

    Raises:
        RuntimeError: it has none.
    """
    if result is None:
        raise RuntimeError("the next task of a decision was asked for before the last one had its result")
    return result
