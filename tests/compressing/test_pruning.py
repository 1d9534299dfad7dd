"""Pruning: which weights go, of networks whose layers share them, and what is left behind."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.compressing.conftest import MakeRun
from tying_env.compression.pruning import (
    Pruning,
    gathered_norms,
    input_norms,
    left_alone,
    linears_of,
    prune,
    pruned_places,
    scores,
)
from tying_env.primary.models import PrimaryNetwork
from tying_env.runs import LoadedRun, load_run


def inputs_by_hand(loaded: LoadedRun, examples: int) -> dict[tuple[int, str], Tensor]:
    """Return what went into each linear layer of a GPT-2, (positions, inputs), by layer and name."""
    seen: dict[tuple[int, str], list[Tensor]] = {}
    model: Any = loaded.model
    handles = []
    for layer, block in enumerate(model.transformer.h):
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):

            def hook(_: nn.Module, args: Any, key: tuple[int, str] = (layer, name)) -> None:
                seen.setdefault(key, []).append(args[0].flatten(0, 1).clone())

            handles.append(block.get_submodule(name).register_forward_pre_hook(hook))
    workload = loaded.open_workload()
    batches = workload.training_batches(0)
    for _ in range(examples // workload.config.batch_size):
        windows = torch.as_tensor(batches.next_batch().astype("int64"))
        with torch.no_grad():
            model(input_ids=windows[:, :-1])
    for handle in handles:
        handle.remove()
    return {key: torch.cat(parts) for key, parts in seen.items()}


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_the_norm_of_a_shared_weights_input_is_over_all_layers_that_use_it(make_run: MakeRun, gradient: str) -> None:
    loaded = make_run(gradient=gradient)
    assert loaded.tying.tolist() == [0, 1, 1, 3]
    linears = linears_of(loaded.saved.network)
    assert [linear.name for linear in linears if ".mlp.c_fc" in linear.name] == [
        f"transformer.h.{layer}.mlp.c_fc.weight" for layer in (0, 1, 3)
    ]
    random = torch.random.get_rng_state()
    norms = input_norms(loaded.model, linears, loaded.open_workload(), 8)
    assert torch.equal(torch.random.get_rng_state(), random)
    seen = inputs_by_hand(loaded, 8)
    for linear in linears:
        layer, name = int(linear.name.split(".")[2]), linear.name.split(".", 3)[3].removesuffix(".weight")
        users = [other for other in range(4) if loaded.tying[other] == layer]
        expected = torch.cat([seen[other, name] for other in users]).double().square().sum(0).sqrt()
        torch.testing.assert_close(norms[linear.name], expected, rtol=1e-6, atol=1e-9)
        # A Conv1D computes x @ W: its outputs are columns, and the score of W[i, o] has the norm of input i.
        weight: Any = loaded.model.get_parameter(linear.name)
        counted = weight.detach().abs() * norms[linear.name][:, None]
        torch.testing.assert_close(scores(linear, norms[linear.name]), counted.T)
    again = input_norms(loaded.model, linears, loaded.open_workload(), 8)
    assert all(torch.equal(again[name], norms[name]) for name in norms)  # the same examples each time


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
def test_the_least_weights_of_every_output_go(sandwich: LoadedRun, method: Any) -> None:
    loaded = load_run(sandwich.path)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    linears = linears_of(loaded.saved.network)
    norms = input_norms(loaded.model, linears, loaded.open_workload(), 8) if method == "wanda" else None
    prune(linears, norms, Pruning(0.3, method))
    pruned = {linear.name for linear in linears}
    for name, parameter in loaded.model.named_parameters():
        if name not in pruned:
            assert torch.equal(parameter, before[name]), name
            continue
        inputs, outputs = before[name].shape
        for output in range(outputs):  # one column of the Conv1D after another, by sorting
            column = before[name][:, output]
            count = [abs(float(w)) * (1 if norms is None else float(norms[name][i])) for i, w in enumerate(column)]
            gone = set(sorted(range(inputs), key=lambda place: (count[place], place))[: int(0.3 * inputs)])
            expected = [0.0 if place in gone else float(w) for place, w in enumerate(column)]
            assert parameter[:, output].tolist() == expected, (name, output)
    blocks: Any = loaded.model.transformer.h  # type: ignore[union-attr]
    assert blocks[1].mlp.c_fc.weight.data_ptr() == blocks[2].mlp.c_fc.weight.data_ptr()
    assert (blocks[2].mlp.c_fc.weight == 0).any()


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.25, 0.5, 0.7, 0.99])
def test_every_row_has_exactly_its_share_of_zeros(sparsity: float) -> None:
    drawn = torch.rand(7, 10, generator=torch.Generator().manual_seed(0))
    for numbers in (drawn, torch.zeros(7, 10), drawn.round(decimals=1)):  # equal scores, too
        places = pruned_places(numbers, Pruning(sparsity))
        assert places.sum(1).tolist() == [{0.0: 0, 0.1: 1, 0.25: 2, 0.5: 5, 0.7: 7, 0.99: 9}[sparsity]] * 7
        for row, gone in zip(numbers, places, strict=True):
            assert not gone.any() or gone.all() or row[gone].max() <= row[~gone].min()


def test_two_of_every_four_inputs_of_an_output_go() -> None:
    numbers = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 9.0, 8.0, 0.0], [1.0, 1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 4.0]])
    assert pruned_places(numbers, Pruning(0.5, pattern="2:4")).int().tolist() == [
        [0, 0, 1, 1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1, 0, 0, 1],
    ]


def test_what_is_not_possible_is_refused_with_its_value(make_run: MakeRun) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sparsity": 1.0}, "sparsity must be at least 0 and below 1, got 1.0"),
        ({"sparsity": -0.1}, "sparsity must be at least 0 and below 1, got -0.1"),
        ({"sparsity": float("nan")}, "got nan"),
        ({"sparsity": 0.25, "pattern": "2:4"}, "the pattern 2:4 has a sparsity of 0.5, got 0.25"),
        ({"pattern": "1:4"}, "pattern must be one of unstructured, 2:4, got '1:4'"),
        ({"method": "random"}, "method must be one of wanda, magnitude, got 'random'"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            Pruning(**settings)
    loaded = make_run(n_embd=6, n_head=2)
    linears = linears_of(loaded.saved.network)
    before = [linear.weight.clone() for linear in linears]
    with pytest.raises(ValueError, match=r"'transformer\.h\.0\.attn\.c_\w+\.weight': .* a multiple of 4, got 6"):
        prune(linears, None, Pruning(0.5, "magnitude", "2:4"))
    with pytest.raises(ValueError, match="the method 'wanda' takes norms of inputs"):
        prune(linears, None, Pruning(0.5))
    assert all(torch.equal(linear.weight, weight) for linear, weight in zip(linears, before, strict=True))
    with pytest.raises(TypeError, match="low-rank deltas of their own"):
        linears_of(make_run(delta_rank=2).saved.network)


class Attending(nn.Module):
    """A block with an attention of torch's, which computes with the weights of its linear layer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.feed = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feed(self.attention(x, x, x)[0])


def network_of(*blocks: nn.Module) -> PrimaryNetwork:
    model = nn.Module()
    model.layers = nn.ModuleList(blocks)
    return PrimaryNetwork(model, ("layers",))


def test_a_weight_whose_input_is_not_seen_is_refused_by_name_and_others_are_named() -> None:
    block = Attending().train()
    network = network_of(block)
    linears = linears_of(network)
    assert [linear.name for linear in linears] == ["layers.0.attention.out_proj.weight", "layers.0.feed.weight"]
    assert left_alone(network, linears) == ["layers.0.attention.in_proj_weight"]
    with (
        pytest.raises(ValueError, match=r"through the module of 'layers\.0\.attention\.out_proj\.weight'"),
        gathered_norms(linears),
    ):
        block(torch.randn(2, 3, 4))
    assert not block.feed._forward_pre_hooks  # nothing stays behind
    with pytest.raises(ValueError, match=r"inputs of 'layers\.0\.weight' are not finite"):
        bare = network_of(nn.Linear(2, 2))
        with gathered_norms(linears_of(bare)):
            bare.blocks[0](torch.full((1, 2), torch.inf))
    with pytest.raises(ValueError, match="have no linear layers"):
        linears_of(network_of(nn.LayerNorm(4)))


def test_weights_that_are_parts_of_one_memory_are_weights_each() -> None:
    memory, block = torch.randn(2, 3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for linear, part in zip(block, memory, strict=True):
        linear.weight = nn.Parameter(part)  # type: ignore[assignment]
    assert [linear.name for linear in linears_of(network_of(block))] == ["layers.0.0.weight", "layers.0.1.weight"]
