"""Whether an optimizer of the user's own can be used where layers come and go: it is tried with small Parameters."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tying_env.seeding import GlobalStreams

# From groups, dictionaries of "params", "lr" and "weight_decay" among other things, to an optimizer of them all.
MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

# Steps for which a copy has to do as the original does. What happens at every n-th step alone shows up to n of 8.
_STEPS = 16


def check_optimizer(make: MakeOptimizer) -> None:
    """Check with small Parameters that an optimizer of the user's own can be used where the tying changes.

    Raises:
        ValueError: it cannot; the message names it and says why.
    """
    groups = _groups()
    outside, block = (group["params"] for group in groups)
    name = getattr(make, "__qualname__", None) or repr(make)
    try:
        made = stepped(make, groups)
    except Exception as error:
        raise ValueError(f"optimizer={name} cannot move Parameters that come and go: {error!r}") from error
    held = [[id(p) for p in group["params"]] for group in made.param_groups]
    if held != [[id(p) for p in part] for part in (outside, block)]:
        raise ValueError(f"optimizer={name} must keep the groups that it is given, all of them and as they are")
    for given, group in zip(groups, made.param_groups, strict=True):
        for key in given.keys() - {"params"}:
            if (found := group.get(key)) != given[key]:
                raise ValueError(
                    f"optimizer={name} must keep the groups that it is given, all of them and as they are: it made "
                    f"{key!r}, {given[key]!r}, {found!r}"
                )
    for toy in (*outside, *block):
        for key, entry in made.state[toy].items():
            number = isinstance(entry, (int, float)) or (isinstance(entry, Tensor) and entry.ndim == 0)
            if not number and not (isinstance(entry, Tensor) and entry.shape == toy.shape):
                found = f"a tensor of shape {tuple(entry.shape)}" if isinstance(entry, Tensor) else type(entry).__name__
                raise ValueError(
                    f"optimizer={name} cannot follow a tying: its state {key!r} of a Parameter of shape "
                    f"{tuple(toy.shape)} is {found}, neither a number nor a tensor of that shape"
                )
    _check_copies(make, name)


def toy_parameter(ndim: int, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    """Return a small Parameter, of ones."""
    return nn.Parameter(torch.ones(tuple(range(2, 2 + ndim)), dtype=dtype, device=device))


def stepped(make: MakeOptimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return a new optimizer after two steps that began without any state, as for Parameters that join later.

    Raises:
        TypeError, ValueError: it is not an optimizer, or keeps state in its groups.
    """
    optimizer = make([dict(group) for group in groups])
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    optimizer.state.clear()
    before = [_options(group) for group in optimizer.param_groups]
    for step in range(2):
        _step(optimizer, step)
    for was, group in zip(before, optimizer.param_groups, strict=True):
        for key, value in _options(group).items():
            if was.get(key) != value:
                raise ValueError(f"it keeps state in its parameter groups, {key!r}, which is not saved")
    return optimizer


def _check_copies(make: MakeOptimizer, name: str) -> None:
    """Check that a new optimizer with the state of another, as in a fork or a resumed run, goes on as that does."""
    optimizer = make(_groups())
    copies: list[torch.optim.Optimizer] = []
    for step in range(_STEPS):
        _step(optimizer, step)
        for other in copies:
            _step(other, step)
            if not all(map(torch.equal, _parameters(optimizer), _parameters(other))):
                raise ValueError(
                    f"optimizer={name} cannot be saved: a copy with its state and groups moves Parameters otherwise "
                    f"after step {step + 1}. What it remembers must be in its state, for each Parameter by itself"
                )
        if len(copies) < 2 and step in (0, 4):
            copies.append(_copy(make, optimizer))


def _copy(make: MakeOptimizer, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    made = make(_groups())
    for mine, theirs in zip(_parameters(made), _parameters(optimizer), strict=True):
        mine.data.copy_(theirs.data)
        if theirs in optimizer.state:
            made.state[mine] = copy.deepcopy(optimizer.state[theirs])
    return made


def _groups() -> list[dict[str, Any]]:
    """Return groups as they are in training: of what is outside the blocks, and of a layer."""
    cpu, rate = torch.device("cpu"), 1e-3
    outside, block = ([toy_parameter(ndim, torch.float32, cpu) for ndim in (2, 1)] for _ in range(2))
    common = {"lr": rate, "weight_decay": 0.0}
    return [
        {"params": outside, **common},
        {"params": block, **common, "initial_lr": rate, "base_lr": rate, "leader": 0},
    ]


def _step(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Take a step; what it draws depends on the step alone, and the shared generators stay where they are."""
    for parameter in _parameters(optimizer):
        parameter.grad = torch.full_like(parameter, 0.1 / (1 + step))
    with GlobalStreams(step).lent():
        optimizer.step()


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _options(group: Mapping[str, Any]) -> dict[str, str]:
    return {key: repr(value) for key, value in group.items() if key != "params"}
