"""What a controller sees of the environment: enough to look ahead, and no way to do so without paying."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tying_env.episode import Stopped
from tying_env.partition import IntVector

if TYPE_CHECKING:
    import gymnasium as gym
    import numpy as np
    import numpy.typing as npt

    from tying_env.data.corpus import Split
    from tying_env.primary.evaluation import Evaluation
    from tying_env.wrappers.base import Step

# What a view hands on as it is: none of it trains, and none of it changes anything.
_SEEN = frozenset(
    {
        *("action_masks", "action_space", "config", "decisions", "interval", "kinds", "n_units"),
        *(
            "observation_space",
            "over",
            "parameters_of",
            "permitted",
            "points",
            "steps_per_decision",
            "ties_at",
            "total_steps",
            "train_step",
        ),
        *("trial_steps", "tying", "update_agreement", "weight_agreement"),
    }
)


class View:
    """The environment of a run, for the controller that decides in it.

    It has `tying`, `train_step`, `total_steps`, `decisions`, `decisions_per_episode`, `steps_per_decision` (k),
    `interval` (training steps after the next action, also of a trial), `n_units`, `kinds`, `ties_at`, `over`, `config`,
    both spaces, `permitted(action)`, `evaluate(split, max_windows)` but of the test split, `weight_agreement()`,
    `update_agreement()`; of wrappers `action_masks()`; of the tying table `points`; and `fork()`,
    `gradient_agreement()` and `mixing_weights(steps)`, for which the run pays.

    Args:
        env: the environment, in its wrappers.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._inner: Any = env.unwrapped
        self._begun = (-1, 0)  # the decision that is looked ahead for, and the trial steps paid before it

    def __getattr__(self, name: str) -> Any:
        """Return what the environment has under this name, if a controller may see it.

        Raises:
            AttributeError: it may not, or there is no such thing.
        """
        if name.startswith("_") or name not in _SEEN:
            seen = ", ".join(sorted((*_SEEN, "decisions_per_episode")))
            raise AttributeError(
                f"a controller sees {seen}, evaluate, fork, gradient_agreement and mixing_weights of its environment, "
                f"not {name}"
            )
        return self._from_environment(name)

    def _from_environment(self, name: str) -> Any:
        return getattr(self._inner, name) if hasattr(self._inner, name) else self._env.get_wrapper_attr(name)

    @property
    def decisions_per_episode(self) -> int:
        """Decisions in a whole episode, if nothing diverges; no more where they choose their own intervals."""
        return int(self._env.get_wrapper_attr("decisions_per_episode"))

    @property
    def steps_for_trials(self) -> float:
        """Training steps that trials can still take; infinity where they cost nothing, or are paid for otherwise."""
        return float(getattr(self._inner, "steps_for_trials", math.inf))

    def evaluate(self, split: Split = "validation", max_windows: int | None = None) -> Evaluation:
        """Return what `LayerTyingEnv.evaluate` does, of the training or the validation split.

        Raises:
            ValueError: the test split, which is for the judge.
        """
        if split == "test":
            raise ValueError("split must be 'train' or 'validation' for a controller, got 'test': it is the judge's")
        found: Evaluation = self._from_environment("evaluate")(split, max_windows)
        return found

    def gradient_agreement(self, max_windows: int | None = None) -> npt.NDArray[np.float64]:
        """Return what `LayerTyingEnv.gradient_agreement` does; the run pays a training step for each batch.

        Raises:
            tying_env.budget.BudgetSpent: the run has too few training steps left for it.
        """
        self._note_decision()
        self._inner.pay(self.steps_of_agreement(max_windows))
        found: npt.NDArray[np.float64] = self._inner.gradient_agreement(max_windows)
        return found

    def steps_of_agreement(self, max_windows: int | None = None) -> int:
        """Return the training steps that `gradient_agreement` costs: forward and backward passes of so many batches."""
        batch: int = self._inner.config.batch_size
        return math.ceil((batch if max_windows is None else max_windows) / batch)

    def mixing_weights(self, steps: int, **settings: float) -> npt.NDArray[np.float64]:
        """Return what `LayerTyingEnv.mixing_weights` does; the run pays its training steps.

        Raises:
            tying_env.budget.BudgetSpent: the run has too few training steps left for it.
            ValueError, FloatingPointError: see there.
        """
        self._note_decision()
        self._inner.pay(steps)
        found: npt.NDArray[np.float64] = self._inner.mixing_weights(steps, **settings)
        return found

    def fork(self) -> Trial:
        """Return a trial: another environment in the same state, without wrappers, on the same batches.

        Its training steps are taken from the run's.
        """
        # Where nothing is trained there is nothing to pay, and on the tying table every fork pays.
        self._note_decision()
        make = getattr(self._inner, "trial", None) or getattr(self._inner, "fork", None)
        return Trial((make or self._env.get_wrapper_attr("fork"))(), self)

    def _note_decision(self) -> None:
        if self._inner.decisions != self._begun[0]:
            self._begun = self._inner.decisions, self._inner.trial_steps

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be copied or pickled: nobody would pay for what is tried in the copy.

        Raises:
            TypeError: always.
        """
        raise TypeError("a controller's view of its environment cannot be copied or pickled: fork() it")


class Trial(View):
    """A fork in which a controller tries a tying, see `View.fork`; it can be forked again.

    Args:
        env: the fork.
        run: the view of the run that pays for it.
    """

    def __init__(self, env: gym.Env[Any, Any], run: View) -> None:
        super().__init__(env)
        self._run = run

    def step(self, action: IntVector) -> Step:
        """Tie, train for k steps and measure, in the trial alone.

        Raises:
            tying_env.budget.BudgetSpent: the run has too few training steps left for it.
            tying_env.episode.Stopped: the run was asked to stop. What the trials for this decision cost is given back:
                a controller that goes on makes them again.
        """
        try:
            stepped: Step = self._inner.step(action)
        except Stopped:
            self._run._inner.forget_trials(self._run._begun[1])
            raise
        return stepped

    def fork(self) -> Trial:
        """Return another trial in the state of this one."""
        return Trial(self._inner.fork(), self._run)
