"""Linear layers that multiply through oneDNN give what torch's own give."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from tying_env.env import LayerTyingEnv
from tying_env.primary.kernels import products
from tying_env.primary.kernels.head import linear_cross_entropy

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were a processor on which oneDNN is faster, also for small products."""
    monkeypatch.setattr(products, "_MKL_LEAVES_AVX512", True)
    monkeypatch.setattr(products, "_SMALLEST", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the products by oneDNN: one entry for each."""
    made: list[int] = []
    multiply = products.product

    def counted(*args: Any) -> torch.Tensor:
        made.append(1)
        return multiply(*args)

    monkeypatch.setattr(products, "product", counted)
    return made


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(kind: str) -> nn.Module:
    made: nn.Module = {
        "linear": lambda: nn.Linear(24, 40),
        "no bias": lambda: nn.Linear(24, 40, bias=False),
        "conv1d": lambda: Conv1D(40, 24),
    }[kind]()
    for i, parameter in enumerate(made.parameters()):
        parameter.data = draw(*parameter.shape, seed=i)
    return made


@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (24,)])
def test_a_layer_gives_what_torchs_own_gives(kind: str, shape: tuple[int, ...], calls: list[int]) -> None:
    if kind == "conv1d" and len(shape) == 1:
        shape = (1, 24)  # transformers' own takes no fewer axes
    own, ours = layer(kind), layer(kind)
    products.use_onednn(ours)
    results = []
    for module in (own, ours):
        x = draw(*shape, seed=9).requires_grad_()
        y = module(x)
        # an expanded gradient, as a sum gives it, and one of numbers
        (y * draw(*y.shape, seed=8)).sum().backward(retain_graph=True)
        y.sum().backward()
        results.append((y, x.grad, *(p.grad for p in module.parameters())))
    torch.testing.assert_close(results[1], results[0])
    assert len(calls) == 5  # forward, and twice both gradients


def test_only_the_gradients_asked_for_are_computed(calls: list[int]) -> None:
    module = layer("linear")
    products.use_onednn(module)
    module.requires_grad_(False)
    module(draw(7, 24).requires_grad_()).sum().backward()
    assert len(calls) == 2
    module.requires_grad_(True)
    module(draw(7, 24)).sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize(("weight", "inputs"), [(False, True), (True, False), (True, True), (False, False)])
def test_a_layer_keeps_what_torchs_own_keeps(weight: bool, inputs: bool) -> None:
    kept: list[list[tuple[int, ...]]] = []
    for ours in (False, True):
        module = layer("no bias").requires_grad_(weight)
        if ours:
            products.use_onednn(module)
        kept.append([])
        with torch.autograd.graph.saved_tensors_hooks(lambda t, all=kept[-1]: all.append(tuple(t.shape)), lambda t: t):
            module(draw(7, 24).requires_grad_(inputs))
    # torch's own keeps a transposed weight
    assert sorted(map(sorted, kept[1])) == sorted(map(sorted, kept[0]))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_gradients_can_be_differentiated_once_more(kind: str, calls: list[int]) -> None:
    results = []
    for ours in (False, True):
        module = layer(kind)
        if ours:
            products.use_onednn(module)
        x = draw(7, 24).requires_grad_()
        (slope,) = torch.autograd.grad(module(x).pow(3).sum(), x, create_graph=True)
        results.append(torch.autograd.grad(slope.norm(), [x, *module.parameters()]))
    torch.testing.assert_close(results[1], results[0])
    assert calls


def test_functions_can_be_transformed() -> None:
    module, x = layer("linear"), draw(7, 24)
    products.use_onednn(module)
    weights = dict(module.named_parameters())

    def total(given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(module, given, (x,)).sum()

    torch.testing.assert_close(torch.func.grad(total)(weights)["weight"], x.sum(0).expand(40, 24))


@pytest.mark.parametrize("why", ["small", "switched off", "another precision", "autocast", "another processor"])
def test_elsewhere_torchs_own_products_stay(why: str, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    own, ours = layer("linear"), layer("linear")
    products.use_onednn(ours)
    x = draw(7, 24)
    if why == "small":
        monkeypatch.setattr(products, "_SMALLEST", 7 * 24 * 40 + 1)
    if why == "another processor":
        monkeypatch.setattr(products, "_MKL_LEAVES_AVX512", False)
    if why == "another precision":
        own, ours, x = own.double(), ours.double(), x.double()
    before = torch.backends.mkldnn.enabled
    try:
        if why == "switched off":
            torch.backends.mkldnn.set_flags(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
            assert torch.equal(ours(x), own(x))
    finally:
        torch.backends.mkldnn.set_flags(before)
    assert calls == []


def test_a_copy_computes_with_its_own_weights(calls: list[int]) -> None:
    module = nn.Sequential(layer("linear"))
    products.use_onednn(module)
    x = draw(7, 24)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with torch.no_grad():
            twin[0].weight.zero_()
        torch.testing.assert_close(twin(x), module[0].bias.expand(7, 40))
    assert not torch.equal(module(x), module[0].bias.expand(7, 40))
    assert len(calls) == 3


def test_layers_that_compute_otherwise_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    module = Doubled(24, 40)
    products.use_onednn(module)
    assert type(module) is Doubled


def test_the_head_gives_what_the_plain_expression_gives(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    import tying_env.primary.kernels.head as head

    monkeypatch.setattr(head, "product", products.product)
    monkeypatch.setattr(head, "_WORDS", 40)  # several pieces, the last one shorter
    hidden, weight = draw(37, 8).requires_grad_(), draw(101, 8, seed=1).requires_grad_()
    targets = torch.randint(101, (37,), generator=torch.Generator().manual_seed(0))
    loss = linear_cross_entropy(hidden, weight, targets, 10)
    expected = F.cross_entropy(F.linear(hidden, weight), targets)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(each, [hidden, weight]) for each in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert calls


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_training_is_the_same_up_to_rounding(gradient: str, tiny: dict[str, Any], calls: list[int]) -> None:
    losses = []
    for onednn in (True, False):
        torch.backends.mkldnn.set_flags(onednn)
        try:
            env = LayerTyingEnv(**tiny | {"gradient": gradient, "k": 4})
            env.reset(seed=0)
            losses.append([env.step(np.zeros(env.config.n_layer, dtype=np.int64))[4]["train_loss"] for _ in range(2)])
        finally:
            torch.backends.mkldnn.set_flags(True)
        made = len(calls)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert made > 0


def test_a_block_can_choose_the_products_of_other_processors(calls: list[int]) -> None:
    with products.choosing_onednn(False):
        plain = layer("linear")
        products.use_onednn(plain)
        assert type(plain) is nn.Linear and not products.onednn_is_chosen()
    assert products.onednn_is_chosen()
    turned = layer("linear")
    products.use_onednn(turned)
    with products.choosing_onednn(False), products.choosing_onednn(True):
        turned(draw(7, 24))
    assert len(calls) == 1
    with products.choosing_onednn(False):
        turned(draw(7, 24))
    assert len(calls) == 1
