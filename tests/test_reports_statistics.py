import math
from collections.abc import Sequence

import numpy as np
import pytest

from tying_env import partition
from tying_env.reports.chance import chance_events, compare_with_chance, leader_distribution
from tying_env.reports.sign_flips import (
    critical_shifts,
    detectable_effect_size,
    seeds_needed,
    sign_flip_p_value,
    sign_flips,
    smallest_p_value,
)
from tying_env.reports.statistics import (
    expanded_level,
    holm,
    interquartile_mean,
    interquartile_mean_interval,
    mean_band,
    mean_interval,
    minimum_detectable_effect,
    paired_difference,
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


@pytest.mark.parametrize("n", [6, 8])
def test_the_sign_flip_test_finds_the_detectable_effect_with_the_power_it_claims(n: int) -> None:
    differences = np.linspace(-1, 3, n)
    effect, spread = minimum_detectable_effect(differences.tolist()), differences.std(ddof=1)
    samples = np.random.default_rng(1).normal(effect, spread, (1_000, n))
    found = [sign_flip_p_value(sample.tolist(), rng()) < 0.05 for sample in samples]
    assert np.mean(found) == pytest.approx(0.8, abs=4 * 0.0126)  # four standard errors


@pytest.mark.parametrize("n", [6, 7, 20])
def test_a_critical_shift_is_where_the_sign_flip_test_begins_to_reject(n: int) -> None:
    sample = np.random.default_rng(n).standard_normal(n)
    (shift,) = critical_shifts(sample[None], sign_flips(n, rng()))
    off = 0.001 if n < 20 else 0.05  # random flips are others each time
    assert sign_flip_p_value((sample + shift - off).tolist(), rng()) >= 0.05
    assert sign_flip_p_value((sample + shift + off).tolist(), rng()) < 0.05


def test_with_many_seeds_the_detectable_effect_is_that_of_a_t_test() -> None:
    # Cohen's d_z for power 0.8, two-sided 0.05, of a paired t-test: 0.996 for 10 pairs, 0.660 for 20 (R's pwr.t.test).
    assert detectable_effect_size(10) == pytest.approx(0.996, rel=0.03)
    assert detectable_effect_size(20) == pytest.approx(0.660, rel=0.03)
    assert detectable_effect_size(6) > 1.2 * 1.435  # with six, where only six equal signs will do, it needs far more


@pytest.mark.parametrize("n", [2, 3, 5])
def test_so_few_seeds_that_no_p_can_be_small_detect_nothing(n: int) -> None:
    with pytest.raises(ValueError, match=f"no p below 0.05 with {n} seeds"):
        minimum_detectable_effect([1.0 + i for i in range(n)])
    found = paired_difference({i: 2.0 * i for i in range(n)}, dict.fromkeys(range(n), 0.5), rng())
    assert found.interval is not None and found.detectable is None


def test_the_seeds_needed_are_the_fewest_that_can_give_a_small_p() -> None:
    assert [seeds_needed(tests) for tests in (1, 2, 5, 10)] == [6, 7, 8, 9]
    assert 5 * smallest_p_value(8) < 0.05 <= 5 * smallest_p_value(7)


def test_the_interval_of_a_mean_is_a_t_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), t(0.9925; 4) = 4.0880 from tables
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert ((low + high) / 2, (high - low) / 2) == pytest.approx((3, 4.088 * math.sqrt(2.5 / 5)), abs=0.001)


def test_the_interval_of_a_few_interquartile_means_is_as_wide_as_a_means() -> None:
    for values in ([1.0, 2.0, 6.0], [1.0, 2.0, 3.0, 10.0]):
        low, high = interquartile_mean_interval(values, rng())
        expected = mean_interval(values)
        assert (low + high) / 2 == pytest.approx(interquartile_mean(values))
        assert high - low == pytest.approx(expected.high - expected.low)


def test_a_percentile_interval_is_expanded_as_published() -> None:
    # Hesterberg (2015): tails of 0.00097 with five values, and nearly the nominal ones with many
    assert (1 - expanded_level(5)) / 2 == pytest.approx(0.00096, abs=2e-5)
    assert expanded_level(10_000) == pytest.approx(0.95, abs=1e-4)


def test_intervals_are_the_same_for_the_same_generator() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert detectable_effect_size(7) == detectable_effect_size.__wrapped__(7)
    assert interquartile_mean_interval(values, rng()) == interquartile_mean_interval(values, rng())


@pytest.mark.parametrize(
    ("values", "message"),
    [([3.0], "one seed: no interval"), ([3.0, 3.0, 3.0], "all seeds equal"), ([0.1 + 0.2, 0.3], "all seeds equal")],
)
def test_an_interval_that_is_not_defined_is_an_error(values: Sequence[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interquartile_mean_interval(values, rng())
    for statistic in (mean_interval, minimum_detectable_effect):
        with pytest.raises(ValueError, match=message):
            statistic(values)


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
    assert found.percent == pytest.approx(100 * -2 / 7.5)
    assert paired_difference({0: 1.0}, {0: 0.0}, rng()).percent is None
    assert found.interval is not None and found.interval.low <= -2 <= found.interval.high
    assert found.p_value == pytest.approx(0.5)


def test_one_pair_has_a_difference_and_no_more() -> None:
    found = paired_difference({0: 1.0}, {0: 3.0}, rng())
    assert (found.mean, found.interval, found.detectable) == (-2.0, None, None)
    assert found.no_interval == "one seed: no interval"
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference({0: 1.0}, {1: 3.0}, rng())


def test_a_band_is_the_interval_of_the_mean_at_every_point() -> None:
    curves = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 3.0], [5.0, 9.0, 3.0]])
    band = mean_band(curves)
    np.testing.assert_allclose(band.mean, [3, 5, 3])
    np.testing.assert_allclose((band.low[2], band.high[2]), 3)
    assert (band.low[1], band.high[1]) == pytest.approx(mean_interval([2.0, 4.0, 9.0]))
    with pytest.raises(ValueError, match="one seed"):
        mean_band(curves[:1])


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
