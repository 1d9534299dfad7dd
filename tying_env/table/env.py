"""TableTyingEnv: the tying table as an environment, in which a training costs microseconds. No torch."""

import math
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.budget import BudgetSpent
from tying_env.environment import check_keys, check_whole
from tying_env.scored import ScoredEnv
from tying_env.table.draws import draw
from tying_env.table.file import TyingTable, open_table
from tying_env.table.ledger import Ledger
from tying_env.table.objectives import Objective, Scores, scores

_INT64 = np.dtype(np.int64)
# Actions whose rows are kept: all 720 of six layers.
_REMEMBERED = 50_000


class TableTyingEnv(ScoredEnv):
    """Find the best tying of six layers, each of which was trained before: a step looks its training up.

    ## Description
    The table has every tying of a small GPT-2, trained from scratch with several seeds and learning rates
    (docs/tying_table.md). An action buys a training; nothing of the training before is left, unlike in LayerTyingEnv,
    where one network is trained on. So this is a search for the best tying that stays.

    ## Action Space
    LayerTyingEnv's: `MultiDiscrete([1, 2, ..., L])`, entry i is the layer that layer i copies, or i. With
    `fidelities=True` one entry more, the point of the curve to train to: 0 is the shortest training, P - 1 the whole.
    It shows the first steps of a training whose learning rate is meant for the whole.

    ## Observation Space
    `MultiDiscrete([1, 2, ..., L])`: the last tying, in canonical form.

    ## Rewards
    Minus what the training of one seed, drawn at random, shows on validation: under the objective "perplexity" the
    perplexity per byte; see `tying_env.table.objectives` for the others. The draw follows from the seed of `reset`, the
    number of the decision and the tying.

    ## Starting State
    All zeros, or `reset(options={"tying": vector})`; it costs nothing and shows nothing.

    ## Episode End
    Truncated when the budget does not pay for another training. With `fidelities` one that it does not pay for in full
    is trained to the last point that it does. Forks pay from the same budget, and what they find counts; the cheapest
    training is kept for the next decision, and a fork that wants it raises `tying_env.budget.BudgetSpent`.

    ## Info
    That of `ScoredEnv`, with `train_step` and `cost` the training steps bought so far, `trainable_parameters`, and
    (not in forks) `regret`: how much worse the best tying found is than the best there is. Found is the tying with the
    lowest mean of what its trainings showed, of the longest trainings so far; its regret is in perplexity of the test
    split, means over seeds (infinity before the first training, and above a limit on parameters). It is for the judge:
    a controller that goes by it cheats.

    ## Arguments
    `gym.make("LayerTying-Table-v0", corpus="sotu", budget=384 * 50, objective="limited", max_parameters=50_000)`

    ## Version History
    - v0: the first version.

    Args:
        corpus: which texts the networks were trained on.
        budget: training steps in all; a whole training takes `table.points[-1]`.
        objective: "perplexity", "priced" or "limited".
        learning_rate: of all tyings; None: each at its best by validation.
        price: of "priced".
        max_parameters: of "limited".
        fidelities: whether an action says how long to train.
        table: a table's file; the package's own by default.
        render_mode: `"ansi"` or `"rgb_array"`.

    Raises:
        ValueError: an argument is out of its range, or the file is damaged; the message names it.
        OSError: the file cannot be read.
    """

    def __init__(
        self,
        *,
        corpus: str = "sotu",
        budget: int = 100 * 384,
        objective: Objective = "perplexity",
        learning_rate: float | None = None,
        price: float = 1.0,
        max_parameters: int | None = None,
        fidelities: bool = False,
        table: Path | str | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.table: TyingTable = open_table(table)
        points: list[int] = self.table.points.tolist()
        cheapest = points[0] if fidelities else points[-1]
        self._budget = check_budget(budget, cheapest)
        super().__init__(self.table.n_layer, self._budget // cheapest, render_mode)
        self._arguments = {
            "corpus": corpus,
            "budget": self._budget,
            "objective": objective,
            "learning_rate": learning_rate,
            "price": price,
            "max_parameters": max_parameters,
            "fidelities": bool(fidelities),
        }
        self.scores: Scores = scores(self.table, corpus, objective, learning_rate, price, max_parameters)
        self._fidelities = bool(fidelities)
        if fidelities:
            sizes = [*range(1, self.n_units + 1), len(points)]
            self.action_space = gym.spaces.MultiDiscrete(np.array(sizes))
        self._points, self._cheapest = points, cheapest
        # Python's own numbers: a step looks up one at a time.
        self._seen: list[list[list[float]]] = np.moveaxis(self.scores.seen, 0, 2).tolist()  # (T, P, S)
        self._true: list[float] = self.scores.true.tolist()
        self._tyings = list(self.table.tyings)
        self._independent = [len(partition.leaders(tying)) for tying in self._tyings]
        self._parameters: list[int] = self.table.parameters.tolist()
        self._rows: dict[bytes, int] = {}  # of actions that were asked for
        self._events: dict[tuple[int, int], partition.TyingEvents] = {}
        self._row = 0
        self._over = self._forked = False
        self._ledger = Ledger()

    def parameters_of(self, tying: npt.ArrayLike) -> int:
        """Return how many parameters train where layers are tied so, shape (L,); ValueError: not of the table."""
        return self._parameters[self.table.row(tying)]

    def settings(self) -> dict[str, Any]:
        """Return the arguments, but for the render mode and the file."""
        return dict(self._arguments)

    def outcome(self, tying: partition.IntVector) -> tuple[float, dict[str, Any]]:
        """Return the reward of the whole training of a tying at this decision, and what `info` has besides."""
        row = self.table.row(tying)
        return -self._shown(row, len(self._points) - 1), self._known(row)

    @property
    def steps_per_decision(self) -> int:
        """Training steps of a whole training."""
        return self._points[-1]

    @property
    def points(self) -> tuple[int, ...]:
        """Training steps that an action may buy, by its last entry with `fidelities`; else the whole training alone."""
        return tuple(self._points) if self._fidelities else (self._points[-1],)

    @property
    def train_step(self) -> int:
        """Training steps bought in this episode."""
        return self._ledger.cost

    @property
    def total_steps(self) -> int:
        """The budget."""
        return self._budget

    @property
    def ties_at(self) -> int:
        """Training steps bought in this episode: the next action is applied at once."""
        return self._ledger.cost

    @property
    def over(self) -> bool:
        """Whether the budget did not pay for another training after the last, so that the next call must be reset()."""
        self._running()
        return self._over

    @property
    def steps_for_trials(self) -> int:
        """Training steps that forks can still buy: the cheapest training is kept for the next decision."""
        return max(self._budget - self._ledger.cost - self._cheapest, 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[partition.IntVector, dict[str, Any]]:
        """Begin an episode; see `ScoredEnv.reset`."""
        tying, info = super().reset(seed=seed, options=options)
        self._ledger, self._over = Ledger(), False
        self._row = self.table.row(tying)
        return tying, info | self._known(self._row) | {"train_step": 0}

    def regret_after(self, steps: int) -> float:
        """Return the regret of this episode when so many training steps had been bought, forks' among them."""
        return self._regret(self._ledger.found_by(steps))

    def permitted(self, action: object) -> partition.IntVector:
        """Check an action, and return its tying entries, shape (L,).

        Raises:
            TypeError, ValueError: not a valid action.
        """
        if not self._fidelities:
            return super().permitted(action)
        return super().permitted(np.asarray(action)[: self.n_units])

    def step(self, action: partition.IntVector) -> tuple[partition.IntVector, float, bool, bool, dict[str, Any]]:
        """Buy a training and return what it shows.

        Raises:
            TypeError, ValueError: not a valid action; nothing is changed.
            tying_env.budget.BudgetSpent: this is a fork, and its run has too few training steps left for it; nothing
                is changed.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        if self._tying is None or self._over:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        point = len(self._points) - 1
        if self._fidelities:
            action, point = self._with_point(action)
        known = type(action) is np.ndarray and action.dtype == _INT64 and action.ndim == 1
        row = self._rows.get(action.tobytes(), -1) if known else -1
        if row < 0:
            row = self._look_up(action)
        shown, ledger = self._shown(row, point), self._ledger
        if self._forked:
            self._check_trial(self._points[point])
        ledger.buy(row, point, self._points[point], shown)
        before, self._row, self._tying = self._row, row, self._tyings[row].copy()
        self._decisions += 1
        self._over = self._budget - ledger.cost < self._cheapest
        events = self._events.get((before, row)) or self._count_events(before, row)
        info = {
            "tying": self._tying.copy(),
            "independent_layers": self._independent[row],
            "tied_events": events[0],
            "untied_events": events[1],
            "train_step": ledger.cost,
            "diverged": False,
            "perplexity": shown,
            "cost": ledger.cost,
            "trainable_parameters": self._parameters[row],
        }
        if not self._forked:  # whoever looks ahead would be told how far from the optimum each tying is
            info["regret"] = self._regret(ledger.found)
        return self._tying.copy(), -shown, False, self._over, info

    def fork(self) -> Self:
        """Return an environment in the same state, to try a tying in; it pays from the budget of this one."""
        twin = super().fork()
        twin.action_space = gym.spaces.MultiDiscrete(self.action_space.nvec)  # type: ignore[attr-defined]
        twin._forked = True
        return twin

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, ready for JSON: a restored environment continues with the same bits."""
        return super().state_dict() | {"ledger": self._ledger.state_dict(), "over": self._over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave, of an environment with the same settings.

        Raises:
            ValueError: the state does not fit, and in what; this environment is as before then.
        """
        check_keys(state, {"ledger", "over"})
        if type(state["over"]) is not bool:
            raise ValueError(f"the state's over must be True or False, got {state['over']!r}")
        ledger = Ledger.from_state(state["ledger"], len(self._tyings), len(self._points))
        super().load_state_dict(state)
        self._ledger, self._over = ledger, state["over"]
        self._row = self.table.row(self._running())

    def _with_point(self, action: object) -> tuple[partition.IntVector, int]:
        asked = np.asarray(action)
        if asked.shape != (self.n_units + 1,) or asked.dtype.kind not in "iu":
            raise ValueError(f"action must be {self.n_units + 1} whole numbers, the last a point, got {action!r}")
        point = int(asked[-1])
        if not 0 <= point < len(self._points):
            raise ValueError(f"the action's last entry must be from 0 to {len(self._points) - 1}, got {point}")
        while point and self._points[point] > self._budget - self._ledger.cost:
            point -= 1
        return asked[:-1].astype(np.int64), point

    def _check_trial(self, steps: int) -> None:
        if steps > self.steps_for_trials:
            raise BudgetSpent(
                f"a training of {steps} steps in a fork is more than is left for forks, {self.steps_for_trials}: of "
                f"{self._budget} steps {self._ledger.cost} are bought, and {self._cheapest} are kept for the next "
                "decision"
            )

    def _look_up(self, action: partition.IntVector) -> int:
        valid = partition.validate_action(action, self.n_units)
        row = self.table.row(partition.canonicalise(valid))
        if len(self._rows) < _REMEMBERED:
            self._rows[valid.tobytes()] = row
        return row

    def _shown(self, row: int, point: int) -> float:
        seeds = self._seen[row][point]
        return seeds[draw(self._seed, self._decisions, row, len(seeds))]

    def _count_events(self, before: int, after: int) -> partition.TyingEvents:
        events = partition.events(self._tyings[before], self._tyings[after])
        self._events[before, after] = events
        return events

    def _known(self, row: int) -> dict[str, Any]:
        ledger = self._ledger
        return {
            "cost": ledger.cost,
            "trainable_parameters": self._parameters[row],
            "regret": self._regret(ledger.found),
        }

    def _regret(self, found: int) -> float:
        return math.inf if found < 0 else self._true[found] - self.scores.best


def check_budget(budget: object, cheapest: int) -> int:
    """Return a budget as an int.

    Raises:
        ValueError: it does not pay for one training.
    """
    try:
        return check_whole("budget", budget, cheapest)
    except ValueError as error:
        raise ValueError(f"budget must be at least {cheapest} training steps, one training; got {budget!r}") from error
