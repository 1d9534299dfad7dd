"""How costs grow: exponents have the right values, and what grows too fast is named."""

import re
from pathlib import Path

import pytest
from tying_agents.benchmarks import growth
from tying_agents.benchmarks.growth import Curves, draw_growth, exponent_of, faster_than_linear, measure_growth
from tying_agents.benchmarks.settings import BenchmarkSizes, Growth

SIZES = (2, 4, 8)


@pytest.mark.parametrize(
    ("costs", "unit", "exponent"),
    [
        ([3.0, 6.0, 12.0], "bytes", 1.0),
        ([3.0, 12.0, 48.0], "ms", 2.0),
        ([5.0, 5.0, 5.0], "bytes", 0.0),
        ([8.0, 4.0, 2.0], "tokens/s", 1.0),  # half of the tokens in a second: twice the time for each
    ],
)
def test_exponents_have_the_right_values(costs: list[float], unit: str, exponent: float) -> None:
    assert exponent_of(list(zip(SIZES, costs, strict=True)), unit) == pytest.approx(exponent, abs=1e-12)


def test_what_grows_faster_than_linearly_at_its_end_is_named() -> None:
    training: Curves = {"conventional": list(zip(SIZES, (8.0, 4.0, 2.0), strict=True))}
    bending: Curves = {"decision and update": list(zip(SIZES, (1.0, 1.1, 3.3), strict=True))}  # not over all of it
    assert faster_than_linear({"tokens/s": training}).startswith("Nothing grows faster than linearly in L at its end: ")
    told = faster_than_linear({"tokens/s": training, "ms": bending})
    assert told == "Faster than linearly in L at its end: decision and update (time) as L^1.58."
    assert "says nothing" in faster_than_linear({"tokens/s": {"conventional": [(6, 1.0)]}})


def test_every_size_has_its_rows_and_exponents(tmp_path: Path) -> None:
    work = BenchmarkSizes(repeats=1, device="cpu", n_layer=3, n_embd=8, n_head=1, seq_len=8, batch_size=1, k=1)
    sizes = Growth((3, 4), (8,), (8,), (2,), (256, 300), (), 1, tmp_path / "growth.png")
    told: list[str] = []
    rows = {row.name: row for row in measure_growth(work, sizes, told.append)}
    assert len(rows) == 2 * 9 + (1 + 1 + 1 + 2) * 6 + (3 + 3 + 3) + (3 + 3)
    assert rows["layers 3: decision and update, low-rank head"].unit == rows["layers 4: reset"].unit == "ms"
    memory = [rows[f"layers {n}: conventional, bytes"].median for n in (3, 4)]
    block = 12 * 8**2 + 13 * 8
    assert memory[1] - memory[0] == 16 * block  # weights, gradients, two moments
    exponent = rows["layers, memory grows as n^: conventional"]
    assert exponent.median == pytest.approx(exponent_of([(3, memory[0]), (4, memory[1])], "bytes"))
    assert exponent.median < 1 and rows["layers, memory grows as n^: tied, shared gradient"].median == pytest.approx(0)
    assert [re.sub(r"[\d.]+ s$", "S", line) for line in told[:2]] == ["layers 3, S", "layers 4, S"]
    assert "linearly in L at its end" in told[-1]
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_figure_has_the_exponents_in_its_legends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    costs = {"conventional": [(6, 1e6), (12, 2e6)]}
    draw_growth(
        {growth.LAYERS: {"bytes": costs}, "groups": {"bytes": {"conventional": [(3, 1e6)]}}}, tmp_path / "x.png"
    )
    shown = [axis.get_legend().get_texts()[0].get_text() for axis in drawn[0].axes if axis.get_visible()]
    assert shown == ["conventional, n^1.00", "conventional"]


@pytest.mark.parametrize("name", ["growing_layers", "growing_vocabularies", "growing_processes"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be at least 1 each, got \(4, 0\)"):
        Growth(**{name: (4, 0)})  # type: ignore[arg-type]
