"""TableVectorEnv: many episodes on the tying table at once, millions of steps a second. No torch."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from tying_env import partition
from tying_env.environment import check_whole, tying_space
from tying_env.kinds import Kinds
from tying_env.seeding import check_seed
from tying_env.table.draws import draws, mixed
from tying_env.table.env import check_budget
from tying_env.table.file import TyingTable, open_table
from tying_env.table.objectives import Objective, scores

IntArray = npt.NDArray[np.int64]
# Layers up to which the row of every action is held: 8! = 40,320 rows.
_MOST_LAYERS = 8


class TableVectorEnv(gym.vector.VectorEnv[IntArray, IntArray, npt.NDArray[np.float64]]):
    """N episodes on the tying table, in step: each is a `TableTyingEnv` without `fidelities`.

    With the seeds of `reset` every episode is its single twin's, to the bit. All are over at once, and the next step
    resets them (`AutoresetMode.NEXT_STEP`), with seeds from one generator. `info` has the twin's `train_step`, `cost`,
    `perplexity`, `independent_layers`, `trainable_parameters` and `regret`, an array each.

    Args:
        num_envs: N.
        corpus: which texts the networks were trained on.
        budget: training steps in all; a whole training takes `table.points[-1]`.
        objective: "perplexity", "priced" or "limited".
        learning_rate: of all tyings; None: each at its best by validation.
        price: of "priced".
        max_parameters: of "limited".
        table: a table's file; the package's own by default.
        render_mode: None: there is nothing to render.

    Raises:
        ValueError: an argument is out of its range, or the file is damaged; the message names it.
        OSError: the file cannot be read.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(
        self,
        num_envs: int = 1,
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
        if fidelities:
            raise ValueError("the vector environment buys whole trainings alone: leave fidelities out")
        if render_mode is not None:
            raise ValueError("the vector environment does not render: leave render_mode out")
        self.num_envs = check_whole("num_envs", num_envs, 1)
        self.table: TyingTable = open_table(table)
        n_units, self._steps = self.table.n_layer, int(self.table.points[-1])
        if n_units > _MOST_LAYERS:
            raise ValueError(f"the vector environment takes tables of at most {_MOST_LAYERS} layers, got {n_units}")
        self._per_episode = check_budget(budget, self._steps) // self._steps
        self.scores = scores(self.table, corpus, objective, learning_rate, price, max_parameters)
        self.single_action_space = self.single_observation_space = tying_space(Kinds.alike(n_units))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._seen = np.ascontiguousarray(self.scores.seen[:, :, -1].T)  # (T, S)
        self._independent = np.array([len(partition.leaders(tying)) for tying in self.table.tyings])
        # An action's number, in the factorial base: entry i is a digit from 0 to i.
        self._weights = np.array([math.factorial(i) for i in range(n_units)])
        self._most = np.arange(n_units)
        self._row_of = _rows_of_actions(self.table)
        self._places = np.arange(self.num_envs) * len(self.table.tyings)
        self._seeds: npt.NDArray[np.uint64] | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Begin N episodes.

        Args:
            seed: one for each environment; from a single one they get seed, seed + 1, ... as in Gymnasium.
            options: none are known.

        Raises:
            ValueError: seeds or options do not fit.
        """
        if options:
            raise ValueError(f"the vector environment knows no reset options, got {sorted(options)}")
        if isinstance(seed, (list, tuple, np.ndarray)):
            if len(seed) != self.num_envs:
                raise ValueError(f"seed must be one number or {self.num_envs}, got {len(seed)}")
            drawn = self.np_random.integers(2**31, size=self.num_envs).tolist()
            seeds = [own if given is None else check_seed(given) for given, own in zip(seed, drawn, strict=True)]
        elif seed is None:
            seeds = self.np_random.integers(2**31, size=self.num_envs).tolist()
        else:
            first = check_seed(seed)
            super().reset(seed=first)
            seeds = [first + n for n in range(self.num_envs)]
        self._begin(mixed(np.array(seeds, dtype=np.uint64)))
        rows = np.zeros(self.num_envs, dtype=np.int64)
        return self.table.tyings[rows], self._info(rows, np.full(self.num_envs, np.inf))

    def step(self, actions: IntArray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Buy a training in each environment; where all are over, begin new episodes instead.

        Args:
            actions: shape (N, L).

        Raises:
            ValueError: an action is not valid; nothing is changed.
            gymnasium.error.ResetNeeded: reset was never called.
        """
        if self._seeds is None:
            raise gym.error.ResetNeeded("no episode has begun: call reset() first")
        asked = np.asarray(actions)
        if asked.shape != (self.num_envs, len(self._most)) or asked.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be whole numbers of shape {(self.num_envs, len(self._most))}, got {actions!r}"
            )
        if ((asked < 0) | (asked > self._most)).any():
            for action in asked:
                partition.validate_action(action, len(self._most))
        none = np.zeros(self.num_envs, dtype=bool)
        if self._decisions >= self._per_episode:
            tyings, info = self.reset()
            return tyings, np.zeros(self.num_envs), none, none, info
        rows = self._row_of[asked @ self._weights]
        drawn = draws(self._seeds, self._decisions, rows, self._seen.shape[1])
        shown = self._seen[rows, drawn]
        self._note(rows, shown)
        self._decisions += 1
        over = np.full(self.num_envs, self._decisions >= self._per_episode)
        return self.table.tyings.take(rows, axis=0), -shown, none, over, self._info(rows, shown)

    def _begin(self, seeds: npt.NDArray[np.uint64]) -> None:
        size = self.num_envs * len(self.table.tyings)
        self._seeds, self._decisions = seeds, 0
        self._sums, self._counts = np.zeros(size), np.zeros(size, dtype=np.int64)
        self._means = np.full(size, np.inf)  # of what was not tried, too
        self._found, self._mean = np.full(self.num_envs, -1), np.full(self.num_envs, np.inf)

    def _note(self, rows: IntArray, shown: npt.NDArray[np.float64]) -> None:
        """Update which tying is the best found, as `tying_env.table.ledger.Ledger` does."""
        where = self._places + rows  # a flat place is faster than a pair
        sums, counts = self._sums[where] + shown, self._counts[where] + 1
        self._sums[where], self._counts[where] = sums, counts
        self._means[where] = means = sums / counts
        worse = (rows == self._found) & (means > self._mean)
        better = means < self._mean
        self._found[better], self._mean[better] = rows[better], means[better]
        if (lost := np.flatnonzero(worse)).size:
            shape = self.num_envs, len(self.table.tyings)
            of = self._means.reshape(shape)[lost]
            self._found[lost], self._mean[lost] = of.argmin(axis=1), of.min(axis=1)

    def _info(self, rows: IntArray, shown: npt.NDArray[np.float64]) -> dict[str, Any]:
        cost = np.full(self.num_envs, self._decisions * self._steps)
        regret = np.where(self._found < 0, np.inf, self.scores.true[self._found] - self.scores.best)
        info: dict[str, Any] = {
            "train_step": cost,
            "cost": cost,
            "perplexity": shown,
            "independent_layers": self._independent[rows],
            "trainable_parameters": self.table.parameters[rows],
            "regret": regret,
        }
        there = np.ones(self.num_envs, dtype=bool)
        return info | {f"_{name}": there for name in info}


def _rows_of_actions(table: TyingTable) -> IntArray:
    """Return the row of every action, by the action's number in the factorial base, shape (L!,)."""
    digits = np.indices(range(1, table.n_layer + 1)).reshape(table.n_layer, -1).T  # (L!, L), all actions
    tyings = digits.copy()
    for i in range(table.n_layer):
        tyings[:, i] = np.where(digits[:, i] == i, i, tyings[np.arange(len(digits)), digits[:, i]])
    weights = np.array([math.factorial(i) for i in range(table.n_layer)])
    rows = np.zeros(len(digits), dtype=np.int64)
    rows[digits @ weights] = [table.rows[tuple(tying)] for tying in tyings.tolist()]
    return rows
