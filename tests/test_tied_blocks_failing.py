"""A change of the tying that fails leaves everything as it was; what cannot be tied is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.blocks import L, Net, change_failing_at, make, same, snapshot, train
from tying_env.replication import Tied
from tying_env.tied_blocks import TiedBlocks


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_an_exception_at_any_line_of_a_change_leaves_everything_as_it_was(gradient: Any, frozen: bool) -> None:
    net, tied, optimizer = make(None if frozen else [0, 0, 2, 2, 4, 0], gradient=gradient)
    train(net, optimizer, 2)
    before = snapshot(net, tied, optimizer)
    point = 1
    while change_failing_at(point, tied, [0, 1, 0, 3, 4, 1], optimizer):
        assert same(snapshot(net, tied, optimizer), before)
        point += 1
    assert point > 100  # it went through the whole change, which then succeeded
    assert tied.tying.tolist() == [0, 1, 0, 3, 4, 1]
    train(net, optimizer, 1)


@pytest.mark.parametrize("bad", [[0, 0, 3, 0, 0, 0], [0] * (L - 1), [0.0] * L, "abc", None])
def test_a_bad_tying_is_refused_and_nothing_changes(bad: Any) -> None:
    net, tied, optimizer = make([0, 0, 2, 2, 4, 0])
    train(net, optimizer, 1)
    before = snapshot(net, tied, optimizer)
    with pytest.raises((TypeError, ValueError), match="action"):
        tied.change(bad, optimizer)
    assert same(snapshot(net, tied, optimizer), before)


def test_an_optimizer_without_our_groups_is_refused() -> None:
    net, tied, _ = make(np.arange(L))
    other = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="parameter_groups"):
        tied.change([0] * L, other)
    assert tied.tying.tolist() == list(range(L))


def test_blocks_that_cannot_be_tied_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one module"):
        TiedBlocks([])
    with pytest.raises(ValueError, match="has no parameters"):
        TiedBlocks([nn.Tanh(), nn.Tanh()])
    with pytest.raises(ValueError, match=r"'weight' is \(3, 3\) torch.float32 in block 0 and \(4, 3\).* in block 1"):
        TiedBlocks([nn.Linear(3, 3), nn.Linear(3, 4)])
    with pytest.raises(ValueError, match=r"'bias' is \(3,\) torch.float32 in block 0 and missing in block 1"):
        TiedBlocks([nn.Linear(3, 3), nn.Linear(3, 3, bias=False)])
    with pytest.raises(ValueError, match="float64 in block 1"):
        TiedBlocks([nn.Linear(3, 3), nn.Linear(3, 3).double()])
    shared = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="blocks 0 and 1 share 'weight'"):
        TiedBlocks([shared, shared])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"optimizer_state": "keep"}, "optimizer_state must be one of 'inherit', 'reset', got 'keep'"),
        ({"group_lr": 2}, "group_lr must be one of 'none', 'sqrt', 'linear', got 2"),
    ],
)
def test_unknown_choices_are_refused(choice: dict[str, Any], message: str) -> None:
    net = Net()
    with pytest.raises(ValueError, match=message):
        TiedBlocks(list(net.blocks), **choice)
    assert all(p.requires_grad for p in net.parameters())
    with pytest.raises(ValueError, match="gradient must be one of 'shared', 'leader', got 'both'"):
        Tied(gradient="both")  # type: ignore[arg-type]
