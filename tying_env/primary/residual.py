"""How much a block's residual branches add: less where its weights are used more often.

A block that n layers use adds n times what a block of its own does; multiplied by n^-1/2 or n^-1 the sum stays alike
(DeepLoop, arXiv 2607.13491, scales loops so). Each layer's scale is a buffer of the model, every layer's own: files,
states and forks hold it as they hold weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tying_env.config import EnvConfig
from tying_env.tied_blocks import TiedBlocks

if TYPE_CHECKING:
    from tying_env.primary.models import PrimaryNetwork

# The modules in a block whose output is added to the residual stream: GPT-2's, BERT's, ViT's for both branches, and
# LLaMA's; with the linear layers that their output comes from.
_BRANCHES: dict[str, tuple[str, ...]] = {
    "attn.resid_dropout": ("attn.c_proj",),
    "mlp.dropout": ("mlp.c_proj",),
    "attention.output.dropout": ("attention.output.dense",),
    "output.dropout": ("output.dense",),
    "dropout": ("attention.o_proj", "mlp.fc2"),
    "self_attn": ("self_attn.o_proj",),  # with the weights of the attention, as a pair
    "mlp": ("mlp.down_proj",),
}
_NAME = "residual_scale"


def add_scales(blocks: Sequence[nn.Module]) -> None:
    """Multiply the residual branches of GPT-2's, LLaMA's, BERT's or ViT's blocks by a buffer, which begins as 1."""
    for block in blocks:
        for branch in _branches(block):
            branch.register_buffer(_NAME, torch.tensor(1.0))
            branch.register_forward_hook(_scaled)


def has_scales(model: nn.Module) -> bool:
    """Tell whether a network's residual branches are scaled."""
    return any(name.endswith(_NAME) for name, _ in model.named_buffers())


@torch.no_grad()
def merge_scales(blocks: Sequence[nn.Module]) -> None:
    """Scale the weights of the branches, which must have storage of their own, and take the buffers away."""
    for block in blocks:
        for path, linears in _BRANCHES.items():
            branch = _get(block, path)
            if branch is None or _NAME not in dict(branch.named_buffers(recurse=False)):
                continue
            scale = branch.get_buffer(_NAME)
            for linear in linears:
                for parameter in block.get_submodule(linear).parameters():
                    parameter.mul_(scale)
            delattr(branch, _NAME)
            hooks = branch._forward_hooks
            for key in [key for key, hook in hooks.items() if hook is _scaled]:
                del hooks[key]


class ResidualScales:
    """Moves the scales of a network's blocks to what a rule asks for, over some training steps after a change.

    Args:
        network: its blocks' branches have scales, if the rule is another than "none".
        tied: the same blocks.
        config: the rule, `residual_scale`: 1 ("none"); n^-1/2 ("sqrt") or n^-1 ("linear") for a layer whose weights n
            layers use; or the same of all L layers, whatever is tied ("depth-sqrt", "depth-linear"). And
            `residual_ramp`, the training steps over which a scale moves in a straight line.

    Attributes:
        values: the scale of every layer now, L of them.
        steps_left: training steps until they are what the rule asks for.
    """

    def __init__(self, network: PrimaryNetwork, tied: TiedBlocks, config: EnvConfig) -> None:
        self._tied, self._rule, self._ramp = tied, config.residual_scale, config.residual_ramp
        scaled = self._rule != "none"
        self._buffers = _buffers_of_units(network) if scaled else [[] for _ in range(tied.n_units)]
        self._targets = self._asked_for()
        self.values, self.steps_left = list(self._targets), 0
        self._fill()

    def aim(self) -> None:
        """Begin to move to what the rule asks for now, if that is something new."""
        if (targets := self._asked_for()) != self._targets:
            self._targets, self.steps_left = targets, self._ramp
            if not self.steps_left:
                self.values = list(targets)
                self._fill()

    def step(self) -> None:
        """Move by one training step."""
        if self.steps_left:
            pairs = zip(self.values, self._targets, strict=True)
            self.values = [value + (target - value) / self.steps_left for value, target in pairs]
            self.steps_left -= 1
            if not self.steps_left:
                self.values = list(self._targets)
            self._fill()

    def state_dict(self) -> dict[str, Any]:
        """Return the present scales and how long they go on moving, ready for JSON."""
        return {"values": list(self.values), "steps_left": self.steps_left}

    def check(self, state: dict[str, Any]) -> None:
        """Check that a state is one of `state_dict`.

        Raises:
            ValueError: it is not.
        """
        values, left = state["values"], state["steps_left"]
        fits = len(values) == len(self.values) and all(type(v) is float and 0 < v <= 1 for v in values)
        if not fits or type(left) is not int or not 0 <= left <= self._ramp:
            raise ValueError(f"the state's residual scales must be {len(self.values)} from 0 to 1, got {state}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, under the same tying."""
        self.check(state)
        self.values, self.steps_left = list(state["values"]), state["steps_left"]
        self._fill()

    def _asked_for(self) -> list[float]:
        power = {"none": 0.0, "sqrt": -0.5, "linear": -1.0}[self._rule.removeprefix("depth-")]
        if self._rule.startswith("depth-"):
            kinds = self._tied.kinds.tolist()
            return [kinds.count(kind) ** power for kind in kinds]
        sources = self._tied.sources().tolist()
        return [sources.count(source) ** power for source in sources]

    def _fill(self) -> None:
        for value, buffers in zip(self.values, self._buffers, strict=True):
            for buffer in buffers:
                buffer.fill_(value)


def _buffers_of_units(network: PrimaryNetwork) -> list[list[Tensor]]:
    """Return the scales of each unit's branches; those that the units of a block share are with its first."""
    unit_of = {id(module): i for i, unit in enumerate(network.units) for module in unit.modules()}
    buffers: list[list[Tensor]] = [[] for _ in network.units]
    for block in network.blocks:
        first = min(unit_of[id(module)] for module in block.modules() if id(module) in unit_of)
        for branch in _branches(block):
            buffers[unit_of.get(id(branch), first)].append(branch.get_buffer(_NAME))
    return buffers


def _scaled(module: nn.Module, _: Any, output: Any) -> Any:
    scale = module.get_buffer(_NAME)
    return (output[0] * scale, *output[1:]) if isinstance(output, tuple) else output * scale


def _branches(block: nn.Module) -> list[nn.Module]:
    names = dict(block.named_modules())  # GPT-2 and ViT have another `mlp`
    found = [names[path] for path, linears in _BRANCHES.items() if path in names and names.keys() >= {*linears}]
    assert found, f"a {type(block).__name__} has no residual branches that are known here"
    return found


def _get(block: nn.Module, path: str) -> nn.Module | None:
    return dict(block.named_modules()).get(path)
