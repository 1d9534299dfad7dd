"""The Q-network of the factorized DQN: one table of values for each state, a row for each layer."""

import numpy as np
import torch
from torch import Tensor, nn

from tying_agents.settings import StateScale
from tying_env.partition import IntVector


class QNetwork(nn.Sequential):
    """An MLP with one hidden layer of ReLU units (Hay & Wolf, ICLR 2024, Sec. 4).

    It maps the state s[1:] to one value for each choice of each layer, (L + 2)(L - 1) / 2 in all where units are alike.

    With `dueling` it gives L - 1 more outputs, a value V for each layer, and takes the others as advantages A of the
    choices: Q[i, j] = V[i] + A[i, j] - mean of A[i] over layer i's choices (Wang et al., ICML 2016, Eq. 9; an
    advantage for each part of an action as in Tavakoli et al., AAAI 2018). Both come out of the one hidden layer, so
    this network can represent no other functions than the plain one. It learns differently: what an update says of
    the state, it says of all choices, also of those not taken.

    Args:
        choices: how many each layer has, at most its number plus 1, shape (L,).
        hidden_units: units of the hidden layer.
        dueling: values and advantages instead of values of choices.
        state_scale: "raw" layer numbers, or "unit": divided by the largest, L - 1.
    """

    def __init__(
        self, choices: IntVector, hidden_units: int, dueling: bool = False, state_scale: StateScale = "raw"
    ) -> None:
        # Row i - 1 belongs to layer i, whose choices are 0, 1, ...; the network's outputs fill these places row by row.
        n_units, most = len(choices), int(choices.max())
        valid = torch.arange(most) < torch.from_numpy(choices[1:, None])  # (L-1, most choices)
        outputs = int(valid.sum())
        super().__init__(
            nn.Linear(n_units - 1, hidden_units),
            nn.ReLU(),
            nn.Linear(hidden_units, outputs + (n_units - 1 if dueling else 0)),
        )
        self.valid, self._choices, self._dueling = valid, outputs, dueling
        self._unit = float(most - 1) if state_scale == "unit" else 1.0

    def table(self, observation: IntVector) -> Tensor:
        """Return Q(s), shape (..., L-1, most choices), for states of shape (..., L).

        Row i-1 has the values of layer i's choices, 0..i where units are alike, then -infinity.
        """
        state = torch.from_numpy(np.asarray(observation[..., 1:], dtype=np.float32))  # (..., L-1)
        outputs = self(state / self._unit)
        table = torch.full((*state.shape[:-1], *self.valid.shape), -torch.inf)
        if not self._dueling:
            return table.masked_scatter(self.valid, outputs)
        advantage = torch.zeros(table.shape).masked_scatter(self.valid, outputs[..., : self._choices])
        mean = advantage.sum(-1, keepdim=True) / self.valid.sum(-1, keepdim=True)
        value = outputs[..., self._choices :, None]  # (..., L-1, 1)
        return torch.where(self.valid, value + advantage - mean, table)
