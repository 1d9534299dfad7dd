"""The controller as the paper's published code has it: one layer at a time, in turn.

It differs from Algorithm 1 in what one decision is, and so in all that counts decisions: at step t only layer
1 + t mod (L-1) is decided; Q is learned from that layer's own values alone; epsilon decays once per sweep over the
layers; Adam has weight decay 0.01.
Source: github.com/tamirdh/Dynamic-Layer-Tying, read and described in our own words.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tying_agents.controllers.base import Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.settings import DQNConfig
from tying_env.kinds import Kinds
from tying_env.partition import IntVector

WEIGHT_DECAY = 0.01


class LayerSweepDQN(FactorizedDQN):
    """Decides one layer per step, layers 1..L-1 in turn and then again; the other entries stay as they are.

    Raises:
        ValueError: an option of the DQN is on that the published code does not have.
    """

    def __init__(
        self,
        kinds: Kinds,
        config: DQNConfig,
        rng: np.random.Generator,
        weights: torch.Generator,
        intervals: Sequence[float] = (),
        decisions: int | None = None,
    ) -> None:
        if intervals:
            raise ValueError("layer-sweep-dqn chooses no intervals: it is the published code's; use the agent dqn")
        for name in ("replay_size", "target_every", "double_q", "exploration_share"):
            if getattr(config, name):
                raise ValueError(f"layer-sweep-dqn has no {name}: it is the published code's; use the agent dqn")
        if config.reward_scale != "none":
            raise ValueError("layer-sweep-dqn has no reward_scale: it is the published code's; use the agent dqn")
        super().__init__(kinds, config, rng, weights)
        self._layers: list[int] = kinds.open.tolist()
        self._decisions = 0
        parameters = self.network.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=config.q_learning_rate, weight_decay=WEIGHT_DECAY)

    @property
    def layer(self) -> int:
        """The layer whose turn it is."""
        return self._layers[self._decisions % len(self._layers)]

    def act(self, observation: IntVector) -> IntVector:
        """Return the tying with one entry decided again, at random with probability epsilon."""
        layer, action = self.layer, observation.copy()
        self._explored = bool(self._rng.random() < self.epsilon)
        if self._explored:
            action[layer] = self._rng.integers(self.kinds.choices[layer])
        else:
            with torch.no_grad():
                action[layer] = int(self.values(observation)[layer - 1].argmax())
        return action

    def update(self, transition: Transition) -> None:
        """Learn from the layer that was decided, and pass the turn on."""
        row, choice = self.layer - 1, int(transition.action[self.layer])
        with torch.no_grad():
            future = 0.0 if transition.terminated else self.values(transition.next_observation)[row].max()
            target = torch.as_tensor(transition.reward + self.config.gamma * future, dtype=torch.float32)
        loss = nn.functional.mse_loss(self.values(transition.observation)[row, choice], target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._loss = loss.item()
        self._decisions += 1
        if self._decisions % len(self._layers) == 0:
            self.epsilon = max(self.epsilon * self.config.epsilon_decay, self.config.epsilon_floor)

    def state_dict(self) -> dict[str, Any]:
        """Return the turn as well."""
        return super().state_dict() | {"decisions": self._decisions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the turn as well.

        Raises:
            ValueError: it is not the state of such a controller; nothing is changed then.
        """
        if "decisions" not in state:
            raise ValueError("the state lacks 'decisions': it is not of a layer-sweep-dqn")
        super().load_state_dict({key: value for key, value in state.items() if key != "decisions"})
        self._decisions = state["decisions"]
