"""Two other ways to replicate a layer, for comparison with tying: an ablation, and what the published code does."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import nn

from tying_env import partition
from tying_env.slots import Weights, aliases
from tying_env.tied_blocks import OptimizerStates, Plan, TiedBlocks

Replication = Literal["tied", "copied", "aliased"]


class CopiedBlocks(TiedBlocks):
    """Replication without tying (paper, ablation v): a layer that is tied gets a copy, and trains on alone.

    At a tied event layer i gets the weights of layer s'[i], and a copy of their optimizer state (or none); every layer
    keeps Parameters of its own, and all of them train from the first decision on. An untied event changes nothing.
    """

    def _trained(self, tying: partition.IntVector) -> dict[int, int]:
        return dict.fromkeys(range(self.n_units), 1)

    def _new_weights(self, after: partition.IntVector, state: OptimizerStates | None) -> list[Weights]:
        weights = []
        for i, source in enumerate(after.tolist()):
            if source != i and (self._frozen or source != self._tying[i]):
                weights.append(self._copy(source, state))
            elif self._frozen and i > 0:  # its own initial values, which train from now on
                weights.append(aliases(self.weights(i), requires_grad=True))
            else:
                weights.append(self.weights(i))
        return weights


class AliasedBlocks(TiedBlocks):
    """What the paper's published code does (github.com/tamirdh/Dynamic-Layer-Tying), where it is not what it says.

    - A tied layer computes on its leader's storage and takes no gradient: the leader's position alone contributes.
    - Untying only lets the layer's Parameters take a gradient again. The storage stays shared, so that the layer never
      drifts away; the optimizer moves that storage once for each of them.
    - When a leader ties elsewhere its followers keep its old storage, while the tying says otherwise.
    - At the frozen start a layer that no decision has named keeps its initial values.

    `sources` tells on which storage each layer really computes.
    """

    def _new_weights(self, after: partition.IntVector, state: OptimizerStates | None) -> list[Weights]:
        weights: list[Weights] = []
        before = self._tying.tolist()
        for i, source in enumerate(after.tolist()):
            former = before[i]
            left_behind = former != i and after[former] == source != former
            if source == former or left_behind:
                weights.append(self.weights(i))
            elif source == i:
                weights.append(aliases(self.weights(i), requires_grad=True))
            else:  # a leader of `after` computes where it did before, or was dealt with above
                weights.append(aliases(weights[source], requires_grad=False))
        return weights

    def restore_sources(self, sources: npt.ArrayLike) -> None:
        """Compute on these storages again, shape (L,): what they are follows from all ties since the start.

        Raises:
            TypeError, ValueError: they are no tying.
        """
        valid = partition.validate_action(sources, self.n_units)
        if not partition.is_tying(valid):
            raise ValueError(f"sources must name the lowest layer of each storage, got {valid.tolist()}")
        trained = self._trained(self._tying)
        owned = {i: aliases(self.weights(i), requires_grad=i in trained) for i in partition.leaders(valid)}
        weights = [
            owned[i] if i in owned else aliases(owned[int(source)], requires_grad=i in trained)
            for i, source in enumerate(valid)
        ]
        self._put(Plan(weights, None, None), None)


def make_blocks(
    replication: Replication, blocks: Sequence[nn.Module], tying: npt.ArrayLike | None, **choices: Any
) -> TiedBlocks:
    """Return the blocks tied in the chosen way; `choices` are those of `TiedBlocks`.

    Raises:
        ValueError: an unknown replication, or as `TiedBlocks`.
    """
    kinds = {"tied": TiedBlocks, "copied": CopiedBlocks, "aliased": AliasedBlocks}
    if replication not in kinds:
        raise ValueError(
            f"replication must be one of {', '.join(map(repr, get_args(Replication)))}, got {replication!r}"
        )
    return kinds[replication](blocks, tying, **choices)


def count_storages(blocks: TiedBlocks) -> int:
    """Return on how many storages the L layers compute; tied layers: one for each group."""
    return len(np.unique(blocks.sources()))
