"""Which optimizer moves what, and what state it keeps.

An optimizer is made by a function from parameter groups; `torch.optim.NAdam` is such a function. Each group has its
learning rate and weight decay, and TiedBlocks and the schedule keep them up to date. The state follows the tying for
any optimizer that keeps numbers, and tensors of a Parameter's shape, for each Parameter by itself.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tying_env.config import EnvConfig
from tying_env.named_tensors import check_dtypes, check_tensors
from tying_env.primary.own_optimizer import MakeOptimizer, check_optimizer, stepped, toy_parameter
from tying_env.tied_blocks import TiedBlocks

# Of a group, what does not bear on the state that is kept of its Parameters.
_CHANGING = {"params", "lr", "initial_lr", "base_lr", "leader", "age"}


class Entry(NamedTuple):
    """One entry of the state that an optimizer keeps of a Parameter."""

    like: bool  # a tensor of the Parameter's shape; else one number
    kind: torch.dtype | type  # of a tensor, or of a number in Python
    device: torch.device | None  # of a tensor


class Several(torch.optim.Optimizer):
    """Several optimizers as one: a group is moved by the one that it names under "method"; they share one state.

    Args:
        groups: all groups.
        makers: the optimizers by method, each made from its groups.
    """

    def __init__(self, groups: list[dict[str, Any]], makers: Mapping[str, MakeOptimizer]) -> None:
        self._parts = {
            method: make(mine)
            for method, make in makers.items()
            if (mine := [group for group in groups if group["method"] == method])
        }
        super().__init__(groups, {})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_parts": self._parts}  # torch's are those of a plain optimizer

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch's may return the closure's loss
        """Take a step with each of them."""
        for method, part in self._parts.items():
            # Set at every step: a change of the tying puts others in their place.
            part.state = self.state
            part.param_groups = [group for group in self.param_groups if group["method"] == method]
            part.step(closure)


def choose_optimizer(config: EnvConfig, own: MakeOptimizer | None = None) -> MakeOptimizer:
    """Return what makes the optimizer that the settings ask for.

    Args:
        config: the training recipe.
        own: a function of the user's, for `optimizer="custom"`.

    Raises:
        ValueError: the user's is missing, or makes an optimizer that cannot be used; the message says why.
    """
    if config.optimizer == "custom":
        if own is None:
            raise ValueError(
                "optimizer='custom' is one of your own: give LayerTyingEnv a function, optimizer=torch.optim.NAdam"
            )
        check_optimizer(own)
        return own
    # fused: one pass over weights, gradients and state instead of a dozen
    adamw = partial(torch.optim.AdamW, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    if config.optimizer == "adamw":
        return adamw
    if config.optimizer == "sgd":
        return partial(torch.optim.SGD, momentum=config.momentum, fused=True)
    # Updates as large as AdamW's, so that one learning rate does for both (Liu et al., arXiv 2502.16982).
    muon = partial(torch.optim.Muon, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
    return partial(Several, makers={"muon": muon, "adamw": adamw})


def make_groups(config: EnvConfig, outside: Sequence[nn.Parameter], tied: TiedBlocks) -> list[dict[str, Any]]:
    """Return the parameter groups: what is outside the blocks, then each leader's, by learning rate and weight decay.

    Args:
        config: the training recipe.
        outside: what trains outside the blocks.
        tied: the blocks.
    """
    groups = [{"params": list(outside), "lr": config.learning_rate}, *tied.parameter_groups(config.learning_rate)]
    return [part for group in groups for part in _split(config, group)]


def _split(config: EnvConfig, group: dict[str, Any]) -> list[dict[str, Any]]:
    parts: dict[tuple[Any, ...], list[nn.Parameter]] = {}
    for parameter in group["params"]:
        matrix = parameter.ndim >= 2
        decay = config.weight_decay if matrix or config.decayed_parameters == "all" else 0.0
        # Muon is for the matrices of hidden layers: not for embeddings, nor for convolutions.
        muon = "leader" in group and parameter.ndim == 2
        method = None if config.optimizer != "muon" else "muon" if muon else "adamw"
        parts.setdefault((decay, method), []).append(parameter)
    return [
        group | {"params": parameters, "weight_decay": decay} | ({} if method is None else {"method": method})
        for (decay, method), parameters in parts.items()
    ]


class StateLayouts:
    """What state an optimizer keeps of a Parameter, found out with a small one of the same kind.

    Args:
        make: makes the optimizer.
    """

    def __init__(self, make: MakeOptimizer) -> None:
        self._make = make
        self._known: dict[Any, dict[str, Entry]] = {}

    def of(self, group: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, Entry]:
        """Return the entries for a Parameter of this group, by name."""
        options = {key: value for key, value in group.items() if key not in _CHANGING}
        key = (repr(sorted(options.items())), parameter.ndim, parameter.dtype, parameter.device)
        if key not in self._known:
            toy = toy_parameter(parameter.ndim, parameter.dtype, parameter.device)
            made = stepped(self._make, [{**group, "params": [toy]}])
            self._known[key] = _entries(made, toy)
        return self._known[key]

    def bytes_of(self, group: Mapping[str, Any], parameter: nn.Parameter) -> int:
        """Return the bytes of the state of a Parameter, single numbers left out."""
        kinds = [entry.kind for entry in self.of(group, parameter).values() if entry.like]
        return parameter.numel() * sum(kind.itemsize for kind in kinds if isinstance(kind, torch.dtype))

    def check(
        self, group: Mapping[str, Any], parameter: nn.Parameter, entries: Mapping[str, Any], where: str
    ) -> dict[str, Any]:
        """Check the state of a Parameter that was read, and return it where the optimizer keeps it.

        Raises:
            ValueError: an entry is missing, unexpected, or not of its shape and type; the message names it.
        """
        layout = self.of(group, parameter)
        tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
        expected = {name: entry for name, entry in layout.items() if isinstance(entry.kind, torch.dtype)}
        shape = tuple(parameter.shape)
        check_tensors(tensors, {name: shape if entry.like else () for name, entry in expected.items()}, where)
        check_dtypes(tensors, {name: e.kind for name, e in expected.items() if isinstance(e.kind, torch.dtype)}, where)
        for name in {*entries, *layout} - set(expected):
            kind = layout[name].kind if name in layout else None
            if type(entries.get(name)) is not kind or not math.isfinite(entries[name]):
                raise ValueError(f"{where} must have a number {name!r}, got {entries.get(name)!r}")
        return {
            name: value.clone().to(layout[name].device) if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }


def _entries(optimizer: torch.optim.Optimizer, toy: nn.Parameter) -> dict[str, Entry]:
    return {
        key: Entry(toy.shape == value.shape and toy.ndim > 0, value.dtype, value.device)
        if isinstance(value, Tensor)
        else Entry(False, type(value), None)
        for key, value in optimizer.state[toy].items()
    }
