"""What every controller can do: choose an action, learn from what it led to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from tying_agents.settings import NoSettings
from tying_env.kinds import Kinds
from tying_env.partition import IntVector
from tying_env.seeding import numpy_stream, torch_stream

if TYPE_CHECKING:
    import torch

# What a controller may ask of the environment beyond reset and step -> the attribute that an environment offers it by.
Need = Literal["forks", "probes", "gradients", "gates", "masks", "sizes"]
NEEDS: dict[Need, str] = {
    "forks": "fork",
    "probes": "evaluate",
    "gradients": "gradient_agreement",
    "gates": "mixing_weights",
    "masks": "action_masks",
    "sizes": "parameters_of",
}


def check_needs(controller: Controller, whose: str) -> None:
    """Check that what a controller asks of the environment can be asked for.

    Args:
        controller: whose `needs` they are.
        whose: the words for it, for messages.

    Raises:
        TypeError: they are no set of names.
        ValueError: there is no such need.
    """
    needs: Any = controller.needs
    if not isinstance(needs, (set, frozenset, list, tuple)) or not all(isinstance(need, str) for need in needs):
        raise TypeError(f'the needs of {whose} must be a set of names, such as {{"forks", "masks"}}, got {needs!r}')
    if unknown := sorted(set(needs) - set(NEEDS)):
        raise ValueError(f"{whose} needs {unknown[0]!r}; known needs: {', '.join(NEEDS)}")


class Transition(NamedTuple):
    """One decision and its outcome."""

    observation: IntVector  # (L,)
    action: IntVector  # (L,), or (L + 1,) with the index of an interval
    reward: float
    next_observation: IntVector  # (L,)
    terminated: bool


@dataclass(frozen=True)
class Context:
    """What a controller may know when it is made.

    Attributes:
        n_units: L, the length of an action.
        seed: of the run; its random streams come from it.
        k: training steps between two decisions; None where nobody can tell.
        decisions: how many there will be in all episodes together, if none diverges; None where nobody can tell. Where
            decisions choose their own intervals there are no more than these.
        of_kinds: the kinds of the units; None: they are all alike.
        intervals: the numbers of training steps that the last entry of an action chooses from; none where an action has
            no such entry, but is a tying alone.
        varied: whether decisions have other numbers of training steps than k.
    """

    n_units: int
    seed: int
    k: int | None = None
    decisions: int | None = None
    of_kinds: Kinds | None = None
    intervals: tuple[int, ...] = ()
    varied: bool = False

    @property
    def kinds(self) -> Kinds:
        """The kinds of the units, within which they are tied."""
        return self.of_kinds or Kinds.alike(self.n_units)

    def rng(self, name: str = "controller") -> np.random.Generator:
        """Return the run's NumPy stream of this name; another name is another stream."""
        return numpy_stream(self.seed, name)

    def torch_generator(self, name: str = "controller weights") -> torch.Generator:
        """Return the run's torch stream of this name, on the CPU."""
        return torch_stream(self.seed, name)


def random_action(kinds: Kinds, n_intervals: int, rng: np.random.Generator) -> IntVector:
    """Return a uniformly random action, with one of so many intervals as its last entry; without, of 0 intervals."""
    action = kinds.uniform_action(rng)
    return np.append(action, rng.integers(n_intervals)) if n_intervals else action


class Controller(ABC):
    """Chooses the tying. A controller is two verbs, `act` and `update`; only `act` has to be written.

    Made as `MyController(settings, context)`, or by a `create` of its own.

    Attributes:
        Settings: a dataclass; its fields are the controller's options on the command line. All have defaults.
        needs: what it asks of the environment: "forks" (`env.fork()`), "probes" (`env.evaluate()`), "gradients"
            (`env.gradient_agreement()`), "gates" (`env.mixing_weights()`), "masks" (`env.action_masks()`),
            "sizes" (`env.parameters_of(tying)`). With a need it is given a view of the environment in `bind`; an
            environment that does not offer it is refused before the run begins.
        chooses_intervals: whether its actions have one entry more where `context.intervals` says so.
        reads_tying: whether it takes what it observes for the tying in force; with a wrapper that shows something else
            it is refused before the run begins.
    """

    Settings: ClassVar[type] = NoSettings
    needs: ClassVar[frozenset[Need]] = frozenset()
    chooses_intervals: ClassVar[bool] = False
    reads_tying: ClassVar[bool] = False

    def __init__(self, settings: Any = None, context: Context | None = None) -> None:  # noqa: B027
        """Take note of the settings and the run; a controller that needs neither has nothing to write."""

    @classmethod
    def create(cls, settings: Any, context: Context) -> Self:
        """Return a new controller, from its settings and what it may know of the run."""
        make: Any = cls
        made: Self = make(settings, context)
        return made

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return whether it decides otherwise in a longer run from the first decision on; such a run stays as long.

        A controller that reads `context.decisions`, or its view's `total_steps`, should say so.
        """
        return False

    def initial_tying(self) -> IntVector | None:
        """Return the action to begin the episode with, canonical, shape (L,); None is the paper's frozen start."""
        return None

    def bind(self, env: Any) -> None:  # noqa: B027 (most controllers do not need it)
        """Take note of a view of the environment; called before the first decision, of controllers that have needs."""

    def notes(self) -> list[str]:
        """Return what whoever starts a run with this controller should know."""
        return []

    def begin(self) -> None:  # noqa: B027
        """Take note that an episode begins."""

    @abstractmethod
    def act(self, observation: IntVector) -> IntVector:
        """Return an action, shape (L,) or with an interval (L + 1,), for the tying in force, shape (L,)."""

    def update(self, transition: Transition) -> None:  # noqa: B027 (controllers that do not learn leave it so)
        """Learn from one decision."""

    def metrics(self) -> dict[str, float]:
        """Return what is worth recording after a decision, such as epsilon."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything the next decisions depend on: numbers, texts, lists, dictionaries, tensors.

        Asked for at every checkpoint, and once before the first episode: so that what cannot be saved is refused then.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            ValueError: the state is of another kind of controller.
        """
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got one with {sorted(state)}")
