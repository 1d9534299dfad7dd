"""The Q-network of the factorized DQN: one table of values for each state, a row for each layer."""

import numpy as np
import torch
from torch import Tensor, nn

from tying_agents.settings import StateScale
from tying_env.partition import IntVector


class QNetwork(nn.Sequential):
    """An MLP with one hidden layer of ReLU units (Hay & Wolf, ICLR 2024, Sec. 4).

    It maps the state s[1:] to one value for each choice of each layer, (L + 2)(L - 1) / 2 in all where units are alike;
    and for each interval to choose from, where there are any. A choice of the interval is one more part of the action,
    as a layer's is.

    With `dueling` it gives L - 1 more outputs (L with intervals), a value V for each layer, and takes the others as
    advantages A of the choices: Q[i, j] = V[i] + A[i, j] - mean of A[i] over layer i's choices (Wang et al., ICML
    2016, Eq. 9; an advantage for each part of an action as in Tavakoli et al., AAAI 2018). Both come out of the one
    hidden layer, so this network can represent no other functions than the plain one. It learns differently: what an
    update says of the state, it says of all choices, also of those not taken.

    With a `rank` it gives two vectors for each layer, u of the one that chooses and v of the one that is chosen, and
    Q[i, j] = u[i] . v[j]: about 2 L rank outputs in place of L^2 / 2, for networks of many layers. Such a table has no
    higher rank. Each interval has its value as before.

    Args:
        choices: how many each layer has, at most its number plus 1, shape (L,).
        hidden_units: units of the hidden layer.
        dueling: values and advantages instead of values of choices.
        state_scale: "raw" layer numbers, or "unit": divided by the largest, L - 1.
        n_intervals: how many intervals there are to choose from; 0: an action is a tying alone.
        rank: of the table of values; None for a value out of the network for each choice.
    """

    def __init__(
        self,
        choices: IntVector,
        hidden_units: int,
        dueling: bool = False,
        state_scale: StateScale = "raw",
        n_intervals: int = 0,
        rank: int | None = None,
    ) -> None:
        # Row i - 1 belongs to layer i, whose choices are 0, 1, ...; the network's outputs fill these places row by row.
        n_units, largest = len(choices), int(choices.max()) - 1
        rows = torch.tensor([*choices[1:].tolist(), *([n_intervals] if n_intervals else [])])
        valid = torch.arange(int(rows.max())) < rows[:, None]  # (L-1, most choices)
        outputs = int(valid.sum())
        vectors = None if rank is None else (n_units - 1, largest + 1, rank)
        if vectors is not None:
            outputs = (vectors[0] + vectors[1]) * vectors[2] + n_intervals
        super().__init__(
            nn.Linear(n_units - 1, hidden_units),
            nn.ReLU(),
            nn.Linear(hidden_units, outputs + (len(valid) if dueling else 0)),
        )
        self.valid, self._choices, self._dueling, self._vectors = valid, outputs, dueling, vectors
        self._unit = float(largest) if state_scale == "unit" else 1.0

    def table(self, observation: IntVector) -> Tensor:
        """Return Q(s), shape (..., L-1, most choices), for states of shape (..., L).

        Row i-1 has the values of layer i's choices, 0..i where units are alike, then -infinity. With m intervals there
        is one row more, which has theirs.
        """
        state = torch.from_numpy(np.asarray(observation[..., 1:], dtype=np.float32))  # (..., L-1)
        outputs = self(state / self._unit)
        table = torch.full((*state.shape[:-1], *self.valid.shape), -torch.inf)
        values = self._values(outputs[..., : self._choices])
        if not self._dueling:
            return table.masked_scatter(self.valid, values)
        advantage = torch.zeros(table.shape).masked_scatter(self.valid, values)
        mean = advantage.sum(-1, keepdim=True) / self.valid.sum(-1, keepdim=True)
        value = outputs[..., self._choices :, None]  # (..., L-1, 1)
        return torch.where(self.valid, value + advantage - mean, table)

    def _values(self, outputs: Tensor) -> Tensor:
        """Return the values of all choices, row by row, shape (..., choices)."""
        if self._vectors is None:
            return outputs
        n_rows, n_columns, rank = self._vectors
        flat = (n_rows * rank, n_columns * rank)
        choosing, chosen, intervals = outputs.split((*flat, outputs.shape[-1] - sum(flat)), dim=-1)
        products = choosing.unflatten(-1, (n_rows, rank)) @ chosen.unflatten(-1, (n_columns, rank)).mT
        return torch.cat([products[..., self.valid[:n_rows, :n_columns]], intervals], dim=-1)
