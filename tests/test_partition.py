import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tying_env import partition


def actions(max_layers: int = 60) -> st.SearchStrategy[list[int]]:
    lengths = st.integers(1, max_layers)
    return lengths.flatmap(lambda n: st.tuples(*(st.integers(0, i) for i in range(n)))).map(list)


def chase(action: list[int], i: int) -> int:
    """Eq. 1, as plainly as it can be written."""
    return i if action[i] == i else chase(action, action[i])


@given(actions())
def test_canonical_form_is_equation_1(action: list[int]) -> None:
    assert partition.canonicalise(action).tolist() == [chase(action, i) for i in range(len(action))]


@given(actions())
def test_a_tying_is_its_own_canonical_form(action: list[int]) -> None:
    tying = partition.canonicalise(action)
    assert tying[0] == 0
    assert (tying[tying] == tying).all()
    assert (partition.canonicalise(tying) == tying).all()
    assert partition.is_tying(tying)


@given(actions())
def test_groups_partition_the_layers_and_leaders_are_their_lowest(action: list[int]) -> None:
    tying = partition.canonicalise(action)
    groups = partition.groups(tying)
    assert sorted(itertools.chain(*groups.values())) == list(range(len(action)))
    assert all(leader == min(members) for leader, members in groups.items())
    assert partition.leaders(tying) == sorted(groups)


@pytest.mark.parametrize("n_units", range(1, 9))
def test_tyings_are_the_set_partitions_and_every_action_has_one(n_units: int) -> None:
    tyings = [tuple(tying.tolist()) for tying in partition.all_tyings(n_units)]
    assert len(set(tyings)) == len(tyings) == partition.bell_number(n_units)
    assert tyings == sorted(tyings)
    reached = {
        tuple(partition.canonicalise(action).tolist())
        for action in itertools.product(*(range(i + 1) for i in range(n_units)))
    }
    assert reached == set(tyings)


def test_bell_numbers() -> None:
    assert [partition.bell_number(n) for n in range(9)] == [1, 1, 2, 5, 15, 52, 203, 877, 4140]


@pytest.mark.parametrize("n_units", range(1, 9))
def test_chance_gives_the_harmonic_number_of_independent_layers(n_units: int) -> None:
    every = itertools.product(*(range(i + 1) for i in range(n_units)))
    counts = np.array([len(partition.leaders(partition.canonicalise(action))) for action in every])
    mean, deviation = partition.chance_independent_layers(n_units)
    assert len(counts) == math.factorial(n_units)
    assert mean == pytest.approx(counts.mean())
    assert deviation == pytest.approx(counts.std())


def test_chance_at_the_papers_sizes() -> None:
    assert partition.chance_independent_layers(48) == pytest.approx((4.459, 1.684), abs=1e-3)
    assert partition.chance_independent_layers(12) == pytest.approx((3.103, 1.240), abs=1e-3)


def test_random_actions_are_uniform_and_depend_on_the_generator_alone() -> None:
    rng = np.random.default_rng(0)
    drawn = [tuple(partition.uniform_random_action(4, rng).tolist()) for _ in range(24_000)]
    counts = np.array([drawn.count(action) for action in itertools.product(*(range(i + 1) for i in range(4)))])
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # chi-squared with 23 degrees of freedom, p = 0.001
    again = np.random.default_rng(0)
    assert tuple(partition.uniform_random_action(4, again).tolist()) == drawn[0]


def test_events_by_hand() -> None:
    #        layer            0  1  2  3  4
    before, after = [0, 0, 2, 2, 0], [0, 1, 0, 2, 0]
    assert partition.events(before, after) == (1, 1)  # 1 untied; 2 tied to 0; 3 and 4 as before
    assert partition.events(before, before) == (0, 0)
    assert partition.events([0, 0, 0], [0, 1, 1]) == (1, 1)


@given(actions(), st.randoms(use_true_random=False))
def test_events_count_every_changed_layer_once(action: list[int], random: object) -> None:
    before = partition.canonicalise(action)
    after = partition.canonicalise(np.minimum(before[::-1], np.arange(len(action))))
    assert sum(partition.events(before, after)) == int((before != after).sum())


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        ([0, 0], ValueError, r"shape \(3,\); got shape \(2,\)"),
        ([[0, 0, 0]], ValueError, r"got shape \(1, 3\)"),
        (0, ValueError, r"got shape \(\)"),
        ([0, 0, -1], ValueError, r"action\[2\] is -1, expected 0 <= action\[2\] <= 2"),
        ([0, 2, 0], ValueError, r"action\[1\] is 2, expected 0 <= action\[1\] <= 1"),
        ([0, 0, 2**40], ValueError, r"action\[2\] is 1099511627776"),
        ([0.0, 1.0, 2.0], TypeError, "float64"),
        ([0, math.nan, 0], TypeError, "float64"),
        ([True, False, True], TypeError, "bool"),
        (["0", "1", "2"], TypeError, "<U1"),
        ([0, None, 1], TypeError, "object"),
        ([0, [1], 2], TypeError, "vector of 3 integers"),
        (None, ValueError, r"got shape \(\)"),
        ({"a": 1}, ValueError, r"got shape \(\)"),
    ],
)
def test_bad_actions_are_refused_by_name(action: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        partition.validate_action(action, 3)


def test_validation_returns_a_fresh_array() -> None:
    action = np.array([0, 1, 0])
    partition.validate_action(action, 3)[1] = 0
    partition.canonicalise(action)[1] = 0
    assert action.tolist() == [0, 1, 0]


@pytest.mark.parametrize("n_groups", range(1, 6))
def test_random_tyings_with_given_groups_are_uniform(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    having = [tuple(t.tolist()) for t in partition.all_tyings(5) if len(partition.leaders(t)) == n_groups]
    drawn = [tuple(partition.random_tying(5, n_groups, rng).tolist()) for _ in range(200 * len(having))]
    counts = np.array([drawn.count(tying) for tying in having])
    assert counts.sum() == len(drawn)
    # chi-squared at p = 0.001 for the degrees of freedom that occur: 0, 14, 24, 9
    limit = {1: 0, 15: 36.1, 25: 51.2, 10: 27.9}[len(having)]
    assert ((counts - 200) ** 2 / 200).sum() <= limit


def test_the_number_of_groups_must_be_possible() -> None:
    for n_groups in (0, 6):
        with pytest.raises(ValueError, match=f"n_groups must be between 1 and the number of layers 5, got {n_groups}"):
            partition.random_tying(5, n_groups, np.random.default_rng(0))


@given(actions(20), st.randoms(use_true_random=False))
def test_a_permuted_tying_ties_the_permuted_layers(action: list[int], random: Random) -> None:
    tying = partition.canonicalise(action)
    order = list(range(len(tying)))
    random.shuffle(order)
    permuted = partition.permute(tying, order)
    assert partition.is_tying(permuted)
    for i, j in itertools.combinations(range(len(tying)), 2):
        assert (tying[i] == tying[j]) == (permuted[order[i]] == permuted[order[j]])


def test_a_random_tying_of_more_layers_than_a_float_can_count() -> None:
    tying = partition.random_tying(400, 100, np.random.default_rng(0))
    assert partition.is_tying(tying)
    assert len(partition.leaders(tying)) == 100


def test_other_choices_are_the_entries_that_give_each_another_tying() -> None:
    for tying in partition.all_tyings(5):
        for layer in range(1, 5):
            given = []
            for entry in range(layer + 1):
                action = tying.copy()
                action[layer] = entry
                given.append(tuple(partition.canonicalise(action).tolist()))
            found = [given[entry] for entry in partition.other_choices(tying, layer)]
            assert len(set(found)) == len(found)
            assert set(found) == set(given) - {tuple(tying.tolist())}
