"""Intervals hold what they should as often as the page with their coverage claims, and the old ones did not."""

import re
from pathlib import Path

import numpy as np
import pytest

from tying_env.reports import coverage
from tying_env.reports.coverage import (
    BCA,
    CHOSEN_INTERQUARTILE_MEAN,
    CHOSEN_MEAN,
    DISTRIBUTIONS,
    EXTREME,
    METHODS,
    measure_coverage,
    true_interquartile_mean,
)
from tying_env.reports.statistics import interquartile_mean_interval, mean_interval

PAGE = Path(__file__).parents[1] / "docs" / "results" / "statistics_coverage.md"


def claimed() -> dict[tuple[str, str, int], float]:
    """What the page says: values, interval and n -> coverage."""
    found: dict[tuple[str, str, int], float] = {}
    sizes: list[int] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "n = 5" in cells:
            sizes = [int(cell.removeprefix("n = ")) for cell in cells[2:]]
        elif len(cells) == 2 + len(sizes) and cells[0] in DISTRIBUTIONS:
            for n, cell in zip(sizes, cells[2:], strict=True):
                found[cells[0], cells[1], n] = float(cell.split()[0]) / 100
    return found


def test_the_page_has_every_cell_and_93_per_cent_from_five_seeds_on() -> None:
    page = claimed()
    assert len(page) == len(DISTRIBUTIONS) * len(METHODS) * len(coverage.SIZES)
    for (distribution, method, n), share in page.items():
        extreme = distribution == EXTREME and method == CHOSEN_MEAN.name
        if method in (CHOSEN_MEAN.name, CHOSEN_INTERQUARTILE_MEAN.name) and n >= 5 and not extreme:
            assert share >= 0.93, (distribution, method, n)


@pytest.mark.parametrize("distribution", ["normal", "exponential"])
def test_the_interval_of_a_mean_covers_what_the_page_claims(distribution: str) -> None:
    (cell,) = measure_coverage([CHOSEN_MEAN], [distribution], [5], repetitions=4_000, seed=1)
    assert cell.coverage == pytest.approx(claimed()[distribution, CHOSEN_MEAN.name, 5], abs=3.5 * cell.error)
    assert cell.coverage >= 0.93 - 3 * cell.error


def test_bca_intervals_of_five_values_fall_short() -> None:
    (cell,) = measure_coverage([BCA], ["normal"], [5], repetitions=5_000, seed=1)
    assert cell.coverage < 0.93 - 3 * cell.error
    assert cell.coverage == pytest.approx(claimed()["normal", BCA.name, 5], abs=4 * cell.error)


def test_what_is_measured_is_what_reports_use() -> None:
    samples = np.random.default_rng(0).standard_normal((3, 6))
    for method, used in (
        (CHOSEN_MEAN, mean_interval),
        (CHOSEN_INTERQUARTILE_MEAN, lambda v: interquartile_mean_interval(v, np.random.default_rng(1))),
    ):
        low, high = method.bounds(samples, np.random.default_rng(0))
        for i, sample in enumerate(samples):
            # resamples are others, and fewer: their quantiles at 0.2% are some hundredths of a deviation apart
            assert used(sample.tolist()) == pytest.approx((low[i], high[i]), abs=0.15 if method.slow else 1e-12)


def test_the_true_interquartile_mean_of_known_distributions() -> None:
    assert true_interquartile_mean(DISTRIBUTIONS["normal"]) == pytest.approx(0, abs=1e-9)
    # of the exponential: the integral of -log(1 - p) from 1/4 to 3/4, twice
    primitive = [q * np.log(q) - q for q in (0.75, 0.25)]
    assert true_interquartile_mean(DISTRIBUTIONS["exponential"]) == pytest.approx(-2 * (primitive[0] - primitive[1]))


def test_the_command_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "SIZES", (5,))
    monkeypatch.setattr(measure_coverage, "__defaults__", (None, ("normal",), (5,), 20_000, 0))
    out = tmp_path / "new" / "page.md"
    assert coverage.main(["--out", str(out), "--repetitions", "50"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "--repetitions 50 --seed 0" in text
    assert re.search(r"\| normal \| \*\*t, level 98.5%\*\* \| \d+\.\d \(1.47\) \|", text)
    assert "| normal | inverted sign-flip test | 100.0 (∞) |" in text
    with pytest.raises(SystemExit):
        coverage.main(["--out", str(out), "--repetitions", "5"])
