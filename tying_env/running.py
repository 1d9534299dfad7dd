"""What holds the training run of an environment, and answers questions about it."""

import gc
import math
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from tying_env import partition
from tying_env.ambient import usual_modes
from tying_env.budget import Budget
from tying_env.config import EnvConfig
from tying_env.data import Batch
from tying_env.data.corpus import Split
from tying_env.distributed import agreed_number
from tying_env.environment import TyingEnv, check_whole
from tying_env.kinds import Kinds
from tying_env.primary.accounting import count_by_shapes
from tying_env.primary.agreement import gradient_agreement, update_agreement, weight_agreement
from tying_env.primary.assembly import build_trainer
from tying_env.primary.evaluation import Evaluation, Measurement
from tying_env.primary.own_optimizer import MakeOptimizer
from tying_env.primary.trainer import Trainer, never
from tying_env.primary.workloads import Workload
from tying_env.training_run import TrainingRun


class RunningEnv(TyingEnv):
    """An environment around one training run: its settings, its counters and its network.

    Args:
        workload: what is trained: network, data and task.
        device: where.
        make_optimizer: makes the optimizer.
    """

    def __init__(self, workload: Workload, device: torch.device, make_optimizer: MakeOptimizer) -> None:
        self.workload, self.device = workload, device
        self._make_optimizer = make_optimizer
        self.config: EnvConfig = workload.config
        self.should_stop: Callable[[], bool] = never
        self._episode: TrainingRun | None = None
        self._pays: Budget | None = None  # of the run that this environment is a trial for

    @property
    def n_units(self) -> int:
        """L, the length of an action and of the tying: how many units can be tied."""
        return self.config.n_units

    @property
    def kinds(self) -> Kinds:
        """The kinds of the units: those of a kind can be tied."""
        return self.workload.kinds

    @property
    def train_step(self) -> int:
        """Training steps done in this episode."""
        return self._running().train_step

    @property
    def tying(self) -> partition.IntVector:
        """The tying in force, shape (L,); after a step that was stopped, the one it was decided on."""
        return self._running().tying

    @property
    def decisions(self) -> int:
        """Decisions made in this episode; a step that was stopped does not count yet."""
        return self._running().decisions

    @property
    def decisions_per_episode(self) -> int:
        """Decisions in a whole episode, if it does not diverge; the frozen start does not count."""
        k, steps = self.config.k, self.config.total_steps
        return math.ceil((steps - min(k, steps - 1)) / k)

    @property
    def steps_per_decision(self) -> int:
        """Training steps between two decisions, k, where nothing else is chosen."""
        return self.config.k

    @property
    def interval(self) -> int:
        """Training steps after the next action: k, until `set_interval` says otherwise."""
        return self._running().interval

    def set_interval(self, steps: int) -> None:
        """Train for so many steps after the next action, and after those that follow it in this episode.

        It is part of the state, and of forks and trials. The last decision is cut at the end of the run, and no
        interval is longer than what the trials for its decision have left of `total_steps`.

        Raises:
            ValueError: not a whole number of at least 1; or a step that was stopped has another interval.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        self._running().set_interval(int(agreed_number(check_whole("steps", steps, 1))))

    @property
    def total_steps(self) -> int:
        """Training steps in a whole episode, those of its trials included."""
        return self.config.total_steps

    @property
    def trial_steps(self) -> int:
        """Training steps done in trials for this episode; of a trial, for the episode that it is one for."""
        return self._running().budget.trials

    @property
    def steps_for_trials(self) -> int:
        """Training steps that trials for this episode can still take; the state remembers that somebody asked."""
        return self._running().budget.ask()

    @property
    def tied_at(self) -> int:
        """Training step at which the last action was applied."""
        return self._running().tied_at

    @property
    def over(self) -> bool:
        """Whether the episode has ended, so that the next call must be reset()."""
        return self._running().over

    @property
    def trainer(self) -> Trainer:
        """The primary network under training, with its optimizer."""
        return self._running().trainer

    @property
    def ties_at(self) -> int:
        """Training step at which the next action is applied; after a step that was stopped, at which its action was."""
        return self._running().ties_at

    def pay(self, steps: int) -> None:
        """Take training steps from this episode, as trials do, for something that costs as much to compute.

        Raises:
            tying_env.budget.BudgetSpent: that many are not left for trials.
        """
        self._running().budget.pay(check_whole("steps", steps, 0))

    def forget_trials(self, paid: int) -> None:
        """Take back what trials have cost since they had cost so much: for a controller that was stopped among them."""
        self._running().budget.trials = paid

    @usual_modes()
    def evaluate(self, split: Split, max_windows: int | None = None) -> Evaluation:
        """Measure the network as it is on examples of a split, always the same, without dropout.

        Args:
            split: "train", "validation" or "test".
            max_windows: how many sequences of `seq_len` tokens, or images, 0 for all; `validation_windows` by default.
        """
        most = self.config.validation_windows if max_windows is None else max_windows
        return self.workload.evaluate(self._running().trainer.network.model, split, most, self.device)

    @usual_modes()
    def gradient_agreement(self, max_windows: int | None = None) -> npt.NDArray[np.float64]:
        """Return the cosine between the gradients of each two layers for the weights they compute with, shape (L, L).

        See `tying_env.primary.agreement`. Nothing is trained; the examples are the first of the training split, always
        the same.

        Args:
            max_windows: how many sequences of `seq_len` tokens, or images; a training batch's number by default.
        """
        most = self.config.batch_size if max_windows is None else check_whole("max_windows", max_windows, 1)
        trainer, batches = self._running().trainer, self.workload.batches_of("train", most)
        return gradient_agreement(trainer.network.model, trainer.tied, trainer.task, batches, self.device)

    def parameters_of(self, tying: npt.ArrayLike) -> int:
        """Return how many parameters train where units are tied so, shape (L,); also before a training run has begun.

        Raises:
            ValueError: not a tying.
        """
        if not partition.is_tying(tying) or len(np.asarray(tying)) != self.n_units:
            raise ValueError(f"tying must be one of {self.n_units} units in canonical form, got {tying!r}")
        if self._episode is None:
            return count_by_shapes(self.workload.skeleton(), tying, self.config.tied_parameters)
        return self._episode.trainer.count_tied(tying)

    def weight_agreement(self) -> npt.NDArray[np.float64]:
        """Return the cosine between the matrices of each two layers, (L, L); see `tying_env.primary.agreement`."""
        return weight_agreement(self._running().trainer.tied)

    def update_agreement(self) -> npt.NDArray[np.float64]:
        """Return the cosine between the directions in which each two layers are being trained, shape (L, L).

        See `tying_env.primary.agreement`.

        Raises:
            ValueError: the optimizer keeps no running mean of gradients.
        """
        trainer = self._running().trainer
        return update_agreement(trainer.tied, trainer.optimizer, trainer.layouts)

    def windows(self, split: Split, max_windows: int) -> Batch:
        """Return up to `max_windows` examples of a split, 0 for all. They never change.

        GPT-2's are windows (N, T + 1); for the others see `Workload.examples`.
        """
        return self.workload.examples(split, max_windows)

    def _begin(
        self,
        seed: int,
        tying: npt.ArrayLike | None,
        sources: npt.ArrayLike | None = None,
        frozen_start: bool = False,
    ) -> TrainingRun:
        trainer = build_trainer(self.workload, self.device, seed, tying, sources, self._make_optimizer)
        return TrainingRun(trainer, self.workload.reward_batches(seed), self.config, frozen_start, self._pays)

    def _let_go(self) -> None:
        self._episode = None
        if self.config.compile_blocks:
            gc.collect()  # a block holds its compiled call, which holds the block

    def _validate(self) -> Measurement:
        """Measure on the validation split, as process 0 measures it."""
        found = self.evaluate("validation")
        accuracy, dependence = (
            None if share is None else agreed_number(share) for share in (found.accuracy, found.input_dependence)
        )
        return Measurement(agreed_number(found.mean_loss), accuracy, dependence)

    def _running(self) -> TrainingRun:
        if self._episode is None:
            raise gym.error.ResetNeeded("no training run has begun: call reset() first")
        return self._episode
