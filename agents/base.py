"""What every controller can do: choose an action, learn from what it led to."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from tying_env.env import LayerTyingEnv
from tying_env.partition import IntVector


class Transition(NamedTuple):
    """One decision and its outcome."""

    observation: IntVector  # (L,)
    action: IntVector  # (L,)
    reward: float
    next_observation: IntVector  # (L,)
    terminated: bool


class Controller(ABC):
    """Chooses the tying. A controller is two verbs, `act` and `update`; only `act` has to be written."""

    def initial_tying(self) -> IntVector | None:
        """Return the tying to begin the episode with, shape (L,); None is the paper's frozen start."""
        return None

    def bind(self, env: LayerTyingEnv) -> None:  # noqa: B027 (most controllers do not need it)
        """Take note of the environment, for a controller that tries things out in forks of it."""

    def notes(self) -> list[str]:
        """Return what whoever starts a run with this controller should know."""
        return []

    def begin(self) -> None:  # noqa: B027
        """Take note that an episode begins."""

    @abstractmethod
    def act(self, observation: IntVector) -> IntVector:
        """Return an action, shape (L,), for the tying in force, shape (L,)."""

    def update(self, transition: Transition) -> None:  # noqa: B027 (controllers that do not learn leave it so)
        """Learn from one decision."""

    def metrics(self) -> dict[str, float]:
        """Return what is worth recording after a decision, such as epsilon."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything the next decisions depend on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            ValueError: the state is of another kind of controller.
        """
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got one with {sorted(state)}")
