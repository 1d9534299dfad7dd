"""Makes the blocks of a network share Parameters, and changes who shares with whom while it trains.

It works on any list of structurally equal modules. Parameters are shared, not modules: every block stays its own
module, so that its layer index, dropout and KV-cache slot stay right.

The one rule, for a change of the tying from s to s' where W[i] are the weights layer i computed with before:

    W'[i] = W[s'[i]]    for every layer i

- A leader that stays a leader keeps its very Parameter objects and their optimizer state.
- A new leader gets new Parameters: a copy of the weights it has been computing with. From then on it drifts alone.
- A follower's own Parameters, gradients and optimizer state are dropped, and their memory is free.

Source: Hay & Wolf, ICLR 2024, Sec. 3 and Algorithm 1 lines 2 and 10-19.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env import partition, rule
from tying_env.left_behind import LeftBehind
from tying_env.merging import guard_adapters, mark_shared
from tying_env.redrawing import Recipe, ReleasedWeights
from tying_env.replication import OptimizerStates, Plan, Present, Replication, Tied, check_choice
from tying_env.rule import GroupLR
from tying_env.slots import TiedParameters, Weights, apart, check_kinds, check_reached, get, put, slots

OptimizerState = Literal["inherit", "reset"]


class TiedBlocks:
    """Structurally equal blocks whose Parameters are shared as a tying says.

    Parameters that take no gradient when the blocks are handed over stay as they are, each block's own: of a network
    that only trains adapters, the adapters are tied.

    Args:
        blocks: L modules with the same parameter names, shapes and dtypes, sharing nothing yet.
        tying: the tying to begin with, shape (L,). None is the paper's frozen start (Algorithm 1, line 2): layers
            1..L-1 stay at their own initial values without training, and the tying is reported as all zeros. At the
            first change a layer that becomes a leader starts from those values.
        replication: what becomes of a layer that copies another: `Tied()`, which has choices of its own, or another
            way of `tying_env.replication`.
        optimizer_state: what a new leader's optimizer state is: `"inherit"`, a copy of its former leader's, or
            `"reset"`, empty.
        group_lr: the learning rate of a group of n layers: lr (`"none"`), lr/sqrt(n) (`"sqrt"`), lr/n (`"linear"`).
        kinds: for each block the lowest one of its kind, shape (L,): only blocks of one kind have to be equal, and only
            they can be tied. None: all are of one kind. At the frozen start the lowest of each kind trains.
        recipes: how to draw the initial values of Parameters. Layers that have one for each of theirs hold no values
            during the frozen start; their Parameters may be, and are until then, on the meta device.
        only: what of a block is tied: all its Parameters, or the matrices; the others are every block's own then, train
            at all times, and belong into the optimizer with what is outside the blocks.

    Raises:
        ValueError: no blocks, blocks that differ or already share Parameters, an unknown choice, a wrong tying.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        tying: npt.ArrayLike | None = None,
        *,
        replication: Replication | None = None,
        optimizer_state: OptimizerState = "inherit",
        group_lr: GroupLR = "none",
        kinds: npt.ArrayLike | None = None,
        recipes: Mapping[nn.Parameter, Recipe] | None = None,
        only: TiedParameters = "all",
    ) -> None:
        check_choice("only", only, TiedParameters)
        check_choice("optimizer_state", optimizer_state, OptimizerState)
        check_choice("group_lr", group_lr, GroupLR)
        self.kinds = np.zeros(len(blocks), dtype=np.int64) if kinds is None else np.asarray(kinds)
        check_kinds(blocks, self.kinds, only)
        initial = None if tying is None else partition.canonicalise(partition.validate_action(tying, len(blocks)))
        self.blocks = list(blocks)
        self.replication = Tied() if replication is None else replication
        self.optimizer_state: OptimizerState = optimizer_state
        self.group_lr: GroupLR = group_lr
        self.only: TiedParameters = only
        self.left_behind = LeftBehind()
        self._slots = [slots(block, only) for block in self.blocks]
        self._tying = self.kinds.copy()
        self._frozen = True
        first = next(iter(self.weights(0).values()))
        self._released = ReleasedWeights(first.device, first.dtype)
        for layer in np.flatnonzero(self.kinds != np.arange(len(self.blocks))).tolist():
            for parameter in self.weights(layer).values():
                parameter.requires_grad_(False)
            if recipes:
                self._released.release(layer, self.blocks[layer], self._slots[layer], recipes)
        guard_adapters(self.blocks, self._slots)
        if initial is not None:
            self.change(initial)

    @property
    def n_units(self) -> int:
        """L, the number of blocks."""
        return len(self.blocks)

    @property
    def tying(self) -> partition.IntVector:
        """A copy of the tying in force, shape (L,)."""
        return self._tying.copy()

    @property
    def frozen(self) -> bool:
        """Whether this is still the frozen start: layers 1..L-1 hold values of their own and do not train."""
        return self._frozen

    def weights(self, layer: int) -> Weights:
        """Return the Parameters that block `layer` computes with, by name."""
        return {name: get(slot) for name, slot in self._slots[layer].items()}

    def sources(self) -> partition.IntVector:
        """Return for each layer the lowest layer on whose storage it computes, shape (L,).

        That is the tying, but for the frozen start, where every layer has a storage of its own.
        """
        # Not by address: on the meta device all would have the same.
        storages = [next(iter(self.weights(i).values())).untyped_storage()._cdata for i in range(self.n_units)]
        return np.array([storages.index(storage) for storage in storages])

    def restore_sources(self, sources: npt.ArrayLike) -> None:
        """Compute on these storages again, shape (L,), as `sources` gave them for the tying in force.

        Raises:
            TypeError, ValueError: they do not belong to this tying.
        """
        given = partition.validate_action(sources, self.n_units)
        if not np.array_equal(given, self.sources()):
            self._put(Plan(self.replication.restore(self._present(None), given), None, None), None)

    def owners(self) -> list[int]:
        """Return the layers that hold weights: the leaders, and at the frozen start every layer."""
        return partition.leaders(self.sources())

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one optimizer parameter group per leader, each with the learning rate of its group of layers.

        Hand them to a torch optimizer, beside groups for what lies outside the blocks; `change` keeps them up to date.
        A group may be split before, and its parts be given options of their own. A schedule of learning rates sets
        "lr", as a multiple of the group's own rate, "initial_lr". It may count the training steps since a change gave a
        leader other layers or new Parameters under "age", which is None where none has yet, and 0 after such a change.
        """
        return [
            self._parameter_group(leader, self.weights(leader), len(layers), lr)
            for leader, layers in self._trained_now().items()
        ]

    def change(
        self,
        tying: npt.ArrayLike,
        optimizer: torch.optim.Optimizer | None = None,
        prepare: Callable[[list[Weights], list[Weights]], None] | None = None,
    ) -> partition.TyingEvents:
        """Put `tying` in force, all or nothing: whatever goes wrong, everything is as it was.

        Args:
            tying: shape (L,); an action will do, it is made canonical.
            optimizer: the optimizer that holds the groups of `parameter_groups`, whose groups and state follow.
            prepare: called before a change with what each block computes with and what it will, L each, to look at.

        Returns:
            The tied and untied events of this change.

        Raises:
            TypeError, ValueError: not a valid tying, or one that ties blocks of two kinds; nothing is changed.
        """
        after = partition.canonicalise(partition.validate_action(tying, self.n_units))
        if (self.kinds[after] != self.kinds).any():
            i = int(np.flatnonzero(self.kinds[after] != self.kinds)[0])
            raise ValueError(f"layer {i} cannot copy layer {after[i]}: their blocks are of two kinds")
        events = partition.events(self._tying, after)
        if not self._frozen and np.array_equal(after, self._tying):
            return events
        self.hold(partition.leaders(after))
        plan = self._plan(after, optimizer)
        before = Plan(
            [self.weights(i) for i in range(self.n_units)],
            None if optimizer is None else optimizer.state,
            None if optimizer is None else optimizer.param_groups,
        )
        if prepare is not None:
            prepare(before.weights, plan.weights)
        undo_tying, undo_frozen, undo_released = self._tying, self._frozen, dict(self._released.layers)
        try:
            self._put(plan, optimizer)
            self._tying, self._frozen = after, False
            self._released.layers.clear()  # they copy others from now on
            self.left_behind.watch_replaced(before.weights, plan.weights)
            return events
        except BaseException:  # Ctrl-C too
            self._put(before, optimizer)
            self._tying, self._frozen = undo_tying, undo_frozen
            self._released.layers.update(undo_released)
            raise

    def hold(self, layers: Sequence[int] | None = None) -> None:
        """Hold the initial values of these frozen layers, all by default, from now on."""
        for layer in list(self._released.layers):
            if layers is None or layer in layers:
                put(self._slots[layer], self._released.draw(layer))
                del self._released.layers[layer]

    def check_reached(self, model: nn.Module) -> None:
        """Check that a network which has computed something has not taken hold of weights that a tying would replace.

        Raises:
            ValueError: it has, in a list that its first forward pass made, say; the message says where.
        """
        check_reached(self._slots, model)

    def apart(self) -> contextlib.AbstractContextManager[list[Weights]]:
        """Let every layer whose values are held compute with Parameters of its own; see `tying_env.slots.apart`."""
        return apart([{} if i in self._released.layers else places for i, places in enumerate(self._slots)])

    def _plan(self, after: partition.IntVector, optimizer: torch.optim.Optimizer | None) -> Plan:
        """Make the Parameters, optimizer state and groups of `after` beside the present ones."""
        state = None if optimizer is None else defaultdict(dict, optimizer.state)
        weights = self.replication.replicate(self._present(state), after)
        if optimizer is None or state is None:
            return Plan(weights, None, None)
        groups = [group for group in optimizer.param_groups if "leader" not in group]
        before, ages = self._trained_now(), {group.get("leader"): group.get("age") for group in optimizer.param_groups}
        for leader, layers in self.replication.trained(after).items():
            untouched = before.get(leader) == layers and _same(weights[leader], self.weights(leader))
            age = ages[leader] if untouched else 0
            groups += self._groups_alike(optimizer, leader, weights[leader], len(layers), age)
        alive = {id(p) for group in groups for p in group["params"]}
        return Plan(weights, defaultdict(dict, {p: s for p, s in state.items() if id(p) in alive}), groups)

    def _trained_now(self) -> dict[int, list[int]]:
        """Return the layers whose Parameters the optimizer moves, each with all layers that move with it."""
        if self._frozen:
            return rule.trained(self._tying, frozen=True, kinds=self.kinds)
        return self.replication.trained(self._tying)

    def _present(self, state: OptimizerStates | None) -> Present:
        weights = [self.weights(i) for i in range(self.n_units)]
        return Present(self.tying, self._frozen, weights, lambda layer: self._copy(layer, state))

    def _copy(self, layer: int, state: OptimizerStates | None) -> Weights:
        """Return new Parameters with the values of a layer's, and enter a copy of their optimizer state."""
        created: dict[int, nn.Parameter] = {}  # a block may use one Parameter under two names
        for parameter in self.weights(layer).values():
            if id(parameter) in created:
                continue
            created[id(parameter)] = new = nn.Parameter(parameter.detach().clone())
            if state is not None and parameter in state and self.optimizer_state == "inherit":
                state[new] = {
                    key: value.clone() if isinstance(value, torch.Tensor) else value
                    for key, value in state[parameter].items()
                }
        return {name: created[id(parameter)] for name, parameter in self.weights(layer).items()}

    def _put(self, plan: Plan, optimizer: torch.optim.Optimizer | None) -> None:
        """Set references, nothing else: no memory is taken here, no number computed."""
        for places, weights in zip(self._slots, plan.weights, strict=True):
            put(places, weights)
        mark_shared(self._slots)
        if optimizer is not None and plan.param_groups is not None and plan.optimizer_state is not None:
            optimizer.state = plan.optimizer_state
            optimizer.param_groups = plan.param_groups

    def _groups_alike(
        self, optimizer: torch.optim.Optimizer, leader: int, weights: Weights, size: int, age: int | None
    ) -> list[dict[str, Any]]:
        """Return groups for a leader's Parameters, with the options that those of the same names have now."""
        like = self.weights(int(self.kinds[leader]))  # the lowest layer of a kind trains at all times
        names = defaultdict(list)
        for name, parameter in like.items():
            names[id(parameter)].append(name)
        groups = []
        for group in (group for group in optimizer.param_groups if "leader" in group):
            if found := [name for p in group["params"] for name in names.pop(id(p), [])]:
                own = self._parameter_group(leader, {name: weights[name] for name in found}, size, group["base_lr"])
                groups.append(group | own | {"age": age})
        if names:
            raise ValueError("optimizer lacks groups made by TiedBlocks.parameter_groups: its state cannot follow")
        return groups

    def _parameter_group(self, leader: int, weights: Weights, size: int, lr: float) -> dict[str, Any]:
        rate = lr / rule.lr_divisor(self.group_lr, size)
        unique = list(dict.fromkeys(weights.values()))
        return {"params": unique, "lr": rate, "initial_lr": rate, "base_lr": lr, "leader": leader, "age": None}


def _same(one: Weights, other: Weights) -> bool:
    return all(one[name] is other[name] for name in other)
