"""A network of small blocks that trains and is tied, and a change of its tying that fails at any line."""

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from tying_env import redrawing, replication, slots, tied_blocks
from tying_env.replication import find_replication
from tying_env.tied_blocks import TiedBlocks

L, WIDTH = 6, 3


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4)
        self.down = nn.Linear(4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class Net(nn.Module):
    """A residual stack of small blocks between an input and an output layer."""

    def __init__(self, seed: int = 0, n_layer: int = L, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(n_layer))
        self.to(dtype)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def batch(step: int) -> Tensor:
    return torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def make(
    tying: Any = None,
    replication: str = "tied",
    gradient: Any = "shared",
    later_tying: Any = "leader",
    **choices: Any,
) -> tuple[Net, TiedBlocks, torch.optim.AdamW]:
    net = Net()
    how = find_replication(replication, gradient=gradient, later_tying=later_tying)
    tied = TiedBlocks(list(net.blocks), tying, replication=how, **choices)
    optimizer = torch.optim.AdamW(
        [{"params": list(net.first.parameters())}, *tied.parameter_groups(0.01)], lr=0.01, weight_decay=0.01
    )
    return net, tied, optimizer


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1, start: int = 0) -> None:
    for step in range(start, start + steps):
        optimizer.zero_grad()
        net(batch(step)).square().mean().backward()
        optimizer.step()


def values(tied: TiedBlocks) -> list[dict[str, Tensor]]:
    """What every layer computes with."""
    return [{name: p.detach().clone() for name, p in tied.weights(i).items()} for i in range(tied.n_units)]


def snapshot(net: Net, tied: TiedBlocks, optimizer: torch.optim.Optimizer) -> list[Any]:
    """All that a failed change has to leave alone, down to the identity of every object."""
    state = {id(p): {k: (id(v), v.clone()) for k, v in entries.items()} for p, entries in optimizer.state.items()}
    return [
        tied.tying.tolist(),
        tied.frozen,
        [(name, id(p), p.requires_grad, p.detach().clone(), id(p.grad)) for name, p in net.named_parameters()],
        state,
        [
            (id(g), {k: [id(p) for p in v] if k == "params" else v for k, v in g.items()})
            for g in optimizer.param_groups
        ],
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


class Injected(BaseException):
    """Not an Exception: a change must also survive Ctrl-C."""


# Where the lines are that change something.
CHANGING = {module.__file__ for module in (tied_blocks, replication, redrawing, slots)}


def change_failing_at(point: int, tied: TiedBlocks, tying: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Raise at the `point`-th line of ours that runs during a change; tell whether it came to that."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in CHANGING:
            return None
        if event == "line":
            seen += 1
            if seen == point:
                raise Injected
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        tied.change(tying, optimizer)
    except Injected:
        return True
    finally:
        sys.settrace(former)
    return False
