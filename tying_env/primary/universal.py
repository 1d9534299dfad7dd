"""What makes a GPT-2 whose layers are tied a Universal Transformer (Dehghani et al., 2019, arXiv 1807.03819).

Steps: a layer whose weights are another's computes the same function wherever it stands. An embedding of the step,
added to what a layer reads, tells it where it is.

Halting: every position decides for itself after how many layers it is done (adaptive computation time; Graves, 2016,
arXiv 1603.08983). After layer n its state s_n gives a probability p_n = sigmoid(w s_n + b), of one w and b for all
layers. It halts at the first layer N at which these add up to `THRESHOLD`, or at the last one. p_N is then replaced by
the remainder R = 1 - (p_1 + ... + p_(N-1)), and what the final norm reads is the mean of the states under these
weights. A position that has halted keeps its state: the others attend to it in the layers that follow. Time costs:
N + R is the position's ponder cost, whose gradient goes through R alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

# Graves's 1 - epsilon, so that a position can halt after its first layer.
THRESHOLD = 0.99
# Of b: at first a position halts after two layers. tensor2tensor's `act_halting_bias_init`.
_BIAS = 1.0
# What GPT-2's embeddings are drawn with; embeddings of steps of another size would drown them, or drown in them.
_SIZE = 0.02

_HALTING, _STEP = "halting", "step_embedding"


class StepEmbedding(nn.Module):
    """Vectors (L, D), one for each step: learned, or sines and cosines of the step's number."""

    weight: Tensor

    def __init__(self, kind: str, steps: int, width: int) -> None:
        super().__init__()
        if kind == "learned":
            self.weight = nn.Parameter(torch.empty(steps, width))
            nn.init.normal_(self.weight, std=_SIZE)
        else:
            self.register_buffer("weight", _sinusoidal(steps, width), persistent=False)


@dataclass
class _Pass:
    """What is known of the positions (B, T) while a forward pass lasts; in float32 at least, for 0.99 is near 1.

    Attributes:
        before: what the layer at work read, (B, T, D).
        output: the weighted sum of the states so far, (B, T, D).
        total: the weights so far, added up.
        steps: how many layers a position has computed.
        remainder: the weight of its last state; 0 before it has halted.
        running: which positions have not halted.
    """

    before: Tensor
    output: Tensor
    total: Tensor
    steps: Tensor
    remainder: Tensor
    running: Tensor

    @classmethod
    def begin(cls, states: Tensor) -> Self:
        """Return that of a pass which begins with these states, (B, T, D)."""
        output = torch.zeros_like(states, dtype=torch.promote_types(states.dtype, torch.float32))
        none = output.new_zeros(states.shape[:2])
        return cls(states, output, none, none, none, torch.ones_like(none, dtype=torch.bool))


class Halting(nn.Module):
    """Decides after each layer which positions are done.

    Args:
        steps: L.
        width: D.
    """

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.unit = nn.Linear(width, 1)
        nn.init.normal_(self.unit.weight, std=_SIZE)
        nn.init.constant_(self.unit.bias, _BIAS)
        self._last = steps - 1
        self._pass: _Pass | None = None

    def enter(self, layer: int, states: Tensor) -> None:
        """Take note of what a layer reads, (B, T, D)."""
        if layer == 0:
            self._pass = _Pass.begin(states)
        self._now.before = states

    def leave(self, layer: int, states: Tensor) -> Tensor:
        """Return what the next layer reads: a layer's output where positions are running, (B, T, D)."""
        now = self._now
        p = self.unit(states).squeeze(-1).to(now.total.dtype).sigmoid()  # (B, T)
        halts = now.running if layer == self._last else now.running & (now.total + p >= THRESHOLD)
        weight = torch.where(halts, 1 - now.total, p) * now.running
        reads = torch.where(now.running[..., None], states, now.before)
        now.output = now.output + weight[..., None] * states
        now.total = now.total + weight
        now.steps = now.steps + now.running
        now.remainder = now.remainder + weight * halts
        now.running = now.running & ~halts
        return reads

    def mean(self) -> Tensor:
        """Return the weighted mean of the states, (B, T, D), of their type."""
        return self._now.output.to(self._now.before.dtype)

    def end(self) -> tuple[Tensor, Tensor]:
        """Forget the forward pass; return how many layers each position computed, (B, T), and the mean ponder cost."""
        now = self._now
        self._pass = None
        return now.steps.long(), (now.steps + now.remainder).mean()

    def forget(self) -> None:
        """Forget a forward pass that may have failed."""
        self._pass = None

    @property
    def _now(self) -> _Pass:
        if self._pass is None:
            raise RuntimeError("positions halt within a whole network: compute that, not a block of it")
        return self._pass


def add_steps(trunk: nn.Module, blocks: list[nn.Module], kind: str, width: int) -> None:
    """Have every block of a GPT-2 read the embedding of its step as well; a learned one comes from torch's generator.

    Args:
        trunk: the module that computes the blocks one after the other.
        blocks: L of them.
        kind: "learned" or "sinusoidal".
        width: D.
    """
    embedding = StepEmbedding(kind, len(blocks), width)
    trunk.add_module(_STEP, embedding)
    for layer, block in enumerate(blocks):
        setattr(block, f"_{_STEP}", (embedding, layer))  # in a tuple: no part of the block
        block.register_forward_pre_hook(_add_step)


def add_halting(trunk: nn.Module, blocks: list[nn.Module], width: int) -> None:
    """Have every position of a GPT-2 halt by itself; its `halting.unit` comes from torch's generator.

    What the trunk returns has two more entries then: `steps`, the layers that each position computed (B, T), and
    `ponder_cost`, a scalar.

    Args:
        trunk: the module that computes the blocks one after the other, and a final norm, `ln_f`.
        blocks: L of them.
        width: D.
    """
    halting = Halting(len(blocks), width)
    trunk.add_module(_HALTING, halting)
    for layer, block in enumerate(blocks):
        setattr(block, f"_{_HALTING}", (halting, layer))
        block.register_forward_pre_hook(_enter, prepend=True)  # before the step is added: a state that stays has none
        block.register_forward_hook(_leave)
    norm = trunk.get_submodule("ln_f")
    setattr(norm, f"_{_HALTING}", (halting,))
    norm.register_forward_pre_hook(_mean)
    trunk.register_forward_hook(_report)
    trunk.register_forward_hook(_forget, always_call=True)


@torch.no_grad()
def merge_steps(model: Any) -> None:
    """Add the steps' embeddings to weights of a GPT-2 whose layers have weights of their own, and take them away.

    A vector that is the same at all positions can as well come from the positions' embeddings, or from the bias of the
    layer before.
    """
    trunk = model.transformer
    if _STEP not in dict(trunk.named_children()):
        return
    first, *others = trunk.get_submodule(_STEP).weight.to(trunk.wpe.weight.dtype)
    trunk.wpe.weight.add_(first)
    for block, step in zip(trunk.h, others, strict=False):
        block.mlp.c_proj.bias.add_(step)
    delattr(trunk, _STEP)
    for block in trunk.h:
        for key in [key for key, hook in block._forward_pre_hooks.items() if hook is _add_step]:
            del block._forward_pre_hooks[key]


def _sinusoidal(steps: int, width: int) -> Tensor:
    """Return sines and cosines of the steps' numbers, from 1 on (Dehghani et al., Eq. 6 and 7), in GPT-2's size."""
    channels = torch.arange(width)
    angles = torch.arange(1, steps + 1)[:, None] / 10_000 ** ((channels - channels % 2) / width)
    return _SIZE * 2**0.5 * torch.where(channels % 2 == 0, angles.sin(), angles.cos())


def _add_step(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    embedding, layer = getattr(block, f"_{_STEP}")
    return args[0] + embedding.weight[layer].to(args[0].dtype), *args[1:]


def _enter(block: nn.Module, args: tuple[Any, ...]) -> None:
    halting, layer = getattr(block, f"_{_HALTING}")
    halting.enter(layer, args[0])


def _leave(block: nn.Module, _: Any, output: Tensor) -> Tensor:
    halting, layer = getattr(block, f"_{_HALTING}")
    states: Tensor = halting.leave(layer, output)
    return states


def _mean(norm: nn.Module, _: Any) -> Tensor:
    (halting,) = getattr(norm, f"_{_HALTING}")
    mean: Tensor = halting.mean()
    return mean


def _report(trunk: nn.Module, _: Any, output: Any) -> None:
    halting: Any = trunk.get_submodule(_HALTING)
    steps, cost = halting.end()
    if not isinstance(output, tuple):  # which is for callers who want no names
        output["steps"], output["ponder_cost"] = steps, cost


def _forget(trunk: nn.Module, *_: Any) -> None:
    halting: Any = trunk.get_submodule(_HALTING)
    halting.forget()
