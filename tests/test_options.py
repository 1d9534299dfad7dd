"""Options that change how a step is computed change neither what is trained nor what can be resumed."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from tying_env import partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.kernels import products
from tying_env.primary.kernels.head import linear_cross_entropy

TYING = {"tying": [0, 0, 2, 0]}


def trained(tiny: dict[str, Any], **choice: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    env = LayerTyingEnv(**tiny | {"dropout": 0.0} | choice)
    env.reset(seed=0, options=TYING)
    losses = env.trainer.train(4).losses
    return losses, {name: p.detach() for name, p in env.trainer.named_parameters()}


@pytest.mark.parametrize("gradient", ["shared", "leader"])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    tiny: dict[str, Any], accumulate: int, gradient: str
) -> None:
    losses, weights = trained(tiny, gradient=gradient, dtype="float64")
    in_parts, parts_weights = trained(tiny, gradient=gradient, dtype="float64", accumulate=accumulate)
    assert in_parts == pytest.approx(losses, rel=1e-6)  # a loss is added up in single precision
    for name, weight in weights.items():
        torch.testing.assert_close(parts_weights[name], weight, rtol=1e-4, atol=1e-7, msg=name)


def test_parts_hold_fewer_activations(tiny: dict[str, Any]) -> None:
    from torch.autograd.graph import saved_tensors_hooks

    most = {}
    for accumulate in (1, 4):
        env = LayerTyingEnv(**tiny | {"accumulate": accumulate})
        env.reset(seed=0, options=TYING)
        held = [0]

        def pack(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(held[-1] + tensor.numel())
            return tensor

        plain = env.trainer.gradients.loss

        def loss(model: Any, part: torch.Tensor, plain: Any = plain, pack: Any = pack, held: Any = held) -> Any:
            held.append(0)
            with saved_tensors_hooks(pack, lambda tensor: tensor):
                return plain(model, part)

        env.trainer.gradients.loss = loss  # type: ignore[method-assign]
        env.trainer.train(1)
        most[accumulate] = max(held)
    assert most[4] < 0.5 * most[1]


def test_prefetched_batches_are_the_same_and_none_is_lost_at_a_stop(tiny: dict[str, Any]) -> None:
    plain, ahead = (LayerTyingEnv(**tiny | {"prefetch": choice}) for choice in (False, True))
    for env in (plain, ahead):
        env.reset(seed=0, options=TYING)
    answers = iter([False, False, True])
    stopped = ahead.trainer.train(5, lambda: next(answers))
    assert stopped.losses == plain.trainer.train(2).losses
    assert ahead.trainer.state_dict()["batches"] == plain.trainer.state_dict()["batches"]
    other = ahead.fork()
    expected = plain.trainer.train(3).losses
    assert ahead.trainer.train(3).losses == expected
    assert other.trainer.train(3).losses == expected
    assert ahead.trainer.state_dict()["batches"] == plain.trainer.state_dict()["batches"]


def test_autocast_computes_in_bfloat16_and_trains_in_float32(tiny: dict[str, Any]) -> None:
    exact, _ = trained(tiny)
    rough, weights = trained(tiny, autocast=True)
    assert rough != exact
    assert rough == pytest.approx(exact, rel=2e-2)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_the_head_computes_in_autocasts_type_and_gives_gradients_in_its_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(8, 4, generator=generator, requires_grad=True)
    weight = torch.randn(11, 4, generator=generator, requires_grad=True)
    targets = torch.arange(8)
    seen = set()
    multiply = torch.mm

    def watched(a: torch.Tensor, b: torch.Tensor, **more: Any) -> torch.Tensor:
        seen.add(a.dtype)
        return multiply(a, b, **more)

    monkeypatch.setattr(torch, "mm", watched)
    exact = linear_cross_entropy(hidden, weight, targets)
    assert seen == {torch.float32}
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rough = linear_cross_entropy(hidden, weight, targets)
    assert seen == {torch.bfloat16}
    assert rough.item() == pytest.approx(exact.item(), rel=2e-2)
    rough.backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
@pytest.mark.parametrize(("gradient", "onednn"), [("shared", False), ("leader", False), ("leader", True)])
def test_no_change_of_the_tying_compiles_anything_again(
    tiny: dict[str, Any], gradient: str, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_MKL_LEAVES_AVX512", onednn)
    monkeypatch.setattr(products, "_SMALLEST", 0)
    torch._dynamo.reset()
    counters.clear()
    # What is compiled is decided before it is turned into C++; that takes long, and test_env.py does it.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    # More layers than the compiler makes graphs of one function: beyond 8 it would continue without, and not say so.
    settings = tiny | {"compile_blocks": True, "gradient": gradient, "total_steps": 40, "k": 1, "n_layer": 10}
    env = LayerTyingEnv(**settings)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    env.step(partition.uniform_random_action(10, rng))  # the frozen start, a first tying, the reward
    compiled = counters["stats"]["unique_graphs"]
    assert 0 < compiled <= 4
    changes = 0
    for _ in range(4):
        _, _, _, _, info = env.step(partition.uniform_random_action(10, rng))
        changes += info["tied_events"] + info["untied_events"]
    assert changes > 3
    assert counters["stats"]["unique_graphs"] == compiled
    assert counters["frames"]["total"] == counters["frames"]["ok"]


@pytest.mark.parametrize(
    "choice", [{"accumulate": 2}, {"prefetch": True}, {"checkpoint_blocks": True}, {"autocast": True}]
)
def test_a_fork_continues_with_the_same_bits_under_every_option(tiny: dict[str, Any], choice: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | choice)
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 3]))
    twin = env.fork()
    for action in ([0, 0, 0, 3], [0, 1, 2, 2]):
        assert env.step(np.array(action))[1] == twin.step(np.array(action))[1]
