"""Reads and writes the whole state of an environment, and makes forks of it."""

import copy as copying
import dataclasses
import itertools
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tying_env.ambient import usual_modes
from tying_env.budget import Budget
from tying_env.config import PLACE_SETTINGS, with_later_settings
from tying_env.differences import listed
from tying_env.environment import check_keys, check_whole
from tying_env.primary.gates import train_gates
from tying_env.running import RunningEnv
from tying_env.seeding import capture_numpy, check_seed, restore_numpy

_STATE_KEYS = {
    *("config", "np_random", "np_random_seed", "trainer", "reward_batches", "decisions", "tied_at", "train_step"),
    *("frozen_steps_left", "validation_perplexity", "over", "under_way"),
}


class SavedEnv(RunningEnv):
    """An environment whose training run can be saved, restored and forked."""

    @usual_modes()
    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return the whole training state: a restored environment continues with the same bits.

        Tensors are under `trainer.weights`, `trainer.optimizer` and `trainer.dropout`; the rest is ready for JSON.

        Args:
            copy: whether the tensors are copies. Without, they are the live ones: write them down at once.
        """
        return {
            "config": dataclasses.asdict(self.config),
            "np_random": capture_numpy(self.np_random),
            "np_random_seed": self.np_random_seed,
            **self._running().state_dict(copy),
        }

    @usual_modes()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave, of an environment with the same settings.

        Raises:
            ValueError: the state does not fit, and in what; this environment is as before then.
        """
        check_keys(state, _STATE_KEYS)
        if differ := listed(with_later_settings(state["config"]), dataclasses.asdict(self.config), PLACE_SETTINGS):
            raise ValueError(f"the state is of an environment with other settings: {'; '.join(differ)}")
        try:
            generator = np.random.default_rng(0)
            restore_numpy(generator, state["np_random"])
            saved = state["trainer"]
            # With the same seed, for what a network draws as it is made and keeps outside of its weights.
            seed = check_seed(saved.get("seed", 0))  # a state of an earlier version does not have it
            episode = self._begin(seed, None if saved["frozen"] else saved["tying"], saved["sources"])
            episode.load_state_dict(state)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the state is damaged: {error!r}") from error
        self._np_random, self._np_random_seed = generator, state["np_random_seed"]
        self._episode = episode

    def fork(self) -> Self:
        """Return an independent environment in the same state: a counterfactual to try a tying on the same batches.

        Weights, optimizer, data position and generators are copies; the data in memory are shared. A fork of a trial
        is a trial.
        """
        return self._twin(self._pays)

    def trial(self) -> Self:
        """Return a fork that the running episode pays for: nobody looks ahead for nothing.

        Its training steps, and those of its forks, are taken from the episode's `total_steps`. At the end of its next
        decision the episode takes note of them: it ends that much earlier, and so does its learning rate's schedule. A
        step of a trial that would leave too few for the episode's next decision raises
        `tying_env.budget.BudgetSpent`.
        """
        return self._twin(self._running().budget)

    @usual_modes()
    def mixing_weights(
        self, steps: int, *, temperature: float = 0.1, gate_learning_rate: float = 0.05
    ) -> npt.NDArray[np.float64]:
        """Return whose weights each layer would rather use, shape (L, L): see `tying_env.primary.gates.train_gates`.

        A copy of the network is trained for it, on the first examples of the training split, always the same; nothing
        of this environment changes.

        Args:
            steps: training steps.
            temperature: of the last step; it falls from 1 by a factor a step.
            gate_learning_rate: of the gates.

        Raises:
            ValueError: a number is out of its range, or layers are not tied but copied or aliased.
            FloatingPointError: training diverged.
        """
        check_whole("steps", steps, 1)
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature must be in (0, 1], got {temperature!r}")
        if not 0 < gate_learning_rate < float("inf"):
            raise ValueError(f"gate_learning_rate must be a finite number above 0, got {gate_learning_rate!r}")
        if self.config.replication != "tied":
            raise ValueError(f"mixing_weights needs replication='tied', got {self.config.replication!r}")
        batches = itertools.cycle(self.workload.batches_of("train", steps * self.config.batch_size))
        return train_gates(
            self.fork().trainer,
            list(itertools.islice(batches, steps)),
            np.geomspace(1.0, temperature, steps).tolist(),
            gate_learning_rate,
            self.config.max_grad_norm,
        )

    def _twin(self, pays: Budget | None) -> Self:
        state = self.state_dict()
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)  # the data are read-only
        twin.action_space, twin.observation_space = copying.deepcopy((self.action_space, self.observation_space))
        twin._pays, twin._episode = pays, None
        twin.load_state_dict(state)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs.

        Raises:
            TypeError: this is a trial. The training steps of a copy would not be counted.
        """
        if self._pays is not None:
            raise TypeError("a trial cannot be copied or pickled, for nobody would pay for the copy's steps: fork() it")
        return self.__dict__
