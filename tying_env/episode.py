"""One training run: decisions that tie, train and measure, and that can be stopped between any two training steps."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.data import Batches
from tying_env.distributed import agreed_number
from tying_env.primary.evaluation import Evaluation, Measurement, measure
from tying_env.primary.trainer import Trainer

T = TypeVar("T")

_COUNTERS = ("decisions", "tied_at", "train_step", "frozen_steps_left")


class Stopped(Exception):
    """A step was stopped between two training steps; the same step, called again, goes on where it was.

    So it does in another process, too, after `state_dict` and `load_state_dict`.
    """


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
            _check_count(name, getattr(self, name))
        numbers = [*self.losses, *(x for x in (self.reward_loss, self.reward_accuracy) if x is not None)]
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"the decision under way has losses that are not finite numbers: {numbers}")


class Outcome(NamedTuple):
    """What a decision led to."""

    train_loss: float  # nats per token, mean over the training steps after the action; infinity without any
    measured: Measurement  # on the reward's batches
    events: partition.TyingEvents
    diverged: bool


class Episode:
    """All that one training run is: `LayerTyingEnv.reset` makes a new one, `load_state_dict` fills one.

    Args:
        trainer: the primary network under training.
        reward_batches: draws the batches that rewards are measured on.
        config: the settings of the environment.
        frozen_start: whether the first k training steps lie before the first decision.
    """

    def __init__(self, trainer: Trainer, reward_batches: Batches, config: EnvConfig, frozen_start: bool) -> None:
        self.trainer = trainer
        self.decisions = 0  # all made; one under way does not count yet
        self.tied_at = 0  # the training step at which the last action was applied
        self.train_step = 0
        self.validation_perplexity = math.inf
        self.validation_accuracy = 0.0  # of a network that classifies
        self.frozen_steps_left = min(config.k, config.total_steps - 1) if frozen_start else 0
        self.over = False
        self.under_way: Decision | None = None
        self.reward_batches = reward_batches
        self._config = config

    @property
    def tying(self) -> partition.IntVector:
        """The tying in force, shape (L,); while a decision is under way, the one that it was made on."""
        return self.trainer.tied.tying if self.under_way is None else np.array(self.under_way.tying_before)

    def decide(
        self, action: partition.IntVector, should_stop: Callable[[], bool], validate: Callable[[], Evaluation]
    ) -> Outcome:
        """Apply an action, train, measure; go on with the decision under way, if there is one.

        Args:
            action: an action, shape (L,), checked.
            should_stop: asked between training steps, and before measuring.
            validate: measures on the validation split.

        Raises:
            ValueError: another action than that of the decision under way; nothing is changed.
            Stopped: `should_stop` said so between two training steps.
        """
        if self.under_way is not None and self.under_way.action != action.tolist():
            raise ValueError(
                f"a decision is under way that was stopped: call step() with its action {self.under_way.action} "
                f"to go on, or reset(); got {action.tolist()}"
            )
        # 1. The first k steps lie before the first decision (Algorithm 1, line 2; Sec. 3).
        diverged = False
        if self.under_way is None:
            diverged = self._train_frozen(should_stop)
            self.under_way = self._tie(action, diverged)
        decision = self.under_way
        # 2. The reward may come before training (lines 20-21).
        if self._config.reward_timing == "after_tying" and decision.reward_loss is None:
            diverged = self._measure_reward(decision) or diverged
        # 3. Train (lines 5-6).
        diverged = self._train(decision, should_stop) or diverged
        # 4. Measure what was not measured yet.
        if not diverged and decision.reward_loss is None:
            diverged = _unless(should_stop, lambda: self._measure_reward(decision))
        finished = self.train_step >= self._config.total_steps
        if not diverged and self._config.validate_every and (finished or self.train_step >= decision.validation_due_at):
            validation = _unless(should_stop, validate)
            self.validation_perplexity, self.validation_accuracy = validation.perplexity, validation.accuracy or 0.0
            diverged = not math.isfinite(self.validation_perplexity)
        self.over, self.under_way, self.decisions = diverged or finished, None, self.decisions + 1
        return Outcome(
            float(np.mean(decision.losses)) if decision.losses else math.inf,
            Measurement(math.inf if decision.reward_loss is None else decision.reward_loss, decision.reward_accuracy),
            partition.TyingEvents(decision.tied_events, decision.untied_events),
            diverged,
        )

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return all that the rest of the run depends on; see `LayerTyingEnv.state_dict`."""
        validation = self.validation_perplexity
        return {
            "trainer": self.trainer.state_dict(copy),
            "reward_batches": self.reward_batches.state_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
            "validation_perplexity": validation if math.isfinite(validation) else None,
            "validation_accuracy": self.validation_accuracy,
            "over": self.over,
            "under_way": None if self.under_way is None else dataclasses.asdict(self.under_way),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Fill this new episode from a state; the network must have the state's tying already.

        Raises:
            ValueError: the state does not fit; throw this episode away then.
        """
        config = self._config
        most = {name: config.total_steps for name in _COUNTERS} | {"frozen_steps_left": config.k}
        for name in _COUNTERS:
            setattr(self, name, _check_count(name, state[name], most[name]))
        validation = state["validation_perplexity"]
        if not (validation is None or (isinstance(validation, float) and math.isfinite(validation))):
            raise ValueError(f"the state's validation_perplexity must be a number or none, got {validation!r}")
        accuracy = state["validation_accuracy"]
        if not (isinstance(accuracy, float) and 0 <= accuracy <= 1):
            raise ValueError(f"the state's validation_accuracy must be a number from 0 to 1, got {accuracy!r}")
        if type(state["over"]) is not bool:
            raise ValueError(f"the state's over must be true or false, got {state['over']!r}")
        try:
            under_way = None if state["under_way"] is None else Decision(**state["under_way"])
        except TypeError as error:
            raise ValueError(f"the state's decision under way does not fit: {error}") from error
        if under_way is not None:
            _check_count("steps_left", under_way.steps_left, min(config.k, config.total_steps - self.train_step))
        self.trainer.load_state_dict(state["trainer"])
        self.reward_batches.load_state_dict(state["reward_batches"])
        self.validation_perplexity = math.inf if validation is None else validation
        self.validation_accuracy = accuracy
        self.over, self.under_way = state["over"], under_way

    def _train_frozen(self, should_stop: Callable[[], bool]) -> bool:
        """Run what is left of the frozen start; return whether training diverged."""
        trained = self.trainer.train(self.frozen_steps_left, should_stop)
        self.train_step += len(trained.losses)
        self.frozen_steps_left -= len(trained.losses)
        if trained.stopped:
            raise Stopped
        return trained.diverged

    def _tie(self, action: partition.IntVector, diverged: bool) -> Decision:
        """Apply the tying (Algorithm 1, lines 8-19)."""
        config, before = self._config, self.tying
        events = self.trainer.tie(action)
        every, since = config.validate_every, self.train_step if self.decisions else 0
        self.tied_at, self.frozen_steps_left = self.train_step, 0
        return Decision(
            action.tolist(),
            before.tolist(),
            events.tied,
            events.untied,
            steps_left=0 if diverged else min(config.k, config.total_steps - self.train_step),
            validation_due_at=(since // every + 1) * every if every else 0,
        )

    def _train(self, decision: Decision, should_stop: Callable[[], bool]) -> bool:
        """Run what is left of the decision's training steps; return whether training diverged."""
        if not decision.steps_left:
            return not self.trainer.is_finite()
        trained = self.trainer.train(decision.steps_left, should_stop)
        self.train_step += len(trained.losses)
        decision.steps_left -= len(trained.losses)
        decision.losses += trained.losses
        if trained.stopped:
            raise Stopped
        return trained.diverged

    def _measure_reward(self, decision: Decision) -> bool:
        """Measure the loss on fresh training batches, without dropout; return whether it is not finite."""
        batches = [self.reward_batches.next_batch() for _ in range(self._config.reward_batches)]
        measured = measure(self.trainer.network.model, self.trainer.task, batches, self.trainer.device)
        loss = agreed_number(measured.mean_loss)
        decision.reward_loss = loss if math.isfinite(loss) else None
        decision.reward_accuracy = None if measured.accuracy is None else agreed_number(measured.accuracy)
        return decision.reward_loss is None


def _unless(should_stop: Callable[[], bool], measure: Callable[[], T]) -> T:
    if should_stop():
        raise Stopped
    return measure()


def _check_count(name: str, value: object, most: int = 2**63) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"the state's {name} must be a whole number up to {most}, got {value!r}")
    return value
