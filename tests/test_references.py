"""Parameters that hang outside of their module as well: they follow a tying, or are refused by name."""

import dataclasses
import functools
import re
from collections import UserList, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models import own
from tying_env.references import places
from tying_env.runs import load_network, save_network
from tying_env.slots import check_kinds
from tying_env.tied_blocks import TiedBlocks


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))  # type: ignore[no-any-return]


class Net(nn.Module):
    """Three blocks; a test adds what is odd."""

    def __init__(self, odd: Callable[[Any], None] | None = None, block: type[nn.Module] = Block) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(block() for _ in range(3))
        self.out = nn.Linear(3, 1)
        if odd is not None:
            odd(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x)  # type: ignore[no-any-return]


@dataclasses.dataclass
class Holder:
    held: Any
    size: int = 3

    def method(self) -> int:
        return self.size


class Labelled(list[Any]):
    """A list that has attributes, too."""


class Table(dict[str, Any]):
    held: Any


class Pair(tuple[Any, ...]):
    held: Any


class Array(np.ndarray[Any, Any]):
    held: Any


class Slotted:
    __slots__ = ("held", "size")

    def __init__(self, held: Any) -> None:
        self.held = held


def weight(net: Any, i: int = 1) -> Any:
    return net.layers[i].up.weight


def objects(held: Any) -> Any:
    array = np.empty(2, dtype=object)
    array[1] = held
    return array


def with_held(holder: Any, held: Any) -> Any:
    holder.held = held
    return holder


def hooked(net: Any) -> None:
    w = weight(net)
    net.layers[2].register_forward_hook(lambda module, inputs, output: output @ w)


def made_of_an_array(net: Any) -> None:
    net.values = np.ones((3, 3), dtype=np.float32)
    net.layers[1].up.weight = nn.Parameter(torch.from_numpy(net.values))


def headed(net: Any) -> None:
    net.head = nn.Linear(3, 3)
    net.head.weight = weight(net)


def defaulted(net: Any) -> None:
    held = weight(net)

    def penalty(w: Tensor = held) -> Tensor:
        return w.square().sum()

    net.penalty = penalty


# what is done to a network -> where its error says that block 1's `up.weight` is held
HELD: dict[str, tuple[Callable[[Any], None], str]] = {
    "list": (lambda net: setattr(net, "refs", [weight(net, 1)]), "refs[0]"),
    "dictionary": (lambda net: setattr(net, "refs", {"a": {3: weight(net)}}), "refs['a'][3]"),
    "key": (lambda net: setattr(net, "scales", {weight(net): 2.0}), "scales[Parameter] (the key)"),
    "tuple in a block": (lambda net: setattr(net.layers[0], "refs", (1, weight(net))), "layers.0.refs[1]"),
    "object": (lambda net: setattr(net, "aside", Holder([weight(net)])), "aside.held[0]"),
    "namespace": (lambda net: setattr(net, "aside", SimpleNamespace(held=weight(net))), "aside.held"),
    "user list": (lambda net: setattr(net, "refs", UserList([weight(net)])), "refs.data[0]"),
    "array of objects": (lambda net: setattr(net, "refs", objects(weight(net))), "refs.flat[1]"),
    "slots": (lambda net: setattr(net, "aside", Slotted(weight(net))), "aside.held"),
    "method": (lambda net: setattr(net, "call", Holder(weight(net)).method), "call.__self__.held"),
    "partial": (
        lambda net: setattr(net, "call", functools.partial(nn.functional.linear, weight=weight(net))),
        "call.keywords['weight']",
    ),
    "default": (defaulted, "penalty.__defaults__[0]"),
    "values": (lambda net: setattr(net, "values", weight(net).data), "values"),
    "transposed": (lambda net: setattr(net, "values", [weight(net).detach().T]), "values[0]"),
    "buffer": (lambda net: net.register_buffer("copy", weight(net).detach()), "copy"),
    "head": (headed, "head.weight"),
    "list with attributes": (lambda net: setattr(net, "refs", with_held(Labelled([1]), weight(net))), "refs.held"),
    "item of a list with attributes": (lambda net: setattr(net, "refs", Labelled([weight(net)])), "refs[0]"),
    "dictionary with attributes": (lambda net: setattr(net, "refs", with_held(Table(), [weight(net)])), "refs.held[0]"),
    "tuple with attributes": (lambda net: setattr(net, "refs", with_held(Pair((1,)), weight(net))), "refs.held"),
    "array with attributes": (
        lambda net: setattr(net, "refs", with_held(np.zeros(2).view(Array), weight(net))),
        "refs.held",
    ),
    "partial with attributes": (
        lambda net: setattr(net, "call", with_held(functools.partial(torch.add), weight(net))),
        "call.held",
    ),
    "tensor with attributes": (lambda net: setattr(net.out.weight, "held", weight(net)), "out.weight.held"),
    "default of a dictionary": (
        lambda net: setattr(net, "refs", defaultdict(functools.partial(torch.add, weight(net)))),
        "refs.default_factory.args[0]",
    ),
    "array": (lambda net: setattr(net, "values", weight(net).detach().numpy()), "values"),
    "part of an array": (lambda net: setattr(net, "values", [weight(net).detach().numpy()[::-1, 1]]), "values[0]"),
    "array by DLPack": (lambda net: setattr(net, "values", np.from_dlpack(weight(net).detach())), "values"),
    "array that it was made of": (made_of_an_array, "values"),
}


@pytest.mark.parametrize("kind", HELD)
def test_a_parameter_held_elsewhere_is_refused_by_name(kind: str) -> None:
    odd, path = HELD[kind]
    message = re.escape(f"'up.weight' of block 1 is held at {path!r} as well, which would compute with the old one")
    with pytest.raises(ValueError, match=message):
        own(lambda: Net(odd))


def test_a_hook_that_holds_one_is_refused_by_name() -> None:
    where = r"layers.2._forward_hooks\[\d+\]'s variable 'w'"
    with pytest.raises(ValueError, match=rf"'up.weight' of block 1 is held at .{where}. as well"):
        own(lambda: Net(hooked))
    # Blocks alone, without their network, are looked through as well.
    with pytest.raises(ValueError, match=r"'up.weight' of block 1 is held at .*'s variable 'w'"):
        TiedBlocks(list(Net(hooked).layers))


def test_a_network_is_as_it_was_after_the_check() -> None:
    for net in (Net(headed), Net(block=Recurrent)):
        before = list(places(net))
        kinds = np.zeros(3, dtype=np.int64)
        if hasattr(net, "head"):
            with pytest.raises(ValueError, match=r"head\.weight"):
                check_kinds(list(net.layers), kinds, within=net)
        else:
            check_kinds(list(net.layers), kinds, within=net)
        after = list(places(net))
        assert [(p.path, id(p.part)) for p in after] == [(p.path, id(p.part)) for p in before]


class Recurrent(nn.Module):
    """torch's LSTM holds its Parameters in a list of its own, too, which follows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(x[:, None])[0][:, 0]  # type: ignore[no-any-return]


class Normalised(Block):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.up)
        self.down.weight = self.up.parametrizations.weight.original1  # type: ignore[union-attr]


def registered_twice(net: Any) -> None:
    layers, out = list(net.layers), net.out
    del net.layers, net.out
    net.last = layers[2]
    net.layers, net.out, net.order = nn.ModuleList(layers), out, layers[::-1]


# Computed right after any tying.
SOUND: dict[str, Callable[[], nn.Module]] = {
    "an LSTM": lambda: Net(block=Recurrent),
    "a part used under two names, parametrized": lambda: Net(block=Normalised),
    "a block registered twice": lambda: Net(registered_twice),
}


@pytest.mark.parametrize("gradient", ["shared", "leader"])
@pytest.mark.parametrize("kind", SOUND)
def test_what_follows_by_itself_computes_as_a_network_with_copied_weights(
    kind: str, gradient: str, tmp_path: Path
) -> None:
    env = own(SOUND[kind], gradient=gradient, learning_rate=0.05)
    env.reset(seed=0)
    x = torch.linspace(-1, 1, 12).view(4, 3)
    for action in ([0, 0, 0], [0, 1, 0], [0, 0, 2]):
        env.step(np.array(action))
        trained = env.trainer.network.model
        plain = SOUND[kind]()
        plain.load_state_dict(trained.state_dict())
        assert torch.equal(trained(x), plain(x))
        save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
        saved = load_network(tmp_path / "network", workload=env.workload)
        assert torch.equal(saved.network.model(x), trained(x))


class TwoOnOneMemory(Block):
    def __init__(self) -> None:
        super().__init__()
        self.down.weight = nn.Parameter(self.up.weight.data)


class Special(nn.Parameter):
    """A Parameter that may compute otherwise."""


class Unusual(Block):
    def __init__(self) -> None:
        super().__init__()
        self.up.weight = Special(torch.ones(3, 3))


class Listening(Block):
    def __init__(self) -> None:
        super().__init__()
        self.up.weight.register_hook(lambda grad: 2 * grad)


def one_part_in_all(net: Any) -> None:
    part = nn.Linear(3, 3)
    for layer in net.layers:
        layer.up = part


def one_memory_for_all(net: Any) -> None:
    stack = torch.randn(3, 3, 3)
    for i, layer in enumerate(net.layers):
        layer.up.weight = nn.Parameter(stack[i])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Net(one_part_in_all), "blocks must not share Parameters yet: blocks 0 and 1 share 'up.weight'"),
        (lambda: Net(one_memory_for_all), "blocks must not share Parameters yet: blocks 0 and 1 share 'up.weight'"),
        (lambda: Net(block=TwoOnOneMemory), "'up.weight' and 'down.weight' of block 0 are two Parameters on the same"),
        (lambda: Net(block=Unusual), "'up.weight' of block 0 must be an ordinary dense nn.Parameter .* got a Special"),
        (lambda: Net(block=Listening), "'up.weight' of block 0 has a hook of its own"),
    ],
)
def test_what_a_tying_would_break_is_refused_by_name(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own(make)
