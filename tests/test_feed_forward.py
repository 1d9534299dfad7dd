"""GPT-2's feed-forward part as one function gives what transformers' own gives."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.building import build_network
from tying_env.primary.kernels import feed_forward, products
from tying_env.primary.kernels.feed_forward import use_fast_feed_forward
from tying_env.primary.kernels.first_order import gradients_once
from tying_env.seeding import torch_stream

D, INNER = 12, 40


@pytest.fixture(autouse=True)
def as_in_a_training_step_of_a_large_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(feed_forward, "_SMALLEST", 0)
    with gradients_once():
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of our own function: one entry for each."""
    made: list[int] = []
    own = feed_forward._gelu

    def counted(*args: Any) -> Any:
        made.append(1)
        return own(*args)

    monkeypatch.setattr(feed_forward, "_gelu", counted)
    return made


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch_stream(seed, "values"), dtype=dtype)


def pair(dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, Any]:
    """Theirs, and ours with the same weights."""
    config = GPT2Config(n_embd=D, activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, **options)
    theirs = GPT2MLP(INNER, config).to(dtype)
    for i, parameter in enumerate(theirs.parameters()):
        parameter.data = draw(*parameter.shape, seed=i, dtype=dtype)
    ours = copy.deepcopy(theirs)
    use_fast_feed_forward(ours)
    return theirs, ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5, D), (1, 7, D), (D,)])
@pytest.mark.parametrize("piece", [1, 3 * INNER, 2**16])
def test_values_and_gradients_are_theirs(
    dtype: torch.dtype, shape: tuple[int, ...], piece: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_forward, "_PIECE", piece)
    theirs, ours = pair(dtype)
    x = draw(*shape, dtype=dtype).requires_grad_()
    direction = draw(*shape, seed=9, dtype=dtype)
    found = [(out := part(x), *torch.autograd.grad(out, [x, *part.parameters()], direction)) for part in (theirs, ours)]
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)
    assert calls == [1]


def test_far_from_zero_the_slope_is_that_of_a_line() -> None:
    x = torch.tensor([[-1e4, -60.0, -8.0, 0.0, 8.0, 60.0, 1e4]], requires_grad=True)
    expected = nn.functional.gelu(x, approximate="tanh")
    (slope,) = torch.autograd.grad(expected.sum(), x)
    found, own = feed_forward._gelu(x.detach().clone(), torch.zeros(7))
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(own, slope, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("frozen", [("c_fc",), ("c_proj",), ("c_fc", "c_proj"), ("x",), ("x", "c_fc"), ("biases",)])
def test_what_is_frozen_has_no_gradient_and_keeps_nothing(frozen: tuple[str, ...], calls: list[int]) -> None:
    theirs, ours = pair()
    x = draw(4, D).requires_grad_("x" not in frozen)
    for part in (theirs, ours):
        for name, parameter in part.named_parameters():
            parameter.requires_grad_(name.split(".")[0] not in frozen and not ("biases" in frozen and "bias" in name))
    kept: list[int] = []
    for part in (theirs, ours):
        out, held = keeping(part, x)
        out.square().sum().backward()
        kept.append(held)
    assert kept[1] <= kept[0]
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)
    assert calls == [1]


def keeping(part: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """The output, and the bytes that are kept for its backward pass."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        return part(x), sum(held.values())


@pytest.mark.parametrize(
    "why",
    [
        "no gradients",
        "16 bits",
        "autocast",
        "no training step",
        "a layer of another class",
        "a forward of its own",
        "small",
        "vmap",
    ],
)
def test_it_is_left_to_transformers_where_it_cannot_be_ours(
    why: str, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = torch.bfloat16 if why == "16 bits" else torch.float32
    _, ours = pair(dtype)
    x = draw(4, D, dtype=dtype)
    if why == "a layer of another class":
        ours.c_fc, ours.c_proj = nn.Linear(D, INNER), nn.Linear(INNER, D)
    elif why == "a forward of its own":
        ours.c_proj.forward = lambda x: x[..., :D]
    elif why == "small":
        monkeypatch.setattr(feed_forward, "_SMALLEST", 4 * INNER + 1)
    with (
        torch.set_grad_enabled(why != "no gradients"),
        torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"),
        gradients_once(why != "no training step"),
    ):
        if why == "vmap":
            torch.func.vmap(ours)(x[None])
        else:
            ours(x)
    assert calls == []
    if why not in ("16 bits", "a layer of another class", "small"):
        ours.c_proj.__dict__.pop("forward", None)
        ours(x)
        assert calls == [1]


HOOKS = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", ["c_fc", "act", "c_proj", "dropout", "everywhere"])
def test_whoever_looks_at_its_parts_is_called(kind: str, name: str, calls: list[int]) -> None:
    _, ours = pair()
    seen: list[str] = []

    def look(module: nn.Module, *_: Any) -> None:
        seen.append(type(module).__name__)

    if name == "everywhere":
        handle = getattr(nn.modules.module, f"register_module_{kind}")(look)
    else:
        handle = getattr(ours.get_submodule(name), f"register_{kind}")(look)
    try:
        ours(draw(4, D).requires_grad_()).sum().backward()
    finally:
        handle.remove()
    assert len(seen) == (5 if name == "everywhere" else 1)
    assert calls == ([1] if name == "dropout" else [])  # that is called as ever


SETTINGS: list[dict[str, Any]] = [
    {},
    {"gradient": "leader", "group_lr": "sqrt"},
    {"residual_scale": "sqrt", "residual_ramp": 1},
    {"checkpoint_blocks": True},
    {"accumulate": 2},
    {"units": "sublayers"},
    {"frozen_weights": "redrawn"},
    {"attention": "reused"},
    {"later_tying": "mean", "optimizer": "muon"},
    {"tied_parameters": "matrices"},
]


@pytest.mark.parametrize("choice", SETTINGS, ids=str)
def test_networks_train_as_with_torchs_own(choice: dict[str, Any], calls: list[int], tiny: dict[str, Any]) -> None:
    """Through the frozen start, ties and splits; in double precision, so that a mistake cannot pass for rounding."""
    settings = tiny | {"dtype": "float64", "dropout": 0.1, "k": 2, "total_steps": 8} | choice
    rewards: list[list[float]] = []
    for smallest in (0, 10**9):
        feed_forward._SMALLEST = smallest  # put back by the fixture's monkeypatch
        env = LayerTyingEnv(**settings)
        env.reset(seed=3)
        kinds = [[0, 0, 0, 1], [0, 1, 2, 2], [0, 1, 2, 3]]  # after the frozen start, which has k steps
        actions = [np.array(own * (env.n_units // 4)) for own in kinds]
        rewards.append([float(env.step(action)[1]) for action in actions])
    np.testing.assert_allclose(rewards[0], rewards[1], rtol=1e-9)
    assert calls


def test_another_activation_is_left_alone() -> None:
    config = GPT2Config(n_embd=D, activation_function="gelu")
    part = GPT2MLP(INNER, config)
    use_fast_feed_forward(part)
    assert type(part) is GPT2MLP


def test_dropout_comes_after_it(calls: list[int]) -> None:
    _, ours = pair()
    ours.dropout.p = 0.5
    x = draw(100, D)
    assert float((ours.train()(x) == 0).double().mean()) == pytest.approx(0.5, abs=0.1)
    assert not (ours.eval()(x) == 0).any()
    assert calls == [1, 1]


def test_products_go_through_onednn_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_MKL_LEAVES_AVX512", True)
    monkeypatch.setattr(products, "_SMALLEST", 0)
    made: list[int] = []
    monkeypatch.setattr(feed_forward, "product", lambda *a: made.append(1) or products.product(*a))  # type: ignore[func-returns-value]
    theirs, ours = pair(torch.float32)
    x = draw(6, D, dtype=torch.float32).requires_grad_()
    found = [(out := part(x), *torch.autograd.grad(out.sum(), [x, *part.parameters()])) for part in (theirs, ours)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=2e-5, atol=1e-5)
    assert len(made) == 6


def test_copies_and_pickles_compute_alike(calls: list[int]) -> None:
    _, ours = pair()
    x = draw(4, D)
    expected = ours(x)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x), expected)
    assert len(calls) == 3


def test_our_networks_have_it() -> None:
    config = EnvConfig(n_layer=2, n_embd=8, n_head=2, seq_len=5)
    network = build_network(config, {"vocab_size": 11}, torch.device("cpu"), torch_stream(0, "weights"))
    assert all(type(block.mlp) is feed_forward._FastFeedForward for block in network.blocks)


def test_compiled_code_sees_no_more_than_transformers_own(calls: list[int]) -> None:
    theirs, ours = pair()
    x = draw(2, 3, D)
    graph = torch.compile(ours, fullgraph=True, backend="eager")  # which raises where the compiler cannot see through
    assert torch.equal(graph(x), theirs(x))
    assert not calls
