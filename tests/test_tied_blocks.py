"""Every change of the tying follows the rule: weights, gradients and the optimizer's state."""

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.blocks import L, Net, batch, make, train, values
from tying_env import partition
from tying_env.tied_blocks import TiedBlocks

tyings = st.tuples(*(st.integers(0, i) for i in range(L))).map(lambda a: partition.canonicalise(list(a)))


@settings(deadline=None, max_examples=40)
@given(st.lists(tyings, min_size=1, max_size=6), st.sampled_from(["shared", "leader"]), st.booleans())
def test_every_change_follows_the_rule_and_tied_means_one(sequence: list[Any], gradient: str, frozen: bool) -> None:
    net, tied, optimizer = make(None if frozen else np.arange(L), gradient=gradient)
    for step, tying in enumerate(sequence):
        train(net, optimizer, start=step)
        before = values(tied)
        tied.change(tying, optimizer)
        after = values(tied)
        for i in range(L):  # W'[i] = W[s'[i]]
            assert all(torch.equal(after[i][name], before[tying[i]][name]) for name in after[i])
        for i in range(L):
            for name, parameter in tied.weights(i).items():
                leader = tied.weights(int(tying[i]))[name]
                assert parameter.untyped_storage().data_ptr() == leader.untyped_storage().data_ptr()
                assert (parameter is leader) == (gradient == "shared" or tying[i] == i)
                assert parameter.requires_grad == (gradient == "shared" or tying[i] == i)
        storages = {p.untyped_storage().data_ptr() for block in net.blocks for p in block.parameters()}
        assert len(storages) == 4 * len(partition.leaders(tying))
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in net.parameters() if p.requires_grad}
        assert {id(p) for p in optimizer.state} <= trained
        assert tied.owners() == partition.leaders(tying)


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_dropped_weights_gradients_and_state_are_freed(gradient: Any) -> None:
    net, tied, optimizer = make(np.arange(L), gradient=gradient)
    rng = np.random.default_rng(0)
    gc.collect()
    gc.freeze()  # what other tests have left need not be looked at again and again
    for step in range(20):
        train(net, optimizer, start=step)
        tying = partition.canonicalise(partition.uniform_random_action(L, rng))
        stays = set(partition.leaders(tying)) & set(partition.leaders(tied.tying))
        watched = [
            weakref.ref(tensor)
            for i in partition.leaders(tied.tying)
            if i not in stays
            for p in tied.weights(i).values()
            for tensor in (p, p.grad, *optimizer.state[p].values())
        ]
        kept = {i: list(tied.weights(i).values()) for i in stays}
        tied.change(tying, optimizer)
        gc.collect()
        assert [ref for ref in watched if ref() is not None] == []
        assert all(a is b for i in stays for a, b in zip(kept[i], tied.weights(i).values(), strict=True))
        # An optimizer step still moves each weight once, and only what is in use.
        train(net, optimizer, start=100 + step)
        assert len(optimizer.state) == 2 + 4 * len(partition.leaders(tying))


def test_the_gradient_of_a_tied_weight_is_the_sum_over_an_untied_twin() -> None:
    tying = [0, 0, 2, 0, 2, 5]
    net, tied, _ = make(tying)
    twin, _, _ = make(np.arange(L))
    with torch.no_grad():
        for block, weights in zip(twin.blocks, values(tied), strict=True):
            for name, p in block.named_parameters():
                p.copy_(weights[name])
    for model in (net, twin):
        model(batch(0)).square().mean().backward()
    for leader, members in partition.groups(tying).items():
        for name, parameter in tied.weights(leader).items():
            terms = [twin.blocks[i].get_parameter(name).grad for i in members]
            assert all(term is not None for term in terms)
            torch.testing.assert_close(parameter.grad, sum(terms), rtol=1e-12, atol=1e-12)  # type: ignore[arg-type]


def test_the_leader_gradient_is_the_leaders_own_term() -> None:
    tying = [0, 0, 2, 0, 2, 5]
    net, tied, _ = make(tying, gradient="leader")
    twin, _, _ = make(np.arange(L))
    with torch.no_grad():
        for block, weights in zip(twin.blocks, values(tied), strict=True):
            for name, p in block.named_parameters():
                p.copy_(weights[name])
    outputs = [model(batch(0)) for model in (net, twin)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().mean().backward()
    for leader in partition.leaders(tying):
        for name, parameter in tied.weights(leader).items():
            torch.testing.assert_close(parameter.grad, twin.blocks[leader].get_parameter(name).grad)
    assert tied.weights(1)["up.weight"].grad is None


def test_followers_see_what_their_leader_learns_in_both_modes() -> None:
    for gradient in ("shared", "leader"):
        net, tied, optimizer = make([0] * L, gradient=gradient)
        train(net, optimizer, 3)
        assert all(torch.equal(values(tied)[i][n], values(tied)[0][n]) for i in range(L) for n in values(tied)[0])


def test_a_layer_that_is_untied_starts_as_a_copy_and_drifts_alone() -> None:
    net, tied, optimizer = make([0] * L)
    train(net, optimizer, 3)
    tied.change([0, 0, 0, 3, 3, 3], optimizer)
    assert torch.equal(tied.weights(3)["up.weight"], tied.weights(0)["up.weight"])
    train(net, optimizer, 1)
    assert not torch.equal(tied.weights(3)["up.weight"], tied.weights(0)["up.weight"])


def test_optimizer_state_is_inherited_as_a_copy() -> None:
    net, tied, optimizer = make([0] * L)
    train(net, optimizer, 3)
    former = {name: dict(optimizer.state[p]) for name, p in tied.weights(0).items()}
    tied.change([0, 0, 2, 0, 0, 2], optimizer)
    for name, parameter in tied.weights(2).items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[parameter][key], former[name][key])
            assert optimizer.state[parameter][key] is not former[name][key]
    assert all(optimizer.state[p]["exp_avg"] is former[name]["exp_avg"] for name, p in tied.weights(0).items())
    before = former["up.weight"]["exp_avg"].clone()
    train(net, optimizer, 1)
    mine, theirs = (optimizer.state[tied.weights(i)["up.weight"]]["exp_avg"] for i in (2, 0))
    assert not torch.equal(mine, before)
    assert not torch.equal(mine, theirs)


def test_optimizer_state_can_be_reset() -> None:
    net, tied, optimizer = make([0] * L, optimizer_state="reset")
    train(net, optimizer, 3)
    tied.change([0, 0, 2, 0, 0, 2], optimizer)
    assert all(p not in optimizer.state for p in tied.weights(2).values())
    assert all(p in optimizer.state for p in tied.weights(0).values())
    train(net, optimizer, 1)
    assert optimizer.state[tied.weights(2)["up.weight"]]["step"] == 1


def test_tied_training_equals_training_one_shared_module() -> None:
    """The plainest way to tie is to call one module at several depths; that is what this has to equal."""
    net, _, optimizer = make([0, 0, 2, 2, 0, 0])
    plain = Net()
    plain.blocks = nn.ModuleList([plain.blocks[i] for i in (0, 0, 2, 2, 0, 0)])
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.01)
    train(net, optimizer, 10)
    train(plain, plain_optimizer, 10)
    assert torch.equal(net(batch(99)), plain(batch(99)))


@pytest.mark.parametrize(("rule", "divisor"), [("none", 1), ("sqrt", math.sqrt(4)), ("linear", 4)])
def test_the_learning_rate_of_a_group_follows_its_size(rule: Any, divisor: float) -> None:
    net, tied, optimizer = make(np.arange(L), group_lr=rule)
    tied.change([0, 0, 0, 3, 0, 5], optimizer)
    rates = {group["leader"]: group["lr"] for group in optimizer.param_groups if "leader" in group}
    assert rates == pytest.approx({0: 0.01 / divisor, 3: 0.01, 5: 0.01})
    assert optimizer.param_groups[0]["lr"] == 0.01  # outside the blocks
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    train(net, optimizer, 1)
    tied.change(np.arange(L), optimizer)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_at_the_frozen_start_only_layer_0_trains_and_leaders_begin_from_their_own_values() -> None:
    net, tied, optimizer = make()
    initial = values(tied)
    assert tied.frozen
    assert tied.tying.tolist() == [0] * L
    assert tied.owners() == list(range(L))
    train(net, optimizer, 3)
    trained = values(tied)
    assert not torch.equal(trained[0]["up.weight"], initial[0]["up.weight"])
    assert all(torch.equal(trained[i][n], initial[i][n]) for i in range(1, L) for n in initial[i])
    assert tied.change([0, 0, 2, 2, 0, 5], optimizer) == (1, 2)
    assert not tied.frozen
    for i, source in enumerate([trained[0], trained[0], initial[2], initial[2], trained[0], initial[5]]):
        assert all(torch.equal(values(tied)[i][n], source[n]) for n in source)
    assert all(p not in optimizer.state for p in tied.weights(2).values())  # nothing to inherit
    train(net, optimizer, 1)
    assert not torch.equal(tied.weights(2)["up.weight"], initial[2]["up.weight"])


def test_the_first_change_ties_layers_that_were_reported_as_tied_already() -> None:
    net, tied, optimizer = make()
    train(net, optimizer, 1)
    assert tied.change([0] * L, optimizer) == (0, 0)
    assert len({id(p) for block in net.blocks for p in block.parameters()}) == 4


def test_a_change_to_the_same_tying_changes_nothing() -> None:
    net, tied, optimizer = make([0, 0, 2, 2, 0, 5])
    train(net, optimizer, 1)
    before, state = [id(p) for p in net.parameters()], optimizer.state
    assert tied.change([0, 1 - 1, 2, 2, 1, 5], optimizer) == (0, 0)  # another action, the same tying
    assert [id(p) for p in net.parameters()] == before
    assert optimizer.state is state


class SharesInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(3, 3)
        self.back = nn.Linear(3, 3)
        self.back.weight = self.there.weight


def test_a_parameter_that_a_block_uses_twice_stays_one_when_untied() -> None:
    blocks = [SharesInside() for _ in range(3)]
    tied = TiedBlocks(blocks, [0, 0, 0])
    tied.change([0, 1, 1])
    assert blocks[1].there.weight is blocks[1].back.weight
    assert blocks[1].there.weight is not blocks[0].there.weight
    assert blocks[2].there.weight is blocks[1].back.weight


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler provokes it, and hides it from users
@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_compiled_blocks_are_compiled_once_for_all_tyings(gradient: Any) -> None:
    compiled = 0

    def counting_backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        nonlocal compiled
        compiled += 1
        return graph.forward

    torch.compiler.reset()
    net, tied, optimizer = make([0, 0, 2, 0, 2, 5], gradient=gradient)
    plain, plain_tied, plain_optimizer = make([0, 0, 2, 0, 2, 5], gradient=gradient)
    for block in net.blocks:
        block.compile(backend=counting_backend)
    train(net, optimizer, 1)
    train(plain, plain_optimizer, 1)
    # With the leader's gradient alone, a block whose weights take none may be another computation.
    first = compiled
    assert 1 <= first <= (1 if gradient == "shared" else 2)
    rng = np.random.default_rng(0)
    for step in range(1, 10):
        tying = partition.uniform_random_action(L, rng)
        tied.change(tying, optimizer)
        plain_tied.change(tying, plain_optimizer)
        train(net, optimizer, start=step)
        train(plain, plain_optimizer, start=step)
    assert compiled == first
    torch.testing.assert_close(net(batch(50)), plain(batch(50)))
