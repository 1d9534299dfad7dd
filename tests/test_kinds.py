"""Kinds of units: actions counted within a kind, tyings over all units, and chance in each kind."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.reports.chance import chance_events, leader_distribution

TWO = Kinds.one_after_the_other((3, 4), ("attention", "feed-forward"))


@st.composite
def kinds_and_seed(draw: st.DrawFn) -> tuple[Kinds, int]:
    labels = draw(st.lists(st.integers(0, 2), min_size=1, max_size=9))
    return Kinds(partition.same_groups(labels)), draw(st.integers(0, 2**32 - 1))


@given(kinds_and_seed())
def test_every_action_is_a_tying_within_kinds_and_every_such_tying_has_an_action(given: tuple[Kinds, int]) -> None:
    kinds, seed = given
    action = kinds.check_action(kinds.uniform_action(np.random.default_rng(seed)))
    tying = partition.canonicalise(kinds.units_named(action))
    assert (kinds.lowest[tying] == kinds.lowest).all()
    canonical = kinds.action_for(tying)
    assert kinds.is_canonical(canonical)
    assert (partition.canonicalise(kinds.units_named(canonical)) == tying).all()
    for units, own in zip(kinds.members, kinds.tyings(tying), strict=True):
        assert partition.is_tying(own)
        assert (units[own] == tying[units]).all()


def test_units_of_one_kind_are_as_without_kinds() -> None:
    kinds, same = Kinds.alike(5), [np.random.default_rng(7) for _ in range(2)]
    assert kinds.choices.tolist() == [1, 2, 3, 4, 5]
    action = kinds.uniform_action(same[0])
    assert action.tolist() == partition.uniform_random_action(5, same[1]).tolist()
    assert kinds.units_named(action) is action
    assert kinds.description() == {}
    assert Kinds.described({"env": {"n_layer": 5}}).sizes == [5]


def test_an_action_counts_within_the_kind_of_each_unit() -> None:
    assert TWO.choices.tolist() == [1, 2, 3, 1, 2, 3, 4]
    assert TWO.units_named(np.array([0, 1, 1, 0, 0, 2, 2])).tolist() == [0, 1, 1, 3, 3, 5, 5]
    assert TWO.action_for(np.array([0, 1, 1, 3, 3, 5, 5])).tolist() == [0, 1, 1, 0, 0, 2, 2]
    assert TWO.open.tolist() == [1, 2, 4, 5, 6]
    assert TWO.of_each(lambda n: np.arange(n) % 2).tolist() == [0, 1, 0, 0, 1, 0, 1]
    assert not TWO.is_canonical([0, 0, 1, 0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"action\[4\] \(feed-forward 1\) must be one of 0..1.* got 2"):
        TWO.check_action([0, 1, 1, 0, 2, 2, 2])
    with pytest.raises(ValueError, match="shape"):
        TWO.check_action([0, 1, 1])
    with pytest.raises(TypeError, match="integers"):
        TWO.check_action([0.0] * 7)


def test_kinds_are_written_down_and_read_again() -> None:
    written = json.loads(json.dumps({"env": {"n_layer": 7}} | TWO.description()))
    again = Kinds.described(written)
    assert again.lowest.tolist() == TWO.lowest.tolist()
    assert [again.unit_named(i) for i in (2, 3)] == ["attention 2", "feed-forward 0"]


@pytest.mark.parametrize("lowest", [[], [1, 1], [0, 0, 1], [0, 2, 2]])
def test_what_does_not_name_lowest_units_is_refused(lowest: list[int]) -> None:
    with pytest.raises(ValueError, match="lowest unit"):
        Kinds(lowest)
    with pytest.raises(ValueError, match="a name for each of 2 kinds"):
        Kinds([0, 0, 2], ("one",))


def test_chance_is_that_of_each_kind() -> None:
    rng = np.random.default_rng(0)
    tyings = [partition.canonicalise(TWO.units_named(TWO.uniform_action(rng))) for _ in range(20_000)]
    counts = np.array([len(partition.leaders(tying)) for tying in tyings])
    mean, deviation = partition.chance_independent_layers(*TWO.sizes)
    assert counts.mean() == pytest.approx(mean, abs=0.03)
    assert counts.std() == pytest.approx(deviation, abs=0.03)
    found = np.bincount(counts, minlength=8) / len(counts)
    np.testing.assert_allclose(leader_distribution(*TWO.sizes), found, atol=0.015)
    events = [partition.events(a, b) for a, b in itertools.pairwise(tyings)]
    np.testing.assert_allclose(np.mean(events, axis=0), chance_events(*TWO.sizes), atol=0.03)
