"""A sampler of Optuna's whose draws can be resumed."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial


class ByTrial(BaseSampler):
    """Draws by a generator of its own for every trial and parameter.

    Optuna's samplers draw from one generator, so a process that resumes a search would draw what the first one drew
    again. Here what is drawn depends on the seed, the trial's number and the trials before it: a search that was
    stopped goes on to the same trials as one that was not.

    Args:
        make: returns Optuna's sampler for a seed.
        seed: of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
        return self._of(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw those parameters."""
        return self._of(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one of the other parameters."""
        return self._of(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let the sampler prepare a trial: a grid notes which of its points it is."""
        self._of(trial, "").before_trial(study, trial)

    # after_trial is not passed on: all that any of the samplers does there is stop `Study.optimize`, which we do not
    # call. (A grid raises a RuntimeError because of that.)

    def _of(self, trial: FrozenTrial, name: str) -> BaseSampler:
        words = np.random.SeedSequence([self._seed, trial.number, zlib.crc32(name.encode())]).generate_state(1)
        return self._make(int(words[0]))
