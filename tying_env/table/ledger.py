"""What an episode on the tying table has bought, and the best tying it has found. No torch."""

import bisect
import math
from typing import Any

from tying_env.environment import check_keys, check_whole

_KEYS = {"cost", "longest", "sums", "counts", "history"}


class Ledger:
    """Counts what was bought; an episode and its forks share one, so nobody looks ahead without paying.

    Found is the tying with the lowest mean of what its trainings showed; of the longest trainings alone, for what
    shorter ones showed does not compare.

    Attributes:
        cost: training steps bought.
        longest: the highest point of the curve that was bought; -1 before the first.
        found: row of the best tying found; -1 before the first.
        mean: of what it showed.
        history: (cost, found) whenever another tying was the best found.
    """

    def __init__(self) -> None:
        self.cost = 0
        self.longest = self.found = -1
        self.mean = math.inf
        self.history: list[tuple[int, int]] = []
        self._sums: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def buy(self, row: int, point: int, steps: int, shown: float) -> None:
        """Note a training: of which row, to which point, for how many steps, and what it showed."""
        self.cost += steps
        if point != self.longest:
            if point < self.longest:
                return
            self.longest, self._sums, self._counts = point, {}, {}
            self.found, self.mean = -1, math.inf
        count = self._counts[row] = self._counts.get(row, 0) + 1
        total = self._sums[row] = self._sums.get(row, 0.0) + shown
        mean = total / count
        if mean < self.mean:
            if row != self.found:
                self.history.append((self.cost, row))
            self.found, self.mean = row, mean
        elif row == self.found and mean > self.mean:
            self._find()
            if row != self.found:
                self.history.append((self.cost, self.found))

    def found_by(self, cost: int) -> int:
        """Return the row of the best tying found when so much had been bought; -1 for none."""
        place = bisect.bisect_right(self.history, cost, key=lambda entry: entry[0])
        return self.history[place - 1][1] if place else -1

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, ready for JSON."""
        return {
            "cost": self.cost,
            "longest": self.longest,
            "sums": sorted(map(list, self._sums.items())),
            "counts": sorted(map(list, self._counts.items())),
            "history": list(map(list, self.history)),
        }

    @classmethod
    def from_state(cls, state: Any, rows: int, points: int) -> "Ledger":
        """Return the ledger that `state_dict` described, of a table with so many rows and points.

        Raises:
            ValueError: the state does not fit; the message says in what.
        """
        check_keys(state, _KEYS)
        ledger = cls()
        ledger.cost = check_whole("the ledger's cost", state["cost"], 0)
        ledger.longest = check_whole("the ledger's longest", state["longest"], -1)
        try:
            ledger._sums = {check_whole("a row", row, 0): float(value) for row, value in state["sums"]}
            ledger._counts = {check_whole("a row", row, 0): check_whole("a count", n, 1) for row, n in state["counts"]}
            ledger.history = [
                (check_whole("a cost", at, 0), check_whole("a row", row, 0)) for at, row in state["history"]
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(f"the ledger's sums, counts and history are damaged: {error}") from error
        known = [*ledger._sums, *(row for _, row in ledger.history)]
        beyond = max(known, default=-1) >= rows or ledger.longest >= points
        if beyond or ledger._sums.keys() != ledger._counts.keys():
            raise ValueError("the ledger's rows and points do not fit the table")
        ledger._find()
        return ledger

    def _find(self) -> None:
        means = [(self._sums[row] / count, row) for row, count in sorted(self._counts.items())]
        self.mean, self.found = min(means, default=(math.inf, -1))
