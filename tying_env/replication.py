"""What replicating a layer means: tying, the paper's method; and two others for comparison with it.

`TiedBlocks` carries a change out, all or nothing; a `Replication` says which Parameters each layer computes with
afterwards, and which of them train.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch

from tying_env import partition, rule
from tying_env.slots import Weights, aliases

Gradient = Literal["shared", "leader"]
FirstTying = Literal["leader", "mean"]
ReplicationName = Literal["tied", "copied", "aliased"]

# torch's optimizers fill in the state of a Parameter when they first meet it.
OptimizerStates = defaultdict[torch.Tensor, Any]


@dataclass(frozen=True)
class Present:
    """What a change starts from.

    Attributes:
        tying: the tying in force, shape (L,).
        frozen: whether this is still the frozen start.
        weights: the Parameters that each layer computes with, L of them.
        copy: makes new Parameters with the values of a layer's; their optimizer state is as `TiedBlocks` was told.
    """

    tying: partition.IntVector
    frozen: bool
    weights: list[Weights]
    copy: Callable[[int], Weights]


@dataclass(frozen=True)
class Plan:
    """All that a change will put in place, made before anything is touched."""

    weights: list[Weights]
    optimizer_state: OptimizerStates | None
    param_groups: list[dict[str, Any]] | None


class Replication(Protocol):
    """One way to replicate layers."""

    def trained(self, tying: partition.IntVector) -> dict[int, list[int]]:
        """Return the layers whose Parameters the optimizer moves, each with all layers that move with it."""
        ...

    def replicate(self, present: Present, after: partition.IntVector) -> list[Weights]:
        """Return what each layer computes with under the tying `after`, shape (L,); change nothing."""
        ...

    def restore(self, present: Present, sources: partition.IntVector) -> list[Weights]:
        """Return what each layer computes with when its storage is that of layer `sources[i]`, shape (L,).

        Raises:
            ValueError: those storages do not belong to the tying in force.
        """
        ...


@dataclass(frozen=True)
class Tied:
    """Tying: the layers of a group are one set of weights.

    Args:
        gradient: `"shared"`: a leader's gradient is the sum over all layers of its group, as for any tied weight (the
            paper's text). `"leader"`: only the leader's own position contributes; followers compute with the same
            storage but need no weight gradient (the paper's published code).
        first_tying: what the first tying makes of the weights that the blocks came with: the layers of a group take
            the leader's (`"leader"`), or the mean over the group (`"mean"`).
        later_tying: the same of every other tying, for groups whose layers come from more than one.

    Raises:
        ValueError: an unknown choice.
    """

    gradient: Gradient = "shared"
    first_tying: FirstTying = "leader"
    later_tying: FirstTying = "leader"

    def __post_init__(self) -> None:
        check_choice("gradient", self.gradient, Gradient)
        check_choice("first_tying", self.first_tying, FirstTying)
        check_choice("later_tying", self.later_tying, FirstTying)

    def trained(self, tying: partition.IntVector) -> dict[int, list[int]]:
        """Return the groups by leader."""
        return rule.trained(tying)

    def replicate(self, present: Present, after: partition.IntVector) -> list[Weights]:
        """Return the weights of each layer's leader: W'[i] = W[s'[i]], or the mean over the group."""
        how = self.first_tying if present.frozen else self.later_tying
        origins = rule.origins(present.tying, present.frozen, after)
        led: dict[int, Weights] = {}
        seen: dict[int, Weights] = {}  # what the followers of a leader compute with
        for leader, members in partition.groups(after).items():
            joined = len(members) > 1 if present.frozen else len({present.tying[i] for i in members}) > 1
            if how == "mean" and joined:
                led[leader] = _mean(present, members)
            elif present.tying[leader] == leader:
                led[leader] = present.weights[leader]
            elif origins[leader] == leader:  # from the frozen start: its own values, and nobody else computes with them
                led[leader] = aliases(present.weights[leader], requires_grad=True)
            else:
                led[leader] = present.copy(origins[leader])
            seen[leader] = led[leader] if self.gradient == "shared" else aliases(led[leader], requires_grad=False)
        return [led[i] if i in led else seen[source] for i, source in enumerate(after.tolist())]

    def restore(self, present: Present, sources: partition.IntVector) -> list[Weights]:
        """Refuse: the tying decides on the storages."""
        raise _foreign(present, sources)


class Copied:
    """Replication without tying (paper, ablation v): a layer that is tied gets a copy, and trains on alone.

    At a tied event layer i gets the weights of layer s'[i], and a copy of their optimizer state (or none); every layer
    keeps Parameters of its own, and all of them train from the first decision on. An untied event changes nothing.
    """

    def trained(self, tying: partition.IntVector) -> dict[int, list[int]]:
        """Return every layer, alone."""
        return {i: [i] for i in range(len(tying))}

    def replicate(self, present: Present, after: partition.IntVector) -> list[Weights]:
        """Return copies for the layers that are tied now, and what they had for the others."""
        weights = []
        for i, source in enumerate(after.tolist()):
            if source != i and (present.frozen or source != present.tying[i]):
                weights.append(present.copy(source))
            elif any(not p.requires_grad for p in present.weights[i].values()):
                # Its own initial values, which train from now on. (Of each kind of block the lowest trains already.)
                weights.append(aliases(present.weights[i], requires_grad=True))
            else:
                weights.append(present.weights[i])
        return weights

    def restore(self, present: Present, sources: partition.IntVector) -> list[Weights]:
        """Refuse: every layer has a storage of its own."""
        raise _foreign(present, sources)


class Aliased:
    """What the paper's published code does (github.com/tamirdh/Dynamic-Layer-Tying), where it is not what it says.

    - A tied layer computes on its leader's storage and takes no gradient: the leader's position alone contributes.
    - Untying only lets the layer's Parameters take a gradient again. The storage stays shared, so that the layer never
      drifts away; the optimizer moves that storage once for each of them.
    - When a leader ties elsewhere its followers keep its old storage, while the tying says otherwise.
    - At the frozen start a layer that no decision has named keeps its initial values.

    `TiedBlocks.sources` tells on which storage each layer really computes.
    """

    def trained(self, tying: partition.IntVector) -> dict[int, list[int]]:
        """Return the groups by leader."""
        return rule.trained(tying)

    def replicate(self, present: Present, after: partition.IntVector) -> list[Weights]:
        """Return what the published code makes of a change."""
        weights: list[Weights] = []
        before = present.tying.tolist()
        for i, source in enumerate(after.tolist()):
            former = before[i]
            left_behind = former != i and after[former] == source != former
            if source == former or left_behind:
                weights.append(present.weights[i])
            elif source == i:
                weights.append(aliases(present.weights[i], requires_grad=True))
            else:  # a leader of `after` computes where it did before, or was dealt with above
                weights.append(aliases(weights[source], requires_grad=False))
        return weights

    def restore(self, present: Present, sources: partition.IntVector) -> list[Weights]:
        """Return the layers on these storages: what they are follows from all ties since the start.

        Raises:
            ValueError: they are no tying.
        """
        if not partition.is_tying(sources):
            raise ValueError(f"sources must name the lowest layer of each storage, got {sources.tolist()}")
        trained = self.trained(present.tying)
        owned = {i: aliases(present.weights[i], requires_grad=i in trained) for i in partition.leaders(sources)}
        return [
            owned[i] if i in owned else aliases(owned[source], requires_grad=i in trained)
            for i, source in enumerate(sources.tolist())
        ]


def find_replication(
    name: str,
    *,
    gradient: Gradient = "shared",
    first_tying: FirstTying = "leader",
    later_tying: FirstTying = "leader",
) -> Replication:
    """Return the way to replicate layers that has this name.

    Args:
        name: `"tied"`, `"copied"` or `"aliased"`.
        gradient: of tied layers, see `Tied`; the other two have no choice.
        first_tying: of tied layers, see `Tied`.
        later_tying: of tied layers, see `Tied`.

    Raises:
        ValueError: there is no way of this name.
    """
    check_choice("replication", name, ReplicationName)
    ways: dict[str, Replication] = {
        "tied": Tied(gradient, first_tying, later_tying),
        "copied": Copied(),
        "aliased": Aliased(),
    }
    return ways[name]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Check that a value is one of those of a Literal.

    Raises:
        ValueError: it is not; the message names it and the choices.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")


@torch.no_grad()
def _mean(present: Present, layers: list[int]) -> Weights:
    """Return new Parameters with the mean of some layers' values, and the optimizer state of the first."""
    mean = present.copy(layers[0])
    for name, parameter in mean.items():
        parameter.copy_(torch.stack([present.weights[i][name] for i in layers]).mean(0))
    return mean


def _foreign(present: Present, sources: partition.IntVector) -> ValueError:
    return ValueError(f"sources {sources.tolist()} do not belong to the tying {present.tying.tolist()}")
