"""The paper's controller: Q-learning over tying vectors with a Q that is a sum over layers.

Source: Hay & Wolf, ICLR 2024, Sec. 3 (Eq. 2-4), Sec. 4 (the network and its settings), Algorithm 1 lines 20-27.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.base import Controller, Transition
from tying_env import partition
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy, torch_randomness_from


@dataclass(frozen=True)
class DQNConfig:
    """Settings of the factorized DQN; the defaults are the paper's (Sec. 4).

    Raises:
        ValueError: a setting is outside its range.
    """

    q_learning_rate: float = 1e-3
    """Learning rate of Adam for the Q-network."""
    gamma: float = 0.99
    """Discount of the next state's value."""
    epsilon_start: float = 1.0
    """Probability of a random action at the first decision."""
    epsilon_decay: float = 0.95
    """Factor on epsilon after each decision."""
    epsilon_floor: float = 0.1
    """Epsilon never falls below this."""
    hidden_units: int = 128
    """Units of the Q-network's one hidden layer."""

    def __post_init__(self) -> None:
        if not self.q_learning_rate > 0:
            raise ValueError(f"q_learning_rate must be above 0, got {self.q_learning_rate!r}")
        for name in ("gamma", "epsilon_start", "epsilon_decay", "epsilon_floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        if self.hidden_units < 1:
            raise ValueError(f"hidden_units must be at least 1, got {self.hidden_units!r}")


class FactorizedDQN(Controller):
    """Q(s, a) = sum over layers i = 1..L-1 of Q(s)[i, a[i]] (Eq. 3).

    The network maps the state s[1:] to one value for each choice of each layer, (L + 2)(L - 1) / 2 in all. Because Q
    is a sum, the best of the L! actions is every layer's best choice. One draw against epsilon decides for the whole
    vector (Eq. 2). Each decision does one update on the one transition, without replay or target network.

    Args:
        n_layer: L, at least 2.
        config: the settings.
        rng: draws exploration.
        weights: draws the network's initial weights.

    Raises:
        ValueError: fewer than 2 layers: there would be nothing to decide.
    """

    def __init__(self, n_layer: int, config: DQNConfig, rng: np.random.Generator, weights: torch.Generator) -> None:
        if n_layer < 2:
            raise ValueError(f"n_layer must be at least 2 for a controller to have a choice, got {n_layer}")
        self.n_layer = n_layer
        self.config = config
        self.epsilon = config.epsilon_start
        self._rng = rng
        self._explored = False
        self._loss: float | None = None
        # Row i - 1 belongs to layer i, whose choices are 0..i; the network's outputs fill these places row by row.
        self._valid = torch.ones(n_layer - 1, n_layer, dtype=torch.bool).tril(1)  # (L-1, L)
        with torch_randomness_from(weights):
            self.network = nn.Sequential(
                nn.Linear(n_layer - 1, config.hidden_units),
                nn.ReLU(),
                nn.Linear(config.hidden_units, int(self._valid.sum())),
            )
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.q_learning_rate)

    def values(self, observation: IntVector) -> Tensor:
        """Return Q(s), shape (L-1, L): row i-1 has the values of layer i's choices 0..i, then -infinity."""
        state = torch.from_numpy(np.asarray(observation[1:], dtype=np.float32))  # (L-1,)
        table = torch.full(self._valid.shape, -torch.inf)
        return table.masked_scatter(self._valid, self.network(state))

    def act(self, observation: IntVector) -> IntVector:
        """Return a random action with probability epsilon, else every layer's best choice (Eq. 2)."""
        self._explored = bool(self._rng.random() < self.epsilon)
        if self._explored:
            return partition.uniform_random_action(self.n_layer, self._rng)
        with torch.no_grad():
            best = self.values(observation).argmax(dim=1)  # (L-1,)
        return np.concatenate([[0], best.numpy()])

    def update(self, transition: Transition) -> None:
        """Take one Adam step on the squared error against r + gamma * max Q(s') (Algorithm 1, lines 22-25)."""
        chosen = torch.from_numpy(np.asarray(transition.action[1:], dtype=np.int64))[:, None]  # (L-1, 1)
        with torch.no_grad():
            future = 0.0 if transition.terminated else self.values(transition.next_observation).amax(dim=1).sum()
            target = torch.as_tensor(transition.reward + self.config.gamma * future, dtype=torch.float32)
        predicted = self.values(transition.observation).gather(1, chosen).sum()
        loss = nn.functional.mse_loss(predicted, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._loss = loss.item()
        self.epsilon = max(self.epsilon * self.config.epsilon_decay, self.config.epsilon_floor)  # line 27

    def metrics(self) -> dict[str, float]:
        """Return epsilon (for the next decision), whether the last action was random, and the last loss of Q."""
        metrics = {"epsilon": self.epsilon, "explored": float(self._explored)}
        return metrics if self._loss is None else metrics | {"q_loss": self._loss}

    def state_dict(self) -> dict[str, Any]:
        """Return copies of network, optimizer, epsilon and generator."""
        return {
            "network": {name: value.clone() for name, value in self.network.state_dict().items()},
            "optimizer": {
                name: {key: value.clone() for key, value in self.optimizer.state[parameter].items()}
                for name, parameter in self.network.named_parameters()
                if parameter in self.optimizer.state
            },
            "epsilon": self.epsilon,
            "rng": capture_numpy(self._rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            ValueError, RuntimeError: it is of a network of another size; nothing is changed then.
        """
        own = {name: tuple(p.shape) for name, p in self.network.named_parameters()}
        theirs = {name: tuple(p.shape) for name, p in state["network"].items()}
        if own != theirs:
            raise ValueError(f"the state is of a Q-network with {theirs}, this one has {own}")
        restore_numpy(self._rng, state["rng"])
        self.network.load_state_dict(state["network"])
        self.epsilon = state["epsilon"]
        self.optimizer.state.clear()
        for name, parameter in self.network.named_parameters():
            if name in state["optimizer"]:
                self.optimizer.state[parameter] = {k: v.clone() for k, v in state["optimizer"][name].items()}
