"""An arm's learning rate is the best of a grid; a climb finds it with fewer runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tying_agents.many.comparison import make_comparison
from tying_agents.many.plan import ArmSpec, RunPlan
from tying_agents.many.rates import AT_FIRST, chosen_learning_rate, climb, rates_looked_at
from tying_agents.run_config import RunConfig

from tying_env import EnvConfig

GRID = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


@given(st.integers(1, 9), st.data())
def test_a_climb_finds_the_one_best_rate_with_its_neighbours(n: int, data: st.DataObject) -> None:
    best, order = data.draw(st.integers(0, n - 1)), data.draw(st.permutations(range(n)))
    rates = [2.0**i for i in order]  # in whatever order they are given
    results = {2.0**i: float(abs(i - best)) for i in range(n)}
    looked_at, found = climb(rates, results.__getitem__)
    assert found == 2.0**best
    first = max(0, n // 2 - 1)
    assert looked_at == [2.0**i for i in range(n) if min(first, best - 1) <= i < max(first + AT_FIRST, best + 2)]


def test_a_climb_asks_for_what_it_needs_next() -> None:
    known: dict[float, float] = {}
    asked = []
    while (step := climb(GRID, known.get))[1] is None:
        asked.append([rate for rate in step[0] if rate not in known])
        known |= {rate: abs(rate - 1e-3) for rate in asked[-1]}
    assert asked == [[2e-3, 4e-3, 8e-3], [1e-3], [5e-4]]
    assert step == ([5e-4, 1e-3, 2e-3, 4e-3, 8e-3], 1e-3)


def test_where_every_run_diverges_a_climb_goes_down() -> None:
    assert climb(GRID, lambda rate: float("inf") if rate > 5e-4 else 9.0) == (list(GRID[:5]), 5e-4)
    assert climb(GRID, lambda rate: float("inf"))[1] == 5e-4


def test_arms_that_climb_make_no_other_runs_and_choose_what_a_grid_chooses(tmp_path: Path, tiny: Any) -> None:
    def arm(label: str, agent: str) -> ArmSpec:
        config = RunConfig(agent=agent, env=EnvConfig(**tiny), test_windows=8)
        return ArmSpec(label, lambda runs, seed: dataclasses.replace(config))

    arms = [arm("a", "conventional"), arm("b", "albert")]
    rates = (1e-7, 1e-6, 1e-5, 1e-2, 3e-2)
    plan = RunPlan(tmp_path / "out", (0,), rates, (9,), rate_search="climb")
    seen: list[tuple[int, int]] = []
    make_comparison(arms, plan, lambda done, total: seen.append((done, total)))
    for name in "ab":
        looked_at, chosen = rates_looked_at(name, plan)
        there = sorted(float(folder.name[2:]) for folder in (tmp_path / "out" / "tuning" / name).iterdir())
        assert there == looked_at and 1e-7 not in there
        about = json.loads((tmp_path / "out" / "runs" / name / "seed0" / "config.json").read_text())
        assert about["env"]["learning_rate"] == chosen == chosen_learning_rate(name, plan)
    assert seen[0] == (0, 2 * (AT_FIRST + 1)) and seen[-1][0] == seen[-1][1] == 2 + sum(
        len(rates_looked_at(name, plan)[0]) for name in "ab"
    )
    again: list[tuple[int, int]] = []
    make_comparison(arms, plan, lambda done, total: again.append((done, total)))  # nothing is left to do
    assert again[-1] == seen[-1]
    whole = dataclasses.replace(plan, rate_search="grid")
    with pytest.raises(FileNotFoundError, match="not all runs are there that choose the learning rate of 'a'"):
        chosen_learning_rate("a", whole)
    make_comparison(arms, whole, lambda done, total: None)  # its runs count for a grid, too
    assert [chosen_learning_rate(name, whole) for name in "ab"] == [chosen_learning_rate(name, plan) for name in "ab"]


def test_a_climb_needs_a_grid_and_an_unknown_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rate_search 'climb' needs a grid of learning_rates to climb, got none"):
        RunPlan(tmp_path, (0,), rate_search="climb")
    with pytest.raises(ValueError, match="rate_search must be 'grid' or 'climb', got 'random'"):
        RunPlan(tmp_path, (0,), rate_search="random")  # type: ignore[arg-type]
