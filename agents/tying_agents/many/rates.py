"""Chooses an arm's learning rate by validation: the best of a grid, or the top of a climb over it."""

from collections.abc import Callable, Sequence

from tying_agents.many.plan import RunPlan, tuning_folder
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import SUMMARY

# Rates that a climb begins with: one in the middle of the grid and its neighbours.
AT_FIRST = 3


def rates_looked_at(arm: str, plan: RunPlan) -> tuple[list[float], float | None]:
    """Return the rates that an arm's choice needs as far as is known, and the one chosen, or None.

    None is chosen where runs of these rates are still to come; without a grid there is nothing to choose.
    """
    if not plan.learning_rates:
        return [], None
    if plan.rate_search == "climb":
        return climb(plan.learning_rates, lambda rate: _mean(arm, rate, plan))
    means = {rate: _mean(arm, rate, plan) for rate in plan.learning_rates}
    known = {rate: mean for rate, mean in means.items() if mean is not None}
    return list(means), min(known, key=known.__getitem__) if len(known) == len(means) else None


def chosen_learning_rate(arm: str, plan: RunPlan) -> float | None:
    """Return the rate with the lowest mean best validation perplexity; None without a grid.

    Raises:
        FileNotFoundError: tuning runs are still to come.
    """
    rates, chosen = rates_looked_at(arm, plan)
    if rates and chosen is None:
        raise FileNotFoundError(f"not all runs are there that choose the learning rate of {arm!r}")
    return chosen


def climb(rates: Sequence[float], mean: Callable[[float], float | None]) -> tuple[list[float], float | None]:
    """Return the rates that a climb has come by, in ascending order, and its top, or None where one has no result yet.

    It begins in the middle of the grid and goes one rate further while the best so far is at an end of those it came
    by: so it ends where both neighbours are worse, or at the edge of the grid. Where results have one minimum over
    rates, that is the best of the grid.

    Args:
        rates: the grid.
        mean: the result of a rate, lower is better; None where there is none yet.
    """
    grid = sorted(rates)
    low = max(0, len(grid) // 2 - AT_FIRST // 2)
    high = min(len(grid), low + AT_FIRST)
    while True:
        means = [mean(rate) for rate in grid[low:high]]
        known = [value for value in means if value is not None]
        if len(known) < len(means):
            return grid[low:high], None
        best = low + known.index(min(known))
        if best == low > 0:
            low -= 1
        elif best == high - 1 < len(grid) - 1:
            high += 1
        else:
            return grid[low:high], grid[best]


def _mean(arm: str, rate: float, plan: RunPlan) -> float | None:
    """Return an arm's mean best validation perplexity over tuning seeds; None where one has not finished."""
    found: list[float] = []
    for seed in plan.tuning_seeds:
        folder = tuning_folder(plan, arm, rate, seed)
        if not (folder / SUMMARY).exists():
            return None
        value = RunDirectory.open(folder).read_json(SUMMARY)["best_validation_perplexity"]
        found.append(float("inf") if value is None else float(value))
    return sum(found) / len(found)
