"""Black-box optimisers from libraries as controllers: each proposes an action, and is told the reward.

They look for the one best tying and know nothing of time. So they suit where a tying is worth the same at every
decision, as on the tying table; in a training run rewards rise whatever is done, and who came last looks best.
"""

import importlib.util
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from tying_agents.controllers.base import Context, Controller, Transition
from tying_agents.settings import EvolutionConfig, NoSettings
from tying_env.partition import IntVector


class AskedController(Controller):
    """Asks an optimiser for the action, and tells it the reward.

    Its state is the rewards: an optimiser with the same seed that is told the same again proposes the same again. So
    nothing of the library is stored, and a checkpoint stays readable.

    Args:
        settings: its settings.
        context: what is known of the run.

    Attributes:
        packages: that it needs.

    Raises:
        ImportError: one of them is not installed.
    """

    packages: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Any, context: Context) -> None:
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise ImportError(f"{type(self).__name__} needs {package}: pip install 'tying-env[search]'")
        self._kinds = context.kinds
        # Those that have a choice, each with how many.
        self.choices = {int(i): int(self._kinds.choices[i]) for i in self._kinds.open}
        # The libraries' seeds are 32 bits.
        self._seed = int(context.rng("optimiser").integers(2**32))
        self._told: list[float] = []
        self._asked: list[int] | None = None
        self._start(settings)

    @abstractmethod
    def _start(self, settings: Any) -> None:
        """Make a new optimiser for the entries that have a choice, `choices`, from the seed."""

    @abstractmethod
    def _ask(self) -> list[int]:
        """Return those entries of the next action."""

    @abstractmethod
    def _tell(self, reward: float) -> None:
        """Take note of the reward of the last action."""

    def act(self, observation: IntVector) -> IntVector:
        """Return what the optimiser proposes."""
        if self._asked is None:
            self._asked = self._ask()
        action = np.zeros(self._kinds.n_units, dtype=np.int64)
        action[self._kinds.open] = self._asked
        return self._kinds.check_action(action)

    def update(self, transition: Transition) -> None:
        """Tell the optimiser what it got."""
        self._tell(transition.reward)
        self._told.append(transition.reward)
        self._asked = None

    def metrics(self) -> dict[str, float]:
        """Return the highest reward so far."""
        return {"best_reward": max(self._told, default=float("-inf"))} if self._told else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the rewards so far, and the action that waits for one."""
        return {"told": list(self._told), "asked": None if self._asked is None else list(self._asked)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Tell a new optimiser all of it again.

        Raises:
            ValueError: the state is damaged, or the optimiser proposes something else than it did.
        """
        told, asked = state.get("told"), state.get("asked")
        if self._told or not isinstance(told, list) or not all(type(reward) is float for reward in told):
            raise ValueError(f"the state of {type(self).__name__} must hold the rewards so far, got {str(told)[:80]}")
        for reward in told:
            self._ask()
            self._tell(reward)
        self._told = list(told)
        if asked is not None:
            self._asked = self._ask()
            if self._asked != asked:
                raise ValueError(
                    f"the optimiser proposes {self._asked} where it proposed {asked}: its library is of another version"
                )


class OptunaController(AskedController):
    """A sampler of Optuna's; subclasses say which."""

    packages: ClassVar[tuple[str, ...]] = ("optuna",)

    def _start(self, settings: NoSettings) -> None:
        import optuna

        from tying_agents.by_trial import ByTrial

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=ByTrial(self._sampler, self._seed), direction="maximize")

    @staticmethod
    @abstractmethod
    def _sampler(seed: int) -> Any:
        """Return the sampler."""

    def _ask(self) -> list[int]:
        self._trial = self._study.ask()
        return [self._trial.suggest_int(f"layer {i}", 0, n - 1) for i, n in self.choices.items()]

    def _tell(self, reward: float) -> None:
        self._study.tell(self._trial, reward)


class TPEController(OptunaController):
    """The tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), Optuna's at its defaults."""

    @staticmethod
    def _sampler(seed: int) -> Any:
        import optuna

        return optuna.samplers.TPESampler(seed=seed)


class CMAESController(OptunaController):
    """CMA-ES (Hansen & Ostermeier, 2001), Optuna's at its defaults; entries are rounded."""

    packages = ("optuna", "cmaes")

    @staticmethod
    def _sampler(seed: int) -> Any:
        import optuna

        return optuna.samplers.CmaEsSampler(seed=seed)


class EvolutionController(AskedController):
    """Regularised evolution (Real et al., AAAI 2019), PyGlove's: the oldest of the population dies at every step."""

    Settings = EvolutionConfig
    packages = ("pyglove",)

    def _start(self, settings: EvolutionConfig) -> None:
        import pyglove as pg

        entries = {f"layer_{i}": pg.oneof(range(n)) for i, n in self.choices.items()}
        self._evolution = pg.evolution.regularized_evolution(
            mutator=pg.evolution.mutators.Uniform(seed=self._seed),
            population_size=settings.population_size,
            tournament_size=settings.tournament_size,
            seed=self._seed,
        )
        self._evolution.setup(pg.dna_spec(pg.Dict(**entries)))

    def _ask(self) -> list[int]:
        self._dna = self._evolution.propose()
        return [int(entry) for entry in np.atleast_1d(self._dna.to_numbers())]

    def _tell(self, reward: float) -> None:
        self._evolution.feedback(self._dna, reward)
