"""Controllers that search: they change one entry of the tying at a time and judge it by a counterfactual.

A counterfactual is a fork of the environment in which a candidate is tried on the very batches that come next. Its
training steps are taken from the run's (`tying_agents.controllers.view`): the more a search tries, the less its network
is trained. When too few steps are left to try all that it would, it keeps the tying. The paper names such searches as
future work (Sec. 5).
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from tying_agents.controllers.base import Context, Controller
from tying_agents.settings import SearchConfig
from tying_env.episode import Stopped
from tying_env.kinds import Kinds
from tying_env.partition import IntVector, other_choices
from tying_env.seeding import capture_numpy, restore_numpy

Chosen = TypeVar("Chosen")  # the settings of a search


class SearchController(Controller, Generic[Chosen]):
    """What the searches share: candidates, and trying one in a fork."""

    Settings: ClassVar[type] = SearchConfig
    needs = frozenset({"forks"})
    reads_tying = True

    @classmethod
    def create(cls, settings: Any, context: Context) -> Self:
        """Return a new search whose candidates come from the run's stream."""
        return cls(context.n_units, settings, context.rng())

    def __init__(self, n_units: int, config: Chosen, rng: np.random.Generator) -> None:
        if n_units < 2:
            raise ValueError(f"a search needs at least 2 layers to have a choice, got {n_units}")
        self.n_units = n_units
        self.config = config
        self._rng = rng
        self._env: Any = None

    @property
    @abstractmethod
    def trials(self) -> int:
        """Forks that a decision takes, each of which makes so many decisions as `decisions_of_trial` says."""

    @property
    def decisions_of_trial(self) -> int:
        """The length of a trial."""
        return 1

    def bind(self, env: Any) -> None:
        """Take note of the environment to fork."""
        self._env = env

    def notes(self) -> list[str]:
        """Say what the trials cost."""
        return [
            f"This search tries {self.trials} decisions out for each that it makes: of {self.trials + 1} training "
            f"steps {self.trials} go into trials, and one trains its network."
        ]

    def act(self, observation: IntVector) -> IntVector:
        """Return the best action found; the tying in force when too few training steps are left for trials.

        Raises:
            tying_env.episode.Stopped: a fork was asked to stop; this controller is as before then.
        """
        env = self._bound()
        steps = env.ties_at - env.train_step + self.decisions_of_trial * env.interval
        if self.trials * steps > env.steps_for_trials:
            return observation.copy()
        before = self.state_dict()
        try:
            return self._choose(observation)
        except Stopped:
            self.load_state_dict(before)
            raise

    @abstractmethod
    def _choose(self, observation: IntVector) -> IntVector:
        """Return the best action found."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator."""
        return {"rng": capture_numpy(self._rng)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the generator."""
        restore_numpy(self._rng, state["rng"])

    def _change_one(self, tying: IntVector) -> IntVector:
        """Return an action with one entry other than in that of the tying in force; the same if no other is possible.

        Layers are equally likely, and so are the other tyings that a layer's entry can give.
        """
        kinds: Kinds = self._bound().kinds
        for layer in self._rng.permutation(kinds.open).tolist():
            own = tying[kinds.lowest == kinds.lowest[layer]]  # the tying of its kind, counted as in the action
            if choices := other_choices(own, int(kinds.position[layer])):
                action = tying.copy()
                action[layer] = choices[int(self._rng.integers(len(choices)))]
                return action
        return tying.copy()

    def _try(self, env: Any, action: IntVector) -> tuple[Any, float]:
        """Return a fork after a step with `action`, and its log-perplexity; infinity if it diverged."""
        fork = env.fork()
        *_, info = fork.step(action)
        return fork, math.log(info["perplexity"]) if math.isfinite(info["perplexity"]) else math.inf

    def _bound(self) -> Any:
        if self._env is None:
            raise RuntimeError("a search needs the environment: call bind(env) before act")
        return self._env


class HillClimbing(SearchController[SearchConfig]):
    """Of the present tying and a few changes of one entry, take the best."""

    @property
    def trials(self) -> int:
        """The tying in force and each change."""
        return 1 + self.config.candidates

    def _choose(self, observation: IntVector) -> IntVector:
        """Try them all on the next batches; keep the tying unless a change is better."""
        options = [observation, *(self._change_one(observation) for _ in range(self.config.candidates))]
        losses = [self._try(self._bound(), option)[1] for option in options]
        return options[int(np.argmin(losses))].copy()


class Annealing(SearchController[SearchConfig]):
    """Simulated annealing (Kirkpatrick et al., 1983): a worse change is taken with probability exp(-loss / T)."""

    def __init__(self, n_units: int, config: SearchConfig, rng: np.random.Generator) -> None:
        super().__init__(n_units, config, rng)
        self.temperature = config.temperature

    @property
    def trials(self) -> int:
        """The tying in force and one change."""
        return 2

    def _choose(self, observation: IntVector) -> IntVector:
        """Try one change beside keeping the tying."""
        proposal = self._change_one(observation)
        kept, changed = (self._try(self._bound(), action)[1] for action in (observation, proposal))
        worse = changed - kept if math.isfinite(changed) else math.inf
        accepted = worse <= 0 or self._rng.random() < math.exp(-worse / self.temperature)
        self.temperature *= self.config.temperature_decay
        return proposal if accepted else observation.copy()

    def metrics(self) -> dict[str, float]:
        """Return the temperature as well."""
        return {"temperature": self.temperature}

    def state_dict(self) -> dict[str, Any]:
        """Return the temperature as well."""
        return super().state_dict() | {"temperature": self.temperature}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the temperature as well."""
        super().load_state_dict(state)
        self.temperature = state["temperature"]


class TreeSearch(SearchController[SearchConfig]):
    """Look a few decisions ahead: at each, keep the tying or change one entry; take the first step to the best leaf."""

    @property
    def trials(self) -> int:
        """All nodes of the tree below the present tying."""
        return sum((1 + self.config.candidates) ** level for level in range(1, self.config.tree_depth + 1))

    def _choose(self, observation: IntVector) -> IntVector:
        """Search the whole small tree, depth first."""
        return self._best(self._bound(), observation, self.config.tree_depth)[1]

    def _best(self, env: Any, tying: IntVector, depth: int) -> tuple[float, IntVector]:
        """Return the lowest log-perplexity among the leaves below, and the action that leads there."""
        options = [tying, *(self._change_one(tying) for _ in range(self.config.candidates))]
        values = []
        for option in options:
            fork, loss = self._try(env, option)
            if depth > 1 and not fork.over:
                loss = self._best(fork, fork.kinds.action_for(fork.tying), depth - 1)[0]
            del fork  # before the next one is made: as many networks at once as the tree is deep
            values.append(loss)
        best = int(np.argmin(values))
        return values[best], options[best].copy()
