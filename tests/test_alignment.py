"""Alignment of layers: what is measured, what chance gives, and orders that change nothing."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tests.families import FAMILIES, Batch
from tying_env.alignment import match_units, measure_alignment, permute_units
from tying_env.alignment.parts import find_parts
from tying_env.primary.blocks import find_blocks
from tying_env.primary.models import PrimaryNetwork
from tying_env.seeding import torch_randomness_from, torch_stream

KNOWN = ("gpt2", "bert", "roberta", "vit", "deit", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")


def blocks_of(model: nn.Module) -> list[nn.Module]:
    return PrimaryNetwork(model, find_blocks(model)).blocks


def gqa() -> nn.Module:
    """A decoder in which four query heads share two key-value heads."""
    sizes = FAMILIES["llama"].sizes | {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, attention_bias=True))


def drawn(name: str) -> nn.Module:
    """A network in evaluation mode whose parameters, biases too, are all random."""
    with torch_randomness_from(torch_stream(0, "weights")), torch.no_grad():
        model = gqa() if name == "gqa" else FAMILIES[name].make()
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval().double()


def logits(model: Any, name: str) -> torch.Tensor:
    batch: Batch = FAMILIES["llama" if name == "gqa" else name].draw(np.random.default_rng(0))
    given = {key: torch.as_tensor(array) for key, array in batch.items() if key != "labels"}
    if "pixel_values" in given:
        given["pixel_values"] = given["pixel_values"].double()
    with torch.no_grad():
        found: torch.Tensor = model(**given).logits
    return found


@pytest.mark.parametrize("name", [*KNOWN, "gqa"])
def test_another_order_of_heads_and_units_computes_the_same(name: str) -> None:
    model = drawn(name)
    before, weights = logits(model, name), [b.state_dict() for b in copy.deepcopy(blocks_of(model))]
    orders = permute_units(blocks_of(model), np.random.default_rng(1))
    assert len({order[1].tobytes() for order in orders}) == len(orders)  # each layer has its own
    pairs = zip(blocks_of(model), weights, strict=True)
    changed = [not torch.equal(now.state_dict()[n], was[n]) for now, was in pairs for n in was]
    assert sum(changed) >= 2 * len(orders)
    torch.testing.assert_close(logits(model, name), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["gpt2", "bert", "gqa"])
def test_copies_of_a_layer_are_aligned_permuted_ones_only_by_the_optimal_matching(name: str) -> None:
    model = drawn(name)
    blocks = blocks_of(model)
    for block in blocks[1:]:
        block.load_state_dict(blocks[0].state_dict())
    for alignment in measure_alignment(blocks, np.random.default_rng(0)).values():
        np.testing.assert_allclose(alignment.optimal, 1, atol=1e-6)
        np.testing.assert_allclose(alignment.identity, 1, atol=1e-6)
    rng = np.random.default_rng(3)
    while any((order[0] == np.arange(len(order[0]))).all() for order in permute_units(blocks, rng)[1:]):
        pass  # of two heads every other order is the one they had
    permuted = measure_alignment(blocks, np.random.default_rng(0))
    away = ~np.eye(len(blocks), dtype=bool)
    np.testing.assert_allclose(permuted["units"].optimal, 1, atol=1e-6)
    np.testing.assert_allclose(permuted["heads"].optimal, 1, atol=1e-6)
    assert permuted["units"].identity[away].max() < 0.5
    distance = abs(permuted["units"].identity - permuted["units"].random_mean)[away]
    assert distance.mean() < 3 * permuted["units"].random_spread[away].mean()  # no more than any random matching
    match_units(blocks)
    for kind in ("heads", "units", "channels"):
        np.testing.assert_allclose(measure_alignment(blocks, rng)[kind].identity, 1, atol=1e-6)


def test_independent_layers_are_aligned_as_far_as_the_chance_line_says() -> None:
    sizes = FAMILIES["gpt2"].sizes | {"n_embd": 32, "n_layer": 5}
    with torch_randomness_from(torch_stream(0, "weights")):
        blocks = blocks_of(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)))
    away = ~np.eye(5, dtype=bool)
    for kind, alignment in measure_alignment(blocks, np.random.default_rng(0)).items():
        assert alignment.optimal[away].mean() == pytest.approx(alignment.chance, abs=0.03), kind
        assert abs(alignment.identity[away].mean()) < 0.05
    assert measure_alignment(blocks, np.random.default_rng(0))["units"].chance > 0.2  # far above 0


def test_a_matching_is_by_hand_what_it_is_here() -> None:
    """Two units whose weights are known: unit 0 of one layer is like unit 1 of the other."""
    blocks = blocks_of(drawn("gpt2"))[:2]
    one, other = (b.state_dict() for b in blocks)
    for name, axis in (("mlp.c_fc.weight", 1), ("mlp.c_proj.weight", 0)):
        other[name].copy_(one[name].flip(axis) * 3)  # a scale does not change a direction
    found = measure_alignment(blocks, np.random.default_rng(0), kinds=["units"])["units"]
    assert found.optimal[0, 1] == pytest.approx(1, abs=1e-6)
    halves = (one["mlp.c_fc.weight"].T, one["mlp.c_proj.weight"])
    rows = torch.cat([half / half.square().mean().sqrt() for half in halves], 1)  # both count alike
    expected = nn.functional.cosine_similarity(rows, rows.flip(0)).mean().item()
    assert found.identity[0, 1] == pytest.approx(expected, abs=1e-6)
    assert found.count == 64
    heads = find_parts(blocks)[0].heads
    assert (heads.count, heads.vectors().shape) == (2, (2, 4 * 8 * 16))
    queries = one["attn.c_attn.weight"][:, :16].T / one["attn.c_attn.weight"][:, :16].square().mean().sqrt()
    torch.testing.assert_close(heads.vectors()[1][: 8 * 16], queries[8:].reshape(-1).float())  # of the second head


def test_query_heads_that_share_a_key_value_head_are_one_part() -> None:
    heads = find_parts(blocks_of(drawn("gqa")))[0].heads
    assert (heads.count, heads.vectors().shape) == (2, (2, (2 + 1 + 1 + 2) * 4 * 16))


def test_layers_that_share_weights_are_one_and_cannot_be_reordered() -> None:
    blocks = blocks_of(drawn("gpt2"))
    for name, parameter in blocks[0].named_parameters():
        module, _, attribute = name.rpartition(".")
        setattr(blocks[2].get_submodule(module), attribute, parameter)
    found = measure_alignment(blocks, np.random.default_rng(0))["units"]
    assert found.optimal[0, 2] == found.identity[0, 2] == 1
    np.testing.assert_array_equal(found.optimal[0], found.optimal[2])
    for change in (lambda: permute_units(blocks, np.random.default_rng(0)), lambda: match_units(blocks)):
        with pytest.raises(ValueError, match="layers 0 and 2 share weights"):
            change()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt-neox", "a GPTNeoXLayer cannot be told apart: it has no attn.c_attn"),
        ("mixtral", "at mlp.gate_proj a linear layer was expected, there is nothing"),
        ("olmo2", r"nothing is known of its self_attn.q_norm.weight, \(16,\)"),
        ("t5", "a T5Block cannot be told apart"),
        ("bart", "a Bart"),
    ],
)
def test_blocks_that_are_not_known_are_named(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_parts(blocks_of(FAMILIES[name].make()))


def test_networks_of_the_users_own_and_wrong_requests_are_named() -> None:
    with pytest.raises(ValueError, match="a Sequential cannot be told apart"):
        find_parts([nn.Sequential(nn.Linear(3, 3))])
    with pytest.raises(ValueError, match="there is no block"):
        find_parts([])
    blocks = blocks_of(drawn("gpt2"))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        measure_alignment(blocks, np.random.default_rng(0), draws=0)
    with pytest.raises(ValueError, match="permutation of 64 parts"):
        find_parts(blocks)[0].units.reorder([0] * 64)
    wider = FAMILIES["gpt2"].sizes | {"n_inner": 8}
    other = blocks_of(transformers.GPT2LMHeadModel(transformers.GPT2Config(**wider)))
    with pytest.raises(ValueError, match="blocks 0 and 1 differ"):
        find_parts([blocks[0], other[0]])
    next(blocks[1].mlp.parameters()).data.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(ValueError, match="not finite"):
        measure_alignment(blocks, np.random.default_rng(0))
