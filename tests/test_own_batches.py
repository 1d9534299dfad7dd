"""Batches of the user's own: in any container, and with numbers in the network's type."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models import Mixed, own
from tying_env.data.batches import arrays_of
from tying_env.env import LayerTyingEnv


class Pair(NamedTuple):
    x: Any
    y: Any
    mask: Any = None


@dataclasses.dataclass(frozen=True)
class Example:
    x: Any
    y: Any
    mask: Any = None


def numbers(count: int, dtype: Any = np.float32) -> tuple[Any, Any]:
    x = np.linspace(-1, 1, 3 * count).reshape(count, 3).astype(dtype)
    return x, x.sum(1, keepdims=True)


CONTAINERS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], tuple[Any, Any]]]] = {
    "tuple": (lambda x, y: (x, y), lambda b: (b[0], b[1])),
    "named tuple": (lambda x, y: Pair(x, y), lambda b: (b.x, b.y)),
    "dataclass": (lambda x, y: Example(x, y), lambda b: (b.x, b.y)),
    "nested": (lambda x, y: {"in": {"x": x}, "out": Pair(y, y)}, lambda b: (b["in"]["x"], b["out"].y)),
    "dataclass in a dictionary": (lambda x, y: {"all": Example(x, y)}, lambda b: (b["all"].x, b["all"].y)),
}


def trained(
    container: str, drawn: bool = False, dtype: Any = np.float32, tensors: bool = False, **settings: Any
) -> tuple[LayerTyingEnv, list[dict[str, Any]]]:
    pack, unpack = CONTAINERS[container]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = unpack(batch)
        return (model(x) - y).square().mean()  # type: ignore[no-any-return]

    def examples(count: int) -> Any:
        x, y = numbers(count, dtype)
        return pack(torch.as_tensor(x), torch.as_tensor(y)) if tensors else pack(x, y)

    def draw(rng: np.random.Generator) -> Any:
        x, y = numbers(50, dtype)
        places = rng.integers(50, size=4)
        return pack(x[places], y[places])

    env = own(
        lambda: Mixed((4, 4, 4)), batches=draw if drawn else examples(50), loss=loss, validation=examples(9), **settings
    )
    env.reset(seed=0)
    return env, [env.step(np.array([0, 0, 1]))[-1] for _ in range(2)]


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "tuple"])
def test_every_container_gives_the_numbers_of_a_tuple(container: str, drawn: bool) -> None:
    _, expected = trained("tuple", drawn)
    _, found = trained(container, drawn)
    np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("container", ["named tuple", "dataclass"])
def test_a_container_is_cut_into_parts(container: str) -> None:
    _, expected = trained("tuple", accumulate=2)
    _, found = trained(container, accumulate=2)
    np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("tensors", [False, True])
def test_numbers_come_in_the_type_of_the_network(drawn: bool, tensors: bool) -> None:
    _, expected = trained("tuple", drawn)
    _, found = trained("nested", drawn, np.float64, tensors)
    for one, two in zip(found, expected, strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-5)
        assert one["validation_perplexity"] == pytest.approx(two["validation_perplexity"], rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_network_of_another_type_reads_float32(dtype: str) -> None:
    x, y = numbers(50)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch.x) - batch.y).square().mean()  # type: ignore[no-any-return]

    env = own(Mixed((4, 4, 4)), batches=Example(x, y), loss=loss, validation=Example(x, y), dtype=dtype)
    env.reset(seed=0)
    infos = [env.step(np.array([0, 0, 1]))[-1] for _ in range(2)]
    assert {str(p.dtype) for p in env.trainer.network.model.parameters()} == {f"torch.{dtype}"}
    assert all(np.isfinite(info["train_loss"]) for info in infos)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = x + layer(x)
        return x


@pytest.mark.parametrize(
    ("pack", "tokens"),
    [
        (lambda ids: ids, 4 * 6),
        (lambda ids: {"ids": ids}, 4 * 6),
        (lambda ids: Pair(ids, ids[:, 0]), 4 * 6),
        (lambda ids: {"other": ids[:, 0], "input_ids": ids}, 4 * 6),
        (lambda ids: ids[:, 0], 4),
    ],
)
def test_tokens_are_counted_where_a_batch_has_them(pack: Callable[[Any], Any], tokens: int) -> None:
    ids = np.random.default_rng(0).integers(11, size=(40, 6))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(next(arrays_of(batch))).square().mean()  # type: ignore[no-any-return]

    env = LayerTyingEnv(model=Words(), batches=pack(ids), loss=loss, batch_size=4, k=2, total_steps=6, device="cpu")
    env.reset(seed=0)
    assert env.step(np.array([0, 0, 1]))[-1]["tokens"] == 4 * tokens  # two frozen steps, two more


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (np.ma.masked_array(numbers(4)[0], numbers(4)[0] > 0), "a masked array, whose mask training would not see"),
        (numbers(4)[0].astype(object), "numbers of the type object"),
        (numbers(4, np.longdouble)[0], "numbers of the type float128|numbers of the type longdouble"),
        (numbers(4)[0].astype(">f4"), "bytes in another order"),
        (torch.ones(4, 3).to_sparse(), "a tensor of the layout torch.sparse_coo"),
        (torch.ones(4, 3, requires_grad=True), "a tensor that wants a gradient"),
    ],
    ids=["masked", "object", "longdouble", "byte order", "sparse", "gradient"],
)
def test_arrays_that_a_network_cannot_be_given_are_refused_by_name(part: Any, message: str) -> None:
    y = numbers(4)[1]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch["in"].x) - batch["y"]).square().mean()

    batch, rest = {"in": Pair(part, None), "y": y}, {"validation": None, "validate_every": 0}
    with pytest.raises(TypeError, match=rf"batches\['in'\]\['x'\] must be an array of numbers, .* got .*({message})"):
        own(batches=batch, loss=loss, **rest)
    drawn = own(batches=lambda rng: batch, loss=loss, **rest)
    drawn.reset(seed=0)
    with pytest.raises(TypeError, match=rf"a batch\['in'\]\['x'\] must be an array of numbers, .* got .*({message})"):
        drawn.step(drawn.action_space.sample())
