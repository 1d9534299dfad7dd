"""The rule of tying: whose weights a leader takes over, who trains, on whose weights a layer computes."""

import numpy as np
import pytest

from tying_env import partition, rule


def test_every_layer_continues_with_the_weights_it_named_in_every_change() -> None:
    for before in partition.all_tyings(4):
        for after in partition.all_tyings(4):
            origins = rule.origins(before, False, after)
            held = {leader: before[origin] for leader, origin in origins.items()}  # whose weights each leader has now
            for i, source in enumerate(after.tolist()):
                assert held[source] == before[source], (before, after, i)  # W'[i] = W[s'[i]]
            kept = {leader for leader, origin in origins.items() if leader == origin}
            assert kept == set(partition.leaders(before)) & set(partition.leaders(after))


def test_from_the_frozen_start_every_leader_continues_with_its_own_values() -> None:
    assert rule.origins([0, 0, 0, 0], True, [0, 1, 1, 3]) == {0: 0, 1: 1, 3: 3}
    assert rule.origins([0, 0, 0, 0], False, [0, 1, 1, 3]) == {0: 0, 1: 0, 3: 0}


def test_leaders_train_and_at_the_frozen_start_only_the_lowest_layer_of_each_kind() -> None:
    tying = np.array([0, 1, 0, 1, 4])
    assert rule.trained(tying) == {0: [0, 2], 1: [1, 3], 4: [4]}
    assert rule.trained(np.zeros(5, dtype=np.int64), frozen=True) == {0: [0]}
    assert rule.trained(tying, frozen=True, kinds=[0, 1, 0, 1, 0]) == {0: [0], 1: [1]}


def test_layers_compute_with_their_leaders_weights_but_with_their_own_at_the_frozen_start() -> None:
    assert rule.sources([0, 1, 0, 1], frozen=False).tolist() == [0, 1, 0, 1]
    assert rule.sources([0, 0, 0, 0], frozen=True).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("group_lr", "divisor"), [("none", 1.0), ("sqrt", 2.0), ("linear", 4.0)])
def test_the_learning_rate_of_a_group_of_four(group_lr: rule.GroupLR, divisor: float) -> None:
    assert rule.lr_divisor(group_lr, 4) == divisor
