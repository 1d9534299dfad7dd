import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tying_env import partition
from tying_env.reports.chance import chance_events, compare_with_chance, leader_distribution
from tying_env.reports.statistics import (
    holm,
    interquartile_mean,
    interquartile_mean_interval,
    mean_band,
    mean_interval,
    minimum_detectable_effect,
    paired_difference,
    sign_flip_p_value,
    smallest_p_value,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_interquartile_mean_cuts_a_quarter_at_each_end() -> None:
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -50]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean([1, 2, 6, 3, 9]) == pytest.approx((2 + 3 + 6) / 3)  # a quarter of five is one
    assert interquartile_mean([1, 2, 6]) == pytest.approx(3)


def test_the_sign_flip_test_counts_all_flips() -> None:
    # 1, 2, 3: only +++ has a mean as high, only --- one as low: 2 of 8.
    assert sign_flip_p_value([1, 2, 3], rng()) == pytest.approx(2 / 8)
    # -1, 2, 3: sums of the 8 flips are ±6, ±4, ±2 and 0 twice; 4 or more: 2 of 8, doubled.
    assert sign_flip_p_value([-1, 2, 3], rng()) == pytest.approx(4 / 8)
    assert sign_flip_p_value([0, 0, 0], rng()) == 1
    assert sign_flip_p_value([5], rng()) == 1


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_no_data_get_below_the_smallest_p_value(n: int) -> None:
    assert sign_flip_p_value([1.0 + i for i in range(n)], rng()) == pytest.approx(smallest_p_value(n))


def test_many_seeds_are_flipped_at_random() -> None:
    assert sign_flip_p_value([1.0 + i for i in range(20)], rng()) < 1e-4


def test_holms_correction_on_a_worked_example() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last may not be below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_detectable_effect_has_the_power_it_claims() -> None:
    differences = [0.3, -0.1, 0.9, 0.4, -0.6]
    effect, spread, n = minimum_detectable_effect(differences), np.std(differences, ddof=1), len(differences)
    samples = np.random.default_rng(1).normal(effect, spread, (40_000, n))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_the_detectable_effect_agrees_with_published_tables() -> None:
    # Cohen's d_z for power 0.8, two-sided 0.05, of a paired t-test: 0.996 for 10 pairs, 0.660 for 20 (R's pwr.t.test).
    for n, expected in ((10, 0.996), (20, 0.660)):
        values = np.linspace(-1, 1, n)
        assert minimum_detectable_effect(list(values / values.std(ddof=1))) == pytest.approx(expected, abs=0.001)


def test_a_bca_interval_of_the_mean_is_about_that_of_the_t_distribution() -> None:
    values = np.random.default_rng(3).normal(2, 1, 200).tolist()
    low, high = mean_interval(values, rng())
    expected = stats.t.interval(0.95, 199, np.mean(values), stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.02)


def test_intervals_are_the_same_for_the_same_generator() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert mean_interval(values, rng()) == mean_interval(values, rng())
    assert interquartile_mean_interval(values, rng()) == interquartile_mean_interval(values, rng())


@pytest.mark.parametrize(
    ("values", "message"),
    [([3.0], "one seed: no interval"), ([3.0, 3.0, 3.0], "all seeds equal"), ([0.1 + 0.2, 0.3], "all seeds equal")],
)
def test_an_interval_that_is_not_defined_is_an_error(values: Sequence[float], message: str) -> None:
    for statistic in (mean_interval, interquartile_mean_interval):
        with pytest.raises(ValueError, match=message):
            statistic(values, rng())
    with pytest.raises(ValueError, match=message):
        minimum_detectable_effect(values)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_what_is_not_finite_is_refused(values: list[float]) -> None:
    for statistic in (interquartile_mean, minimum_detectable_effect):
        with pytest.raises(ValueError, match="finite numbers"):
            statistic(values)


def test_pairs_are_made_of_the_seeds_that_both_arms_have() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 2: 9.0}, {2: 10.0, 1: 5.0, 7: 0.0}, rng())
    assert found.seeds == (1, 2)
    assert found.differences == (-3.0, -1.0)
    assert found.mean == -2.0
    assert found.interval is not None and found.interval.low <= -2 <= found.interval.high
    assert found.p_value == pytest.approx(0.5)


def test_one_pair_has_a_difference_and_no_more() -> None:
    found = paired_difference({0: 1.0}, {0: 3.0}, rng())
    assert (found.mean, found.interval, found.detectable) == (-2.0, None, None)
    assert found.no_interval == "one seed: no interval"
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference({0: 1.0}, {1: 3.0}, rng())


def test_a_band_holds_the_mean_and_pairs_seeds_along_the_curve() -> None:
    curves = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 3.0], [5.0, 9.0, 3.0]])
    band = mean_band(curves, rng())
    np.testing.assert_allclose(band.mean, [3, 5, 3])
    np.testing.assert_allclose((band.low[2], band.high[2]), 3)
    assert band.low[0] < 3 < band.high[0]
    with pytest.raises(ValueError, match="one seed"):
        mean_band(curves[:1], rng())


def test_the_leader_distribution_counts_actions() -> None:
    # Of the 3! actions of three layers 2 have one leader, 3 have two, 1 has three: Stirling numbers, first kind.
    np.testing.assert_allclose(leader_distribution(3), [0, 2 / 6, 3 / 6, 1 / 6], atol=1e-15)


@pytest.mark.parametrize("n_layer", [1, 2, 12, 48])
def test_the_leader_distribution_has_the_known_mean_and_spread(n_layer: int) -> None:
    p, counts = leader_distribution(n_layer), np.arange(n_layer + 1)
    mean = (p * counts).sum()
    expected_mean, expected_sd = partition.chance_independent_layers(n_layer)
    assert p.sum() == pytest.approx(1)
    assert mean == pytest.approx(expected_mean)
    assert math.sqrt((p * (counts - mean) ** 2).sum()) == pytest.approx(expected_sd)


def test_the_comparison_with_chance_on_a_case_done_by_hand() -> None:
    # Two layers have 1 or 2 leaders, even odds. The sum of two decisions is 2, 3, 4 with 1/4, 1/2, 1/4.
    found = compare_with_chance([2, 2], 2)
    assert (found.mean, found.chance_mean, found.chance_sd) == (2, 1.5, 0.5)
    assert found.z == pytest.approx(0.5 / (0.5 / math.sqrt(2)))
    assert found.p_value == pytest.approx(2 * 1 / 4)
    assert compare_with_chance([1, 2], 2).p_value == 1


def test_the_comparison_with_chance_is_fair_to_random_actions() -> None:
    generator = rng()
    p_values = []
    for _ in range(400):
        tyings = [partition.canonicalise(partition.uniform_random_action(8, generator)) for _ in range(30)]
        p_values.append(compare_with_chance([len(partition.leaders(t)) for t in tyings], 8).p_value)
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.08


def test_one_layer_leaves_nothing_to_chance() -> None:
    found = compare_with_chance([1, 1, 1], 1)
    assert math.isnan(found.z) and found.p_value == 1
    with pytest.raises(ValueError, match="no decisions"):
        compare_with_chance([], 4)


def test_chance_events_are_what_random_actions_give() -> None:
    # Two layers: layer 1 is tied or not with even odds, so it changes to either state with 1/4.
    assert chance_events(2) == pytest.approx((0.25, 0.25))
    generator, before, total = rng(), partition.canonicalise([0] * 6), np.zeros(2)
    for _ in range(20_000):
        after = partition.canonicalise(partition.uniform_random_action(6, generator))
        total += partition.events(before, after)
        before = after
    np.testing.assert_allclose(total / 20_000, chance_events(6), atol=0.03)
