"""What a tying means, by a plainly copied network: W'[i] = W[s'[i]], and a leader's gradient is its group's sum."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.trainer import Trainer
from tying_env.seeding import all_randomness_from, torch_stream

Compute = Callable[[nn.Module], Any]

# T5's first block holds the table of positions of all blocks of its stack: its own, whatever it is tied to.
_OF_THE_STACK = "relative_attention_bias"


def trained(block: nn.Module) -> list[str]:
    return [name for name, p in block.named_parameters() if p.requires_grad]


class PlainCopy:
    """A network whose blocks share nothing, held beside the one that a trainer ties.

    Args:
        trainer: of the tied network, which has been reset and not tied yet.
        model: a network of the same kind, whose blocks share nothing; what its state holds comes from the tied one.
        loss: what both learn, on a batch that stays the same.
        rounding: by how much outputs may differ, absolutely; sums of some kernels depend on where memory lies.
    """

    def __init__(
        self, trainer: Trainer, model: nn.Module, loss: Callable[[nn.Module], Tensor], rounding: float = 0.0
    ) -> None:
        self.trainer, self.loss, self.rounding = trainer, loss, rounding
        self.plain = PrimaryNetwork(model, trainer.network.blocks_paths)
        self.names = [trained(block) for block in self.plain.blocks]
        self.tying = list(range(len(self.names)))

    def tie(self, action: Sequence[int]) -> None:
        """Tie the trainer's network, and copy plainly here; blocks of another kind are not copied."""
        kinds, tying = self.trainer.tied.kinds, list[int]()
        for i, target in enumerate(action):
            tying.append(tying[target] if target < i and kinds[target] == kinds[i] else i)
        self.follow()
        blocks = self.trainer.network.blocks
        before = [
            {n: b.get_parameter(n).detach().clone() for n in names} for b, names in zip(blocks, self.names, strict=True)
        ]
        self.trainer.tie(tying)
        with torch.no_grad():
            for block, names, leader in zip(self.plain.blocks, self.names, tying, strict=True):
                assert not [name for name in set(names) ^ set(before[leader]) if _OF_THE_STACK not in name]
                for name in set(names) & set(before[leader]):
                    block.get_parameter(name).copy_(before[leader][name])
        self.tying = tying

    def follow(self) -> None:
        """Take over the values of the trainer's network."""
        self.plain.model.load_state_dict(self.trainer.network.model.state_dict())

    def computes_alike(self) -> bool:
        """Return whether every block and the whole network give what those of the tied one give."""
        ours, theirs = (_outputs(network, self.loss) for network in (self.trainer.network, self.plain))
        return len(ours) == len(theirs) and all(
            torch.allclose(a, b, rtol=0.0, atol=self.rounding) for a, b in zip(ours, theirs, strict=True)
        )

    def gradients_add_up(self, gradient: str = "shared") -> bool:
        """Return whether a leader's gradient is the sum over its group here, or with "leader" its own part."""
        for network in (self.trainer.network, self.plain):
            network.model.eval().zero_grad()  # running means stay as they are
            with _numbers():
                self.loss(network.model).backward()
        blocks, right = self.trainer.network.blocks, True
        for leader in set(self.tying):
            group = [i for i, other in enumerate(self.tying) if other == leader]
            for name in self.names[leader]:
                sharing = [i for i in (group if gradient == "shared" else [leader]) if name in self.names[i]]
                parts = [_gradient(self.plain.blocks[i], name) for i in sharing]
                expected, found = torch.stack(parts).sum(0), _gradient(blocks[leader], name)
                right &= torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
        self.trainer.network.model.zero_grad()
        return right


def _gradient(block: nn.Module, name: str) -> Tensor:
    parameter = block.get_parameter(name)
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _outputs(network: PrimaryNetwork, compute: Compute) -> list[Tensor]:
    found: list[Any] = []
    parts = [*network.blocks, network.model]
    hooks = [part.register_forward_hook(lambda m, i, output: found.append(output)) for part in parts]
    network.model.eval()
    with torch.no_grad(), _numbers():
        result = compute(network.model)
    for hook in hooks:
        hook.remove()
    return [leaf for leaf in tree_leaves([*found, result]) if isinstance(leaf, Tensor)]


def _numbers() -> Any:
    """Have a network that draws random numbers draw the same ones each time."""
    return all_randomness_from(torch_stream(0, "oracle"))
