"""The state of a training as plain data, and back: all that its remaining steps depend on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tying_env.named_tensors import check_dtypes, check_tensors
from tying_env.primary.accounting import MemoryBytes
from tying_env.seeding import restored_torch

if TYPE_CHECKING:
    from tying_env.primary.trainer import Trainer


def capture(trainer: Trainer, copy: bool = True) -> dict[str, Any]:
    """Return everything that training depends on: tensors by name, the rest ready for JSON.

    Args:
        trainer: what trains.
        copy: whether the tensors are copies. Without, they are the live ones: write them down at once.
    """
    names = {id(p): name for name, p in trainer.network.model.named_parameters()}
    return {
        "tying": trainer.tied.tying.tolist(),
        "seed": trainer.seed,
        "frozen": trainer.tied.frozen,
        "sources": trainer.tied.sources().tolist(),
        "steps": trainer.rates.steps,
        "ages": trainer.rates.ages,
        "residual": trainer.residual.state_dict(),
        "norms": list(trainer.norms),
        "tokens": trainer.tokens,
        "memory_in_training": list(trainer.memory_in_training),
        "batches": trainer.feed.state_dict(),
        "dropout": trainer.gradients.dropout.get_state(),
        "streams": trainer.streams.state_dict(),
        "weights": {name: t.clone() if copy else t for name, t in trainer.named_tensors().items()},
        "optimizer": {
            names[id(p)]: {k: v.clone() if copy and isinstance(v, Tensor) else v for k, v in entries.items()}
            for p, entries in trainer.optimizer.state.items()
        },
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put a trainer that has the same network and tying into a state that `capture` gave.

    Raises:
        ValueError: names, shapes or the tying do not fit; the message says which. Nothing is changed then.
    """
    # What states of before there were schedules, scales and these streams do not have is as a new trainer has it.
    new = {"ages": trainer.rates.ages, "residual": trainer.residual.state_dict(), "norms": [0.0, 0]}
    state = new | {"streams": trainer.streams.state_dict()} | state
    # 1. Check.
    own, groups = trainer.named_tensors(), trainer.groups()
    trained = {name: p for name, p in trainer.network.model.named_parameters() if p in groups}
    moments: dict[Tensor, dict[str, Any]] = {}
    _check_tying(trainer, state)
    check_tensors(state["weights"], {name: tuple(t.shape) for name, t in own.items()})
    check_dtypes(state["weights"], {name: t.dtype for name, t in own.items()})
    for name, entries in state["optimizer"].items():
        if name not in trained:
            raise ValueError(f"the optimizer state names {name!r}, which this network does not train")
        p = trained[name]
        moments[p] = trainer.layouts.check(groups[p], p, entries, f"optimizer state of {name!r}")
    total, count = _checked_norms(state["norms"])
    counts = [state["steps"], state["tokens"], *state["memory_in_training"]]
    if len(counts) != 5 or any(type(number) is not int or not 0 <= number <= 2**63 for number in counts):
        raise ValueError(f"the state's steps, tokens and bytes must be five whole numbers, got {counts}")
    ages = state["ages"]
    if set(ages) != set(trainer.rates.ages) or any(
        age is not None and (type(age) is not int or not 0 <= age <= 2**63) for age in ages.values()
    ):
        raise ValueError(f"the state's ages must be whole numbers, or none, for all leaders, got {ages}")
    trainer.residual.check(state["residual"])
    restored_torch(trainer.gradients.dropout, state["dropout"])
    streams = trainer.streams.check(state["streams"])
    # 2. Change; the feed checks its part first.
    trainer.feed.load_state_dict(state["batches"])
    trainer.gradients.dropout.set_state(state["dropout"])
    trainer.streams = streams
    trainer.norms = (total, count)
    trainer.tokens, trainer.memory_in_training = state["tokens"], MemoryBytes(*state["memory_in_training"])
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state["weights"][name])
    trainer.residual.load_state_dict(state["residual"])
    trainer.optimizer.state.clear()
    trainer.optimizer.state.update(moments)
    trainer.rates.restore(state["steps"], state["ages"])


def _check_tying(trainer: Trainer, state: dict[str, Any]) -> None:
    tied = trainer.tied
    for key, own in (("tying", tied.tying.tolist()), ("sources", tied.sources().tolist())):
        if state[key] != own:
            raise ValueError(f"the state is of the {key} {state[key]}, this network has {own}")


def _checked_norms(norms: Any) -> tuple[float, int]:
    match norms:
        case [float(total), int(count)] if math.isfinite(total) and total >= 0 and 0 <= count <= 2**63:
            return total, count
    raise ValueError(f"the state's gradient norms must be a sum and a count, got {norms!r}")
