from typing import Any

import numpy as np
import pytest
import torch

from tests.blocks import L, Net, change_failing_at, same, snapshot, train, values
from tests.blocks import make as make_tied
from tests.models import Mixed, own
from tying_env import partition
from tying_env.tied_blocks import TiedBlocks


def make(replication: str, tying: Any = None) -> tuple[Net, TiedBlocks, torch.optim.AdamW]:
    return make_tied(tying, replication)


def test_sources_are_the_tying_once_the_frozen_start_is_over() -> None:
    _, tied, optimizer = make("tied")
    assert tied.sources().tolist() == list(range(L))
    tied.change([0, 0, 2, 0, 2, 5], optimizer)
    assert tied.sources().tolist() == [0, 0, 2, 0, 2, 5]


def test_a_later_tying_takes_the_mean_where_groups_join() -> None:
    net, tied, optimizer = make_tied([0, 0, 2, 3, 4, 4], "tied", later_tying="mean")
    train(net, optimizer, 2)
    before = values(tied)
    state = optimizer.state[tied.weights(2)["up.weight"]]["exp_avg"].clone()
    tied.change([0, 0, 2, 2, 2, 5], optimizer)
    for name, value in values(tied)[2].items():
        expected = torch.stack([before[i][name] for i in (2, 3, 4)]).mean(0)
        torch.testing.assert_close(value, expected)
        assert all(tied.weights(i)[name] is tied.weights(2)[name] for i in (3, 4))
        assert torch.equal(values(tied)[5][name], before[5][name])  # a layer that goes its own way takes what it had
        assert torch.equal(values(tied)[0][name], before[0][name])
    assert torch.equal(optimizer.state[tied.weights(2)["up.weight"]]["exp_avg"], state)  # its leader's
    train(net, optimizer, 1)
    before = values(tied)
    tied.change([0, 0, 0, 0, 0, 0], optimizer)  # every layer counts, also those that were tied before
    expected = torch.stack([before[i]["up.weight"] for i in range(L)]).mean(0)
    torch.testing.assert_close(values(tied)[3]["up.weight"], expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_copied_layers_share_nothing_and_all_train(frozen: bool) -> None:
    net, tied, optimizer = make("copied", None if frozen else np.arange(L))
    rng = np.random.default_rng(0)
    for step in range(8):
        train(net, optimizer, start=step)
        before = values(tied)
        was, now = tied.tying, partition.canonicalise(partition.uniform_random_action(L, rng))
        first = tied.frozen
        tied.change(now, optimizer)
        for i in range(L):
            copied = now[i] != i and (first or now[i] != was[i])
            source = int(now[i]) if copied else i
            assert all(torch.equal(values(tied)[i][n], before[source][n]) for n in before[i])
        storages = {p.untyped_storage().data_ptr() for block in net.blocks for p in block.parameters()}
        assert len(storages) == 4 * L
        assert tied.sources().tolist() == list(range(L))
        assert all(p.requires_grad for p in net.parameters())
        trained = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(trained) == sorted(id(p) for p in net.parameters())
    before = values(tied)
    train(net, optimizer, start=99)
    assert all(not torch.equal(values(tied)[i]["up.weight"], before[i]["up.weight"]) for i in range(L))


def test_a_copied_layer_drifts_away_at_once() -> None:
    net, tied, optimizer = make("copied", np.arange(L))
    train(net, optimizer, 2)
    tied.change([0] * L, optimizer)
    assert torch.equal(tied.weights(3)["up.weight"], tied.weights(0)["up.weight"])
    assert torch.equal(*(optimizer.state[tied.weights(i)["up.weight"]]["exp_avg"] for i in (0, 3)))
    train(net, optimizer, 1)
    assert not torch.equal(tied.weights(3)["up.weight"], tied.weights(0)["up.weight"])


def test_aliased_layers_never_drift_away_once_they_were_tied() -> None:
    net, tied, optimizer = make("aliased", np.arange(L))
    train(net, optimizer, 1)
    tied.change([0, 0, 2, 3, 4, 5], optimizer)
    assert not tied.weights(1)["up.weight"].requires_grad
    tied.change(np.arange(L), optimizer)  # untie layer 1
    assert tied.weights(1)["up.weight"].requires_grad
    assert tied.sources().tolist() == [0, 0, 2, 3, 4, 5]  # while the tying says that all are independent
    train(net, optimizer, 3)
    assert torch.equal(tied.weights(1)["up.weight"], tied.weights(0)["up.weight"])


def test_followers_of_a_leader_that_ties_elsewhere_keep_its_old_storage() -> None:
    _, tied, optimizer = make("aliased", np.arange(L))
    tied.change([0, 1, 1, 1, 4, 5], optimizer)
    tied.change([0, 0, 0, 0, 4, 5], optimizer)  # layer 1 ties to 0; by Eq. 1 its followers 2 and 3 would go along
    assert tied.tying.tolist() == [0, 0, 0, 0, 4, 5]
    assert tied.sources().tolist() == [0, 0, 2, 2, 4, 5]
    assert not tied.weights(3)["up.weight"].requires_grad


def test_at_the_frozen_start_unnamed_layers_keep_their_initial_values() -> None:
    net, tied, optimizer = make("aliased")
    initial = values(tied)
    train(net, optimizer, 1)
    tied.change([0, 0, 2, 0, 0, 0], optimizer)
    assert all(torch.equal(values(tied)[i][n], initial[i][n]) for i in (1, 2, 3, 4, 5) for n in initial[i])
    assert [tied.weights(i)["up.weight"].requires_grad for i in range(L)] == [True, False, True, False, False, False]


@pytest.mark.parametrize("sweeps", [8])
def test_the_layer_sweep_of_the_published_code_ends_on_one_storage(sweeps: int) -> None:
    """Uniformly random choices, one layer at a time: the storages collapse, whatever the tying says."""
    leaders = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        _, tied, optimizer = make("aliased", np.arange(L))
        for _ in range(sweeps):
            for layer in range(1, L):
                action = tied.tying
                action[layer] = rng.integers(0, layer + 1)
                tied.change(action, optimizer)
        assert set(tied.sources()) == {0}
        leaders.append(len(partition.leaders(tied.tying)))
    assert max(leaders) > 1


@pytest.mark.parametrize("replication", ["copied", "aliased"])
def test_a_refused_change_leaves_everything_as_it_was(replication: str) -> None:
    net, tied, optimizer = make(replication, [0, 0, 2, 2, 4, 0])
    train(net, optimizer, 2)
    before = snapshot(net, tied, optimizer)
    with pytest.raises(ValueError, match="action"):
        tied.change([0, 5, 0, 0, 0, 0], optimizer)
    assert same(snapshot(net, tied, optimizer), before)


def test_unknown_replications_are_refused() -> None:
    with pytest.raises(ValueError, match="replication must be one of 'tied', 'copied', 'aliased', got 'cloned'"):
        make("cloned")


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("replication", ["copied", "aliased"])
def test_an_exception_at_any_line_of_a_change_leaves_everything_as_it_was(replication: str, frozen: bool) -> None:
    net, tied, optimizer = make(replication, None if frozen else np.arange(L))
    train(net, optimizer, 2)
    if not frozen:
        tied.change([0, 0, 2, 2, 4, 0], optimizer)
        train(net, optimizer, 1)
    before = snapshot(net, tied, optimizer)
    point = 1
    while change_failing_at(point, tied, [0, 1, 0, 3, 4, 1], optimizer):
        assert same(snapshot(net, tied, optimizer), before)
        point += 1
    assert point > 50  # it went through the whole change, which then succeeded
    assert tied.tying.tolist() == [0, 1, 0, 3, 4, 1]


def test_the_lowest_block_of_each_kind_keeps_its_optimizer_state_at_the_first_change() -> None:
    env = own(Mixed((4, 8, 4, 8)), replication="copied", unequal_blocks="within-kind", total_steps=8)
    env.reset(seed=0)
    env.step(np.array([0, 0, 0, 1]))  # two frozen steps, in which blocks 0 and 1 train, and two more
    steps = [
        {int(env.trainer.optimizer.state[p]["step"]) for p in env.trainer.tied.weights(i).values()} for i in range(4)
    ]
    assert steps == [{4}, {4}, {4}, {2}]  # block 2 is a copy of block 0, with its state
