"""Dropout drops what it should, at the rate it should, and is torch's own where it cannot be ours."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tying_env import EnvConfig
from tying_env.primary.building import build_network
from tying_env.primary.kernels import attention, dropout, for_transformers
from tying_env.primary.kernels.dropout import drop, factors, random_numbers, use_fast_dropout
from tying_env.primary.kernels.first_order import gradients_once
from tying_env.primary.kernels.for_transformers import attend
from tying_env.seeding import torch_randomness_from, torch_stream

SHAPE = torch.Size((101, 103))  # not a multiple of the four values that one random word decides on


def mask(shape: torch.Size, probability: float, generator: torch.Generator | None) -> Tensor:
    return factors(random_numbers(shape, generator), probability, torch.float64)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_as_many_are_dropped_as_were_asked_for_and_the_mean_stays(probability: float) -> None:
    found = mask(torch.Size((2_000_000,)), probability, torch_stream(0, "mask"))
    deviation = (probability * (1 - probability) / 2_000_000) ** 0.5
    assert float((found > 0).double().mean()) == pytest.approx(1 - probability, abs=4 * deviation + 2**-16)
    assert float(found.mean()) == pytest.approx(1, abs=4 * deviation / (1 - probability))
    assert len(found.unique()) == 1 + (probability > 0)


def test_values_are_dropped_independently_of_their_neighbours() -> None:
    kept = mask(torch.Size((400_000,)), 0.3, torch_stream(1, "mask")) > 0
    centred = kept.double() - 0.7
    for distance in (1, 2, 3, 4, 8, 64):
        correlation = float((centred[:-distance] * centred[distance:]).mean() / 0.21)
        assert abs(correlation) < 4 / 400_000**0.5, distance
    for lane in range(4):  # each quarter of a random word
        assert float(kept[lane::4].double().mean()) == pytest.approx(0.7, abs=4 * (0.21 / 100_000) ** 0.5)


def test_equal_generators_give_equal_masks_and_move_on_alike() -> None:
    first, second = torch_stream(3, "mask"), torch_stream(3, "mask")
    assert torch.equal(random_numbers(SHAPE, first), random_numbers(SHAPE, second))
    assert torch.equal(first.get_state(), second.get_state())
    assert not torch.equal(random_numbers(SHAPE, first), random_numbers(SHAPE, torch_stream(3, "mask")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_kept_is_scaled_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    x = torch.randn(SHAPE, generator=torch_stream(0, "x"), dtype=torch.float64).to(dtype).requires_grad_()
    with torch_randomness_from(torch_stream(5, "masks")):
        out = drop(x, 0.25)
    by = mask(SHAPE, 0.25, torch_stream(5, "masks"))
    assert out.dtype == dtype
    torch.testing.assert_close(
        out, (x.double() * by).to(dtype), rtol=2**-7 if dtype == torch.bfloat16 else 1e-6, atol=0
    )
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, by.to(dtype))


def test_it_can_be_differentiated_twice() -> None:
    def dropped(x: Tensor) -> Tensor:
        with torch_randomness_from(torch_stream(6, "masks")):
            return drop(x, 0.5) ** 3

    x = torch.randn(3, 4, generator=torch_stream(0, "x"), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dropped, x)
    assert torch.autograd.gradgradcheck(dropped, x)


def test_what_is_kept_for_the_backward_pass_is_two_bytes_for_each_value() -> None:
    kept: list[Tensor] = []
    x = torch.ones(SHAPE, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        drop(x, 0.1)
    assert sum(t.nbytes for t in kept) == 2 * SHAPE.numel()


def test_a_model_drops_with_it_in_training_alone() -> None:
    model = nn.Sequential(
        nn.Dropout(0.5), nn.Dropout(0.5, inplace=True), nn.Dropout1d(0.5), nn.Dropout(0.0), nn.Dropout(1.0)
    )
    use_fast_dropout(model)
    assert [type(module) is dropout._FastDropout for module in model] == [True, False, False, True, True]
    x = torch.ones(SHAPE)
    assert float((model[0](x) == 0).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(model[3](x), x)
    assert torch.equal(model[4](x), torch.zeros(SHAPE))
    assert torch.equal(model.eval()(x), x)


def qkv(**options: Any) -> list[Tensor]:
    generator = torch_stream(0, "attention")
    return [torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64, **options) for _ in range(3)]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("rows", [None, 1, 3, 7, 64])
def test_attention_is_torchs_but_for_its_mask(
    is_causal: bool, scaling: float | None, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a probability that rounds to 0 it takes its own way and drops nothing; in blocks of rows in training."""
    monkeypatch.setattr(attention, "ROWS", rows or 64)
    query, key, value = qkv(requires_grad=True)
    module: Any = SimpleNamespace(is_causal=is_causal)
    with gradients_once(rows is not None):
        out, weights = attend(module, query, key, value, None, dropout=1e-9, scaling=scaling)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scaling).transpose(1, 2)
    assert weights is None
    torch.testing.assert_close(out, expected)
    for one, other in zip(
        *(torch.autograd.grad(o.square().sum(), (query, key, value)) for o in (out, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_attention_drops_weights_after_the_softmax() -> None:
    query, key, value = qkv()
    with torch_randomness_from(torch_stream(2, "masks")):
        out, _ = attend(SimpleNamespace(is_causal=True), query, key, value, None, dropout=0.5)  # type: ignore[arg-type]
    scores = (query @ key.transpose(-1, -2) / 2).masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    with torch_randomness_from(torch_stream(2, "masks")):
        weights = drop(scores.softmax(-1).view(6, 7, 7), 0.5).view(2, 3, 7, 7)
    torch.testing.assert_close(out, (weights @ value).transpose(1, 2))


@pytest.mark.parametrize("is_causal", [True, False])
def test_in_training_it_drops_them_block_by_block(is_causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "ROWS", 3)
    query, key, value = qkv(requires_grad=True)
    with torch_randomness_from(torch_stream(2, "masks")), gradients_once():
        out, _ = attend(SimpleNamespace(is_causal=is_causal), query, key, value, None, dropout=0.5)  # type: ignore[arg-type]
    by = torch.zeros(6, 7, 7, dtype=torch.float64)
    with torch_randomness_from(torch_stream(2, "masks")):
        for start in (0, 3, 6):  # of a block of rows all that any of them sees
            end = min(start + 3, 7)
            shape = torch.Size((6, end - start, end if is_causal else 7))
            by[:, start:end, : shape[2]] = factors(random_numbers(shape, None), 0.5, torch.float64)
    scores = query @ key.transpose(-1, -2) / 2
    if is_causal:
        scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    expected = (scores.softmax(-1) * by.view(2, 3, 7, 7) @ value).transpose(1, 2)
    torch.testing.assert_close(out, expected)
    direction = torch.randn(out.shape, generator=torch_stream(0, "direction"), dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad(o, (query, key, value), direction) for o in (out, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_of_a_causal_attention_half_of_the_probabilities_are_kept_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Tensor] = []
    x = torch.randn(1, 1, 512, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        attention.attend_in_blocks(x, x, x, 0.1, True, 1.0)
    blocks = 512 // attention.ROWS
    seen = attention.ROWS**2 * blocks * (blocks + 1) // 2
    assert seen < 0.6 * 512**2
    assert sum(t.nbytes for t in held) == seen * (4 + 2) + 3 * 4 * x.numel()


def test_outside_of_training_attention_can_be_differentiated_twice() -> None:
    def attended(query: Tensor, key: Tensor, value: Tensor) -> Any:
        with torch_randomness_from(torch_stream(6, "masks")):
            return attend(SimpleNamespace(is_causal=True), query, key, value, None, dropout=0.5)[0]  # type: ignore[arg-type]

    inputs = [x[:1, :1, :3].requires_grad_() for x in qkv()]
    assert torch.autograd.gradgradcheck(attended, inputs)
    with gradients_once():
        assert torch.autograd.gradcheck(attended, inputs)


@pytest.fixture
def never_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attention must be torch's own, in training as well."""
    monkeypatch.setattr(dropout, "drop", lambda *_: pytest.fail("not torch's"))
    monkeypatch.setattr(for_transformers, "attend_in_blocks", lambda *_: pytest.fail("not torch's"))
    with gradients_once():
        yield


@pytest.mark.parametrize("why", ["no dropout", "a mask", "past keys"])
@pytest.mark.usefixtures("never_ours")
def test_attention_is_left_to_torch_where_it_is_not_plain(why: str) -> None:
    query, key, value = qkv()
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool) if why == "a mask" else None
    query = query[:, :, -1:] if why == "past keys" else query
    rate = 0.0 if why == "no dropout" else 0.2
    attend(SimpleNamespace(is_causal=True), query, key, value, mask, dropout=rate)  # type: ignore[arg-type]


class Drawn(TorchDispatchMode):
    """Takes note of which operations draw random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.by.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("never_ours")
def test_attention_of_16_bit_numbers_is_left_to_torch_whose_softmax_has_32(dtype: torch.dtype) -> None:
    query, key, value = (x.to(dtype) for x in qkv())
    attend(SimpleNamespace(is_causal=True), query, key, value, None, dropout=0.2)  # type: ignore[arg-type]
    query, key, value = (x.float() for x in qkv())
    with torch.autocast("cpu", torch.bfloat16):
        attend(SimpleNamespace(is_causal=True), query, key, value, None, dropout=0.2)  # type: ignore[arg-type]


def test_many_gradients_at_once_are_those_one_by_one() -> None:
    x = torch.randn(SHAPE, generator=torch_stream(0, "x"), requires_grad=True)
    out = drop(x, 0.5)
    directions = torch.randn(3, *SHAPE, generator=torch_stream(0, "directions"))
    (together,) = torch.autograd.grad(out, x, directions, retain_graph=True, is_grads_batched=True)
    for one, direction in zip(together, directions, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(out, x, direction, retain_graph=True)[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model", ["gpt2", "llama", "bert", "vit"])
def test_every_mask_of_our_own_networks_is_drawn_here(
    model: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {"seq_len": 5} if model != "vit" else {"dataset": "digits", "patch_size": 4}
    config = EnvConfig(model=model, n_layer=2, n_embd=8, n_head=2, **text)  # type: ignore[arg-type]
    sizes = {"vocab_size": 11} if model != "vit" else {"channels": 1, "height": 8, "width": 8, "classes": 3}
    network = build_network(config, sizes, torch.device("cpu"), torch_stream(0, "weights")).model.train()
    shapes: list[tuple[int, ...]] = []
    for module in (dropout, attention):
        note = lambda shape, generator: shapes.append(tuple(shape)) or random_numbers(shape, generator)  # type: ignore[func-returns-value]  # noqa: E731
        monkeypatch.setattr(module, "random_numbers", note)
    with Drawn() as drawn, gradients_once(training):
        if model == "vit":
            network(pixel_values=torch.zeros(2, 1, 8, 8))
        else:
            network(input_ids=torch.zeros(2, 5, dtype=torch.int64))
    assert drawn.by == ["aten.random_.from"] * len(shapes)
    assert len([shape for shape in shapes if shape[-1] == shape[-2]]) == config.n_layer
    assert len(shapes) == (config.n_layer if model == "llama" else 3 * config.n_layer + 1)
