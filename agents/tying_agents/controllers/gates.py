"""Differentiable gates: let layers mix each other's weights for a while, and tie those that chose each other.

A copy of the network is trained with soft gates between its layers, which harden as it trains
(`tying_env.primary.gates`, after DARTS, arXiv 1806.09055). The run pays for that, and is then trained from its start
with the groups found. It is a rule that looks, and does not learn from rewards.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tying_agents.controllers.base import Context, Controller
from tying_agents.controllers.merging import merged
from tying_agents.controllers.patterns import chance_groups
from tying_agents.settings import GatesConfig
from tying_env.partition import IntVector


class Gates(Controller):
    """Decide once, before anything is trained, by gates that were trained in a copy; then stay."""

    Settings = GatesConfig
    needs = frozenset({"gates"})

    def __init__(self, settings: GatesConfig, context: Context) -> None:
        self.config, self._kinds = settings, context.kinds
        largest = max(self._kinds.sizes)
        if settings.groups > largest:
            raise ValueError(f"groups must be at most the number of layers, {largest}, got {settings.groups}")
        self.wanted = [min(settings.groups or chance_groups(largest), size) for size in self._kinds.sizes]
        self.action: IntVector | None = None  # what was found
        self.mixing: npt.NDArray[np.float64] | None = None  # (L, L), by which it was
        self._env: Any = None

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return True: it plans by the training steps there are."""
        return True

    def initial_tying(self) -> IntVector:
        """Return all layers independent: nothing is trained before the first decision."""
        return self._kinds.position.copy()

    def bind(self, env: Any) -> None:
        """Take note of the environment."""
        self._env = env

    def begin(self) -> None:
        """Begin with another network."""
        self.action = self.mixing = None

    def notes(self) -> list[str]:
        """Say what it takes."""
        return [
            f"Gates are trained in a copy of the network for {self.config.share:.0%} of the training steps, before the "
            "first decision. A run that is stopped in between trains them again."
        ]

    def act(self, observation: IntVector) -> IntVector:
        """Return the action found; at the first decision find it.

        Raises:
            tying_env.budget.BudgetSpent: the run is too short.
            FloatingPointError: the copy's training diverged.
        """
        if self.action is None:
            c = self.config
            steps = max(1, round(c.share * self._env.total_steps))
            settings = {"temperature": c.temperature, "gate_learning_rate": c.gate_learning_rate}
            self.mixing = self._env.mixing_weights(steps, **settings)
            # How far one of two layers uses the other's weights: only the later one can.
            found, alike = self._kinds.position.copy(), self.mixing + self.mixing.T
            while sum(len(set(found[units].tolist())) for units in self._kinds.members) > sum(self.wanted):
                found, _ = merged(found, alike, self._kinds, self.wanted)
            self.action = found
        return self.action.copy()

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        return {"action": None if self.action is None else self.action.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.action = None if state["action"] is None else np.array(state["action"], dtype=np.int64)
