"""What the tying table says: on tables whose losses follow a known rule, every number is the known one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tying_agents.commands.findings import main as findings
from tying_agents.controllers.patterns import contiguous
from tying_agents.controllers.rules import PRIORS
from tying_agents.findings.best import best_by_groups, best_rates, prior_costs, trained
from tying_agents.findings.effects import effects, fits, pairs, shares
from tying_agents.findings.losses import Floats, Ints, Losses, losses_of
from tying_agents.findings.orders import (
    agreement,
    between_seeds,
    explained,
    fidelities,
    noise,
    scored,
    seed_against_others,
    tau,
    transfer,
)

from tests.tables import made_up_table, written
from tying_env.table import TyingTable
from tying_env.table.file import TEST, VALIDATION


def table_of(loss: Callable[[Ints], Floats], noise: float = 0.0, seeds: int = 3, rates: int = 2) -> TyingTable:
    """Return a table in which every loss, (R, S, T, 3, P), is a tying's, plus noise for each seed and tying."""
    table = made_up_table(seeds=seeds, rates=rates)
    rng = np.random.default_rng(0)
    corpora = {}
    for name, corpus in table.corpora.items():
        exact = np.broadcast_to(loss(table.tyings)[:, None, None], corpus.losses.shape)
        drawn = rng.normal(0, noise, corpus.losses.shape[:3]) if noise else np.zeros(corpus.losses.shape[:3])
        corpora[name] = dataclasses.replace(corpus, losses=exact + drawn[..., None, None])
    return dataclasses.replace(table, corpora=corpora)


def of(table: TyingTable) -> Losses:
    return losses_of(table, "sotu")


def own_ends_rule(tyings: Ints) -> Floats:
    return 3 - 0.001 * scored(PRIORS["own-ends"].score, tyings)


def test_tau_is_kendalls() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    assert tau(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)
    assert np.isnan(tau(np.ones(5), second[:5]))
    groups = np.array([0] * 20 + [1] * 20)
    first = rng.normal(size=40)
    shifted = first + 10 * groups
    opposite = -first + 10 * groups
    assert agreement(shifted, opposite, groups).within == -1
    counts = [stats.kendalltau(shifted[groups == g], second[groups == g]).statistic for g in (0, 1)]
    assert agreement(shifted, second, groups).within == pytest.approx(np.mean(counts))  # no ties, equal numbers


def test_a_rule_that_made_the_losses_explains_them() -> None:
    losses = of(table_of(own_ends_rule))
    found = explained(losses)
    assert found["prior, own-ends"] == pytest.approx((1, 1))
    assert found["number of groups (parameters)"].overall < 1
    assert found["own first and last layer"].within == pytest.approx(
        max(v.within for k, v in found.items() if "p" not in k)
    )
    costs = prior_costs(losses)
    assert costs["own-ends"] == pytest.approx([0] * 6)
    assert costs["periodic"][2] > 0
    assert effects(losses).share[0].value > effects(losses).share[2].value


def test_the_best_of_each_number_of_groups_is_known() -> None:
    losses = of(table_of(own_ends_rule))
    rows = {tuple(tying): row for row, tying in enumerate(losses.tyings.tolist())}
    for best in best_by_groups(losses):
        known = PRIORS["own-ends"].best(6, best.groups)
        value = np.exp(losses.test[0])
        assert best.perplexity.value == pytest.approx(value[rows[tuple(known.tolist())]])
        assert best.to_conventional.value == pytest.approx(best.perplexity.value - value[rows[0, 1, 2, 3, 4, 5]])
        runs = rows[tuple(contiguous(6, best.groups).tolist())]
        assert best.to_contiguous.value == pytest.approx(best.perplexity.value - value[runs])
        assert best.to_mean.value == pytest.approx(best.perplexity.value - value[losses.groups == best.groups].mean())
        first = rows[tuple(PRIORS["own-first"].best(6, best.groups).tolist())]
        assert best.to_rule.value == pytest.approx(best.perplexity.value - value[first])
        assert best.perplexity.half == pytest.approx(0, abs=1e-9)


def test_the_best_is_not_judged_by_the_noise_it_was_chosen_for() -> None:
    losses = of(table_of(lambda tyings: np.full(len(tyings), 2.0), noise=0.1, seeds=5))
    for best in best_by_groups(losses)[1:-1]:
        naive = best.perplexity.value - np.exp(losses.test[:, losses.groups == best.groups]).mean()
        assert naive < -0.2
        assert abs(best.to_mean.value) < best.to_mean.half + 0.2


def test_how_far_means_over_seeds_are_noise_is_known() -> None:
    rng = np.random.default_rng(0)
    true, common = rng.normal(0, 0.04, 203), np.array([[-1.0], [2.0], [0.0], [-1.0]])
    losses = of(table_of(lambda tyings: np.full(len(tyings), 2.0), seeds=4))
    found = noise(dataclasses.replace(losses, test=true + common + rng.normal(0, 0.06, (4, 203))))
    assert found.error == pytest.approx(0.03, rel=0.1)  # the spread of four, whatever all have in common
    assert found.reliability == pytest.approx(0.04**2 / (0.04**2 + 0.03**2), abs=0.08)
    nothing = noise(dataclasses.replace(losses, test=common + rng.normal(0, 0.06, (4, 203))))
    assert abs(nothing.reliability) < 0.2
    some = dataclasses.replace(losses, test=true + 0 * common).among(losses.groups == 3)
    assert (len(some.tyings), some.test.shape, some.validation.shape[:2]) == (90, (4, 90), (4, 90))
    assert noise(some).reliability == pytest.approx(1)


def test_noise_alone_has_no_ceiling_and_no_noise_has_the_highest() -> None:
    # At one rate: of several each tying's best is chosen by the mean, which turns seeds against each other.
    nothing = of(table_of(lambda tyings: np.full(len(tyings), 2.0), noise=0.1, rates=1))
    assert abs(between_seeds(nothing).overall.value) < 0.1
    assert abs(seed_against_others(nothing).overall.value) < 0.1
    assert max(fit.r_squared for fit in fits(nothing).values()) < 0.1  # out of sample
    exact = of(table_of(own_ends_rule))
    assert between_seeds(exact).overall.value == pytest.approx(1)
    assert seed_against_others(exact).within.value == pytest.approx(1)


def test_short_trainings_rank_as_well_as_they_were_made_to() -> None:
    table = table_of(own_ends_rule)
    losses = table.corpora["sotu"].losses.copy()
    losses[..., 0] *= -1  # the shortest training shows the opposite
    corpora = {"sotu": dataclasses.replace(table.corpora["sotu"], losses=losses)}
    found = fidelities(of(dataclasses.replace(table, corpora=corpora)))
    assert [point.steps for point in found] == [32, 64, 96]
    assert [point.half.overall.value for point in found] == pytest.approx([-1, 1, 1])
    assert [point.one.within.value for point in found] == pytest.approx([-1, 1, 1])


def test_what_one_corpus_says_of_another_is_known() -> None:
    table = table_of(own_ends_rule)
    same = transfer(losses_of(table, "sotu"), losses_of(table, "other"))
    assert same.agreement == pytest.approx((1, 1)) and same.cost == pytest.approx([0] * 7)
    turned = dataclasses.replace(losses_of(table, "other"), test=-losses_of(table, "other").test)
    found = transfer(losses_of(table, "sotu"), turned)
    assert found.agreement == pytest.approx((-1, -1))
    assert found.cost[-1] == pytest.approx(float(np.ptp(np.exp(turned.test[0]))))


def test_effects_that_made_the_losses_are_found_out_of_sample() -> None:
    cost = np.random.default_rng(0).uniform(0, 0.01, 15)
    losses = of(table_of(lambda tyings: 2 + pairs(tyings) @ cost))
    found = effects(losses)
    assert [mean.value for mean in found.pair.values()] == pytest.approx(100 * cost, abs=1e-9)
    assert list(found.pair)[:6] == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 2)]
    fit = fits(losses)["pairwise effects: which layers are tied with which"]
    assert (fit.parameters, fit.r_squared, fit.tau) == pytest.approx((16, 1, 1))
    main = of(table_of(lambda tyings: 2 + shares(tyings) @ np.arange(6) / 100))
    assert [mean.value for mean in effects(main).share] == pytest.approx(range(6), abs=1e-9)
    assert fits(main)["main effects: which layers share"].r_squared == pytest.approx(1)


def test_best_rates_are_counted() -> None:
    table = made_up_table(rates=2)
    losses = np.zeros_like(table.corpora["sotu"].losses) + 2.0
    groups = np.array([len(set(tying)) for tying in table.tyings.tolist()])
    losses[1, :, groups >= 5] -= 0.5  # indexed: (T, S, 3, P)
    losses[1, :, groups < 5] += 0.5
    corpora = {"sotu": dataclasses.replace(table.corpora["sotu"], losses=losses)}
    found = best_rates(dataclasses.replace(table, corpora=corpora), "sotu")
    assert found.by_groups.tolist() == [[1, 0], [31, 0], [90, 0], [65, 0], [0, 15], [0, 1]]
    assert found.by_largest.sum(axis=0).tolist() == [187, 16] and found.by_largest[0].tolist() == [0, 1]
    first = 16 / 203 * (np.exp(2.0) - np.exp(1.5))
    second = 187 / 203 * (np.exp(2.5) - np.exp(2.0))
    assert found.common_cost == pytest.approx([first, second])


def test_what_is_there_is_counted() -> None:
    table = made_up_table(missing=3)
    table.corpora["sotu"].losses[0, 0, 0, :, 1:] = np.inf
    found = trained(table, "sotu")
    assert found["trainings"] == 2 * 3 * 203 - 3 and found["whole seeds"] == 2
    assert found["CPU seconds"] == pytest.approx(1.5 * found["trainings"])
    assert found["diverged"] == pytest.approx(1 / found["trainings"])


def test_a_training_that_diverged_has_the_worst_loss() -> None:
    table = made_up_table(rates=1)
    table.corpora["sotu"].losses[0, 1, 7, :, 2:] = np.inf
    losses = of(table)
    assert losses.diverged == 1
    finite = table.corpora["sotu"].losses[np.isfinite(table.corpora["sotu"].losses)]
    assert losses.test[1, 7] == losses.validation[1, 7, -1] == finite.max()
    assert losses.test[0, 7] == table.corpora["sotu"].losses[0, 0, 7, TEST, -1]
    assert losses.validation[0, 7, 0] == table.corpora["sotu"].losses[0, 0, 7, VALIDATION, 0]


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, table_of(own_ends_rule))
    assert findings(["--table", str(path), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/tying_table.md").read_text()
    assert "| sotu | 1,218 | 3 | 0.001, 0.004 | 0.5 | 0.0% |" in text
    assert "| prior, own-ends | 1.000 | 1.000 | 1.000 | 1.000 |" in text
    assert "| 3 | 90 | 0 1 1 1 1 5 |" in text
    for name in ("groups", "pairs", "fidelities"):
        assert (tmp_path / f"out/tying_table_{name}.png").stat().st_size > 10_000
        assert f"](tying_table_{name}.png)" in text
    two = written(tmp_path, made_up_table(seeds=2))  # a single pair of seeds has no interval
    assert findings(["--table", str(two), "--out", str(tmp_path / "two")]) == 0
    one = written(tmp_path, made_up_table(seeds=1))
    capsys.readouterr()
    assert findings(["--table", str(one), "--out", str(tmp_path / "one")]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "the corpus 'other' needs at least 2 seeds with every tying at every rate, has 1" in said
    assert not (tmp_path / "one").exists()
