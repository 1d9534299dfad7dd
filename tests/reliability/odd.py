"""Random small networks with something odd about them, the same one each time from one description."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 3


class Twice(nn.Module):
    """One part under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x[:, None])[0][:, 0]  # type: ignore[no-any-return]


class Pieces(nn.Module):
    """Parameters in lists and dictionaries of torch's own, of several types, and one tensor that is no Parameter."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.list = nn.ParameterList([torch.randn(WIDTH, dtype=dtype), torch.randn((), dtype=dtype)])
        self.dict = nn.ParameterDict({"w": torch.randn(WIDTH, WIDTH)})
        self.constant = torch.linspace(0, 1, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.dict["w"] * self.list[0].to(x.dtype) + self.constant * self.list[1].to(x.dtype)


class Counting(nn.Module):
    """Buffers that a forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training  # type: ignore[operator]
        return self.norm(x)  # type: ignore[no-any-return]


def frozen() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH).requires_grad_(False)


PARTS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(WIDTH, WIDTH),
    lambda: nn.Linear(WIDTH, WIDTH, bias=False),
    lambda: nn.Sequential(nn.Linear(WIDTH, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, WIDTH))),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    lambda: nn.LayerNorm(WIDTH),
    lambda: Pieces(torch.float64),
    lambda: Pieces(torch.bfloat16),
    Twice,
    Recurrent,
    Counting,
    frozen,
]


class Block(nn.Module):
    def __init__(self, parts: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.parts = nn.ModuleList(PARTS[i]() for i in parts)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for part in self.parts:
            x = x + part(x)
        return x


class Net(nn.Module):
    """Blocks one after the other, what an oddity adds, and a head."""

    def __init__(self, n_layer: int, parts: tuple[int, ...], oddity: str) -> None:
        super().__init__()
        blocks = [Block(parts) for _ in range(n_layer)]
        if oddity == "a block registered before":
            self.last = blocks[-1]
        self.blocks: Any = nn.ModuleList(blocks)
        self.head = nn.Linear(WIDTH, 1)
        self.extra: Callable[[Tensor], Tensor] | None = None
        ODDITIES[oddity](self)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x if self.extra is None else x + self.extra(x))  # type: ignore[no-any-return]


# What scripts have in global variables, where the networks below find it by name.
GLOBAL: dict[str, Any] = {}


def _first(net: Any) -> Any:
    return net.blocks[-1].first


def _listed(net: Any) -> None:
    net.refs = [block.first.weight for block in net.blocks]
    net.extra = net.listed = functools.partial(_product, net.refs)


def _product(refs: list[Tensor], x: Tensor) -> Tensor:
    return functools.reduce(lambda x, w: x @ w, refs, x)


def _closed(net: Any) -> None:
    weight = _first(net).weight
    net.extra = lambda x: x @ weight


def _captured(net: Any) -> None:
    net.extra = lambda x: x @ _first(net).weight


def _hooked(net: Any) -> None:
    net.blocks[0].register_forward_hook(lambda module, inputs, output: output * net.head.weight)


def _partial(net: Any) -> None:
    net.extra = functools.partial(nn.functional.linear, weight=_first(net).weight)


def _partial_of_a_method(net: Any) -> None:
    net.extra = functools.partial(_first(net).forward)


def _headed(net: Any) -> None:
    net.other = nn.Linear(WIDTH, WIDTH)
    net.other.weight = _first(net).weight
    net.extra = net.other.forward


def _values(net: Any) -> None:
    net.values = {"w": _first(net).weight.detach()}
    net.extra = functools.partial(_of_values, net.values)


def _of_values(values: dict[str, Tensor], x: Tensor) -> Tensor:
    return x @ values["w"]


def _in_all(net: Any) -> None:
    part = nn.Linear(WIDTH, WIDTH)
    for block in net.blocks:
        block.first = part


def _by_name(net: Any) -> None:
    GLOBAL["weights"] = [block.first.weight for block in net.blocks]
    net.key = "weights"
    net.extra = _of_global_weights


def _of_global_weights(x: Tensor) -> Tensor:
    return _product(GLOBAL["weights"], x)


# What is done to a network; the first few leave it sound.
ODDITIES: dict[str, Callable[[Any], None]] = {
    "nothing": lambda net: None,
    "a block registered before": lambda net: None,
    "modules in a list": lambda net: setattr(net, "order", list(net.blocks)),
    "a partial of a method": _partial_of_a_method,
    "Parameters in a list": _listed,
    "a Parameter in a closure": _closed,
    "the network in a closure": _captured,
    "the network in a hook": _hooked,
    "a Parameter in a partial": _partial,
    "a head with a block's weight": _headed,
    "values of a Parameter": _values,
    "a part in all blocks": _in_all,
    "global Parameters": _by_name,
}
SOUND = tuple(ODDITIES)[:4]
# Sound where a function makes the network; a copy of one would lead to the original.
SOUND_IF_MADE = ("the network in a closure", "the network in a hook")


class Odd(NamedTuple):
    """A network: how many blocks, of which parts, what is odd, and whether a function makes it."""

    n_layer: int
    parts: tuple[int, ...]
    oddity: str
    made: bool

    def make(self) -> Net:
        return Net(self.n_layer, self.parts, self.oddity)

    @property
    def sound(self) -> bool:
        return self.oddity in SOUND or (self.made and self.oddity in SOUND_IF_MADE)


def draw(rng: np.random.Generator) -> Odd:
    parts = tuple(rng.integers(len(PARTS), size=rng.integers(4)).tolist())
    # Half of them have nothing odd but their parts.
    oddity = str(rng.choice(list(ODDITIES))) if rng.random() < 0.5 else "nothing"
    return Odd(int(rng.integers(2, 5)), parts, oddity, bool(rng.random() < 0.5))
