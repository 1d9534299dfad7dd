"""A network that computes with what it was to leave behind: the original of a copy, or Parameters a tying replaced."""

import copy
import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models import own
from tests.test_references import Block, Net

TIE = np.array([0, 0, 0])


def closure(net: Any) -> None:
    net.layers[1].register_forward_hook(lambda module, inputs, output: output * net.out.weight.sum())


def a_part_without_weights(net: Any) -> None:
    drop = net.drop = nn.Dropout(0.5)
    net.out.register_forward_hook(lambda module, inputs, output: drop(output))


def patched(net: Any) -> None:
    former = net.out.forward

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return 2 * former(x)  # type: ignore[no-any-return]

    net.out.forward = MethodType(forward, net.out)


def partial_of_a_function(net: Any) -> None:
    def scaled(output: Tensor, factor: float) -> Tensor:
        return output * factor * net.out.bias

    net.last = functools.partial(scaled, factor=2.0)


@pytest.mark.parametrize(
    ("odd", "where"),
    [
        (closure, r"layers.1._forward_hooks\[\d+\]'s variable 'net'"),
        (a_part_without_weights, r"out._forward_hooks\[\d+\]'s variable 'drop'"),
        (patched, r"out.forward.__func__'s variable 'former'.__self__"),
        (partial_of_a_function, r"last.func's variable 'net'"),
    ],
)
def test_a_module_whose_copy_leads_to_the_original_is_refused_and_its_function_is_not(
    odd: Callable[[Any], None], where: str
) -> None:
    with pytest.raises(ValueError, match=rf".{where}. of the copy is still the original's.*model=make_network"):
        own(Net(odd))
    env = own(lambda: Net(odd))
    env.reset(seed=0)
    env.step(TIE)
    assert env.fork().step(TIE)[1] == env.step(TIE)[1]


def test_what_a_copy_loses_is_refused_as_in_a_network_that_a_function_makes() -> None:
    def values(net: Any) -> None:
        net.values = net.layers[1].up.weight.detach()

    def hook(net: Any) -> None:
        net.layers[1].up.weight.register_hook(lambda grad: 2 * grad)

    for odd, message in ((values, "'up.weight' of block 1 is held at 'values'"), (hook, "has a hook of its own")):
        for model in (Net(odd), lambda odd=odd: Net(odd)):
            with pytest.raises(ValueError, match=message):
                own(model)


class Calling(Net):
    """What is copied with what it refers to: bound methods, partials of them, modules in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.order = [self.layers[2], *self.layers]
        self.call = functools.partial(self.scaled, factor=0.5)
        self.layers[1].register_forward_hook(self.hook)

    def hook(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + self.out.weight

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return factor * self.out(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.order:
            x = layer(x)
        return self.call(x)


def test_bound_methods_and_partials_of_them_are_copied() -> None:
    model = Calling()
    before = copy.deepcopy(model.state_dict())
    env = own(model, learning_rate=0.1)
    env.reset(seed=0)
    for action in ([0, 0, 2], [0, 1, 1]):
        env.step(np.array(action))
        plain = Calling()
        plain.load_state_dict(env.trainer.network.model.state_dict())
        x = torch.linspace(-1, 1, 12).view(4, 3)
        assert torch.equal(env.trainer.network.model(x), plain(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


class Script:
    """What a script has in global variables."""

    model: Any = None
    weights: Any = ()


def by_name(net: Any) -> None:
    net.register_forward_hook(lambda module, inputs, output: output * Script.model.out.weight.sum())


def test_an_original_that_is_looked_up_by_name_shows_in_the_first_step() -> None:
    Script.model = model = Net(by_name)
    model.out.weight.grad = torch.ones(1, 3)  # of the user's own training
    env = own(model)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"computes with 'out.weight' of the model that it is a copy of"):
        env.step(TIE)
    Script.model = Net()  # another one, of which nobody knows
    env.reset(seed=0)
    env.step(TIE)
    assert all(p.requires_grad for p in model.parameters())


class ByName(Net):
    def __init__(self) -> None:
        super().__init__()
        Script.weights = [layer.up.weight for layer in self.layers]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x @ Script.weights[1]).sum(1, keepdim=True)


@pytest.mark.parametrize("gradient", ["shared", "leader"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_replaced_parameter_that_is_looked_up_by_name_shows_in_the_first_step(frozen: bool, gradient: str) -> None:
    env = own(ByName, freeze_at_start=frozen, gradient=gradient)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"computes with 'up.weight' of block 1 as it was before a tying"):
        env.step(TIE)


class LaterByName(ByName):
    """Uses what it looked up from its seventh training step on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x) if self.calls > 6 else Net.forward(self, x)


def test_a_replaced_parameter_that_is_used_much_later_shows_then() -> None:
    env = own(LaterByName, freeze_at_start=False)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"computes with 'up.weight' of block 1 as it was before a tying"):
        for _ in range(6):
            env.step(TIE)
    assert env.trainer.network.model.calls == 7


class Remembering(Net):
    """Its first forward pass makes a list of the weights it finds then."""

    @functools.cached_property
    def weights(self) -> list[Tensor]:
        return [layer.up.weight for layer in self.layers]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + sum((x @ weight).sum(1, keepdim=True) for weight in self.weights)


def test_what_the_first_forward_pass_takes_hold_of_is_found_at_the_next_change() -> None:
    """Tied at first: the list has one weight three times, which stays that of layer 0 when the others part."""
    env = own(Remembering)
    env.reset(seed=0, options={"tying": TIE})
    with pytest.raises(ValueError, match=r"'up.weight' of block \d is held at 'weights\[0\]' as well"):
        for action in (TIE, [0, 1, 2]):
            env.step(np.array(action))


def test_who_only_holds_replaced_parameters_is_left_alone() -> None:
    env, plain = own(lambda: Net()), own(lambda: Net())
    env.reset(seed=0)
    plain.reset(seed=0)
    held = list(env.trainer.network.model.parameters())
    flags = [p.requires_grad for p in held]
    np.testing.assert_equal([env.step(TIE), env.step([0, 0, 2])], [plain.step(TIE), plain.step([0, 0, 2])])
    in_use = {id(p) for p in env.trainer.network.model.parameters()}
    assert [p.requires_grad for p in held if id(p) not in in_use] == [
        flag for p, flag in zip(held, flags, strict=True) if id(p) not in in_use
    ]


THE_ONE = Net()


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.blocks = THE_ONE, nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.inner(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [lambda: THE_ONE, Wrapped])
def test_a_function_that_gives_what_it_gave_before_is_refused(make: Callable[[], nn.Module]) -> None:
    THE_ONE.load_state_dict(Net().state_dict())
    blocks = "layers" if make is not Wrapped else "blocks"
    with pytest.raises(
        ValueError, match=r"must make a new one each time, and '.*' of \w+ is that of a network it made"
    ):
        own(make, blocks=blocks).reset(seed=0)
