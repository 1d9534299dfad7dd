"""The life of a training run: decisions that tie, train and measure, and can be stopped between two training steps.

An episode decides what is due and keeps count, and computes nothing: `Episode.decide` yields tasks, and whoever
carries them out puts a result into each: `tying_env.training_run` for one network, `tying_env.vector` for many at once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, TypeAlias

import numpy as np

from tying_env import episode_state, partition
from tying_env.budget import Budget
from tying_env.config import EnvConfig
from tying_env.data import Batch, Batches
from tying_env.decision import Computation, Decision, Measure, Outcome, Stage, Train, result_of, rewarded
from tying_env.primary.evaluation import Measurement, perplexity


class Stopped(Exception):
    """A step was stopped between two training steps; the same step, called again, continues where it was.

    So it does in another process, too, after `state_dict` and `load_state_dict`.
    """


Deciding: TypeAlias = Generator[Computation, None, Outcome]


def advance(deciding: Deciding) -> Computation | Outcome:
    """Return the next task of a decision, whose task before has its result; the outcome when nothing is left to do."""
    try:
        return next(deciding)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


class Episode(ABC):
    """What one training run is beside its network and its data.

    A trial is a copy of a run in which something is tried out. Its training steps are taken from the run's budget, so
    the run ends that much earlier; it takes note of them at the end of each decision.

    Args:
        reward_batches: draws the batches that rewards are measured on.
        config: the settings of the environment.
        frozen_start: whether the first k training steps lie before the first decision.
        pays: the budget of the run that this is a trial for; None for a run, which has one of its own.
    """

    def __init__(
        self, reward_batches: Batches, config: EnvConfig, frozen_start: bool, pays: Budget | None = None
    ) -> None:
        self.decisions = 0  # all made; one under way does not count yet
        self.tied_at = 0  # the training step at which the last action was applied
        self.train_step = 0
        self.interval = config.k  # training steps after the next action; of a decision under way, after its own
        self.validation_perplexity = math.inf
        self.validation_accuracy = 0.0  # of a network that classifies
        self.input_dependence: float | None = None  # None before it is measured, or where it cannot be had
        self.frozen_steps_left = min(config.k, config.total_steps - 1) if frozen_start else 0
        self.over = False
        self.under_way: Decision | None = None
        self.reward_batches = reward_batches
        self.is_trial = pays is not None
        self.budget = pays or Budget(config.total_steps)
        self.trial_steps = 0  # by which the run ends earlier: those of the trials for decisions that are over
        self._config = config
        self._reserve()

    @property
    def ends_at(self) -> int:
        """The training step at which this run ends, if nothing more is tried and it does not diverge."""
        return self._config.total_steps - self.trial_steps

    @property
    @abstractmethod
    def network_tying(self) -> partition.IntVector:
        """The tying that the network has now, shape (L,)."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens trained on so far."""

    @abstractmethod
    def count_trainable(self) -> int:
        """Return the number of trainable parameters."""

    @abstractmethod
    def change(self, action: partition.IntVector) -> partition.TyingEvents:
        """Put a tying in force in the network, optimizer included (Algorithm 1, lines 8-19)."""

    @property
    def tying(self) -> partition.IntVector:
        """The tying in force, shape (L,); while a decision is under way, the one that it was made on."""
        return self.network_tying if self.under_way is None else np.array(self.under_way.tying_before)

    @property
    def ties_at(self) -> int:
        """The training step at which the next action is applied; of a decision under way, that at which it was."""
        return self.train_step + self.frozen_steps_left if self.under_way is None else self.tied_at

    def set_interval(self, steps: int) -> None:
        """Train for so many steps after the next action, and after those that follow it.

        Raises:
            ValueError: a decision is under way that has another interval; nothing is changed.
        """
        if self.under_way is not None and steps != self.interval:
            raise ValueError(
                f"a decision of {self.interval} training steps is under way that was stopped: continue it with this "
                f"interval, or reset(); got {steps}"
            )
        self.interval = steps
        self._reserve()

    def ends_earlier(self) -> None:  # noqa: B027
        """Take note that `ends_at` is another than before."""

    def next_reward_batches(self) -> list[Batch]:
        """Draw the fresh training batches on which a reward is measured."""
        return [self.reward_batches.next_batch() for _ in range(self._config.reward_batches)]

    def decide(self, action: partition.IntVector) -> Deciding:
        """Apply an action, train, measure; continue the decision under way, if there is one.

        Args:
            action: an action, shape (L,), checked.

        Yields:
            What there is to compute, in the order of the stages. Whoever computes it fills in the result before the
            next one is asked for. It may be left at any task whose computing has not begun; a `Train` also in the
            middle, if its result says that it was stopped.

        Returns:
            What came of it.

        Raises:
            ValueError: another action than that of the decision under way; nothing is changed.
            Stopped: a result says that training was stopped.
            tying_env.budget.BudgetSpent: this is a trial, and its run has too few steps left for it; nothing is
                changed.
        """
        if self.is_trial and self.under_way is None:
            self.budget.check(self._due())
        if self.under_way is not None and self.under_way.action != action.tolist():
            raise ValueError(
                f"a decision is under way that was stopped: call step() with its action {self.under_way.action} "
                f"to continue, or reset(); got {action.tolist()}"
            )
        # 1. The first k steps lie before the first decision (Algorithm 1, line 2; Sec. 3).
        diverged = False
        if self.under_way is None:
            frozen = Train(Stage.FROZEN_START, self.frozen_steps_left)
            yield frozen
            diverged = self._trained(frozen, None)
            self.under_way = self._tie(action, diverged)
        decision = self.under_way
        # 2. The reward may come before training (lines 20-21).
        if self._config.reward_timing == "after_tying" and decision.reward_loss is None:
            early = Measure(Stage.EARLY_REWARD)
            yield early
            diverged = rewarded(early, decision) or diverged
        # 3. Train (lines 5-6).
        training = Train(Stage.TRAINING, decision.steps_left)
        yield training
        diverged = self._trained(training, decision) or diverged
        # 4. Measure what was not measured yet.
        if not diverged and decision.reward_loss is None:
            late = Measure(Stage.REWARD)
            yield late
            diverged = rewarded(late, decision)
        self._settle()
        finished = self.train_step >= self.ends_at
        if not diverged and self._config.validate_every and (finished or self.train_step >= decision.validation_due_at):
            validation = Measure(Stage.VALIDATION)
            yield validation
            diverged = self._validated(validation)
        self.over, self.under_way, self.decisions = diverged or finished, None, self.decisions + 1
        return Outcome(
            float(np.mean(decision.losses)) if decision.losses else math.inf,
            Measurement(math.inf if decision.reward_loss is None else decision.reward_loss, decision.reward_accuracy),
            partition.TyingEvents(decision.tied_events, decision.untied_events),
            diverged,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what of the run is beside its network, ready for JSON."""
        return episode_state.capture(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Fill this new episode from a state; the network must have the state's tying already.

        Raises:
            ValueError: the state does not fit; throw this episode away then.
        """
        episode_state.restore(self, state, self._config)
        self.ends_earlier()
        self._reserve()

    def _due(self) -> int:
        """Return the training steps of the next decision, with those before it."""
        frozen = self.frozen_steps_left
        return frozen + min(self.interval, self.ends_at - self.train_step - frozen)

    def _reserve(self) -> None:
        if not self.is_trial:
            self.budget.reserved = self._due()

    def _left(self) -> int:
        """Return the training steps that are left, also where an interval is chosen after the trials for a decision."""
        until_end = self.ends_at - self.train_step
        return until_end if self.is_trial else min(until_end, self.budget.total - self.budget.spent)

    def _settle(self) -> None:
        """Take note of what the trials for this decision have cost."""
        if not self.is_trial and self.trial_steps != self.budget.trials:
            self.trial_steps = self.budget.trials
            self.ends_earlier()
        self._reserve()

    def _tie(self, action: partition.IntVector, diverged: bool) -> Decision:
        """Apply the tying, and tell what is due then."""
        config, before = self._config, self.tying
        events = self.change(action)
        every, since = config.validate_every, self.train_step if self.decisions else 0
        self.tied_at, self.frozen_steps_left = self.train_step, 0
        return Decision(
            action.tolist(),
            before.tolist(),
            events.tied,
            events.untied,
            steps_left=0 if diverged else min(self.interval, self._left()),
            validation_due_at=(since // every + 1) * every if every else 0,
        )

    def _trained(self, task: Train, decision: Decision | None) -> bool:
        """Count the training steps of a task, of a decision or of the frozen start; return whether training diverged.

        Raises:
            Stopped: not all of them were run.
        """
        result = result_of(task.result)
        done = len(result.losses)
        self.train_step += done
        if self.is_trial:
            self.budget.trials += done
        else:
            self.budget.own += done
        if decision is None:
            self.frozen_steps_left -= done
        else:
            decision.steps_left -= done
            decision.losses += result.losses
        if result.stopped:
            raise Stopped
        return result.diverged

    def _validated(self, task: Measure) -> bool:
        """Keep what was measured on validation; return whether it is not finite."""
        measured = result_of(task.result)
        self.validation_perplexity, self.validation_accuracy = perplexity(measured.mean_loss), measured.accuracy or 0.0
        self.input_dependence = measured.input_dependence
        return not math.isfinite(self.validation_perplexity)
