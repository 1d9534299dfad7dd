"""Trains the DQN of `tying_agents.controllers.pretrained` over many episodes on the tying table.

An episode begins with a random tying and a random number of groups that there may be, and has two moves for each layer.
The reward of a move is how much lower the log-perplexity is that the new tying's training shows, of a seed drawn at
random: so the rewards of an episode add up to what its moves have gained. Nothing is discounted, which a DQN that
configures algorithms needed to plan far enough (Nguyen et al., 2025, arXiv 2512.03805). Double Q-learning (van Hasselt
et al., 2016) from a replay, a target network, and epsilon in a straight line from 1 to 0.05 over half of the training.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tying_agents.controllers.pretrained import MOVES_PER_LAYER, Ensemble, MoveValues, candidates, features_of, plan
from tying_agents.controllers.rules import PRIORS
from tying_agents.settings import PriorRule
from tying_env import partition
from tying_env.config.checks import check_at_least
from tying_env.seeding import numpy_stream, torch_stream
from tying_env.table.env import TableTyingEnv

_EPISODES = 64  # side by side
_BATCH, _REPLAY, _TARGET_EVERY = 256, 50_000, 100
_LAST_EPSILON, _RATE = 0.05, 1e-3

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What the values that were learned choose on the table, for a number of groups.

    Attributes:
        groups: that there may be.
        tying: chosen.
        regret: how much worse it is than the best with as many groups at most, in perplexity of the test split.
        regrets: of each rule's tying. rule -> regret
    """

    groups: int
    tying: list[int]
    regret: float
    regrets: dict[PriorRule, float]


@dataclass
class _Replay:
    """The newest transitions, as arrays."""

    kept: list[Floats] = field(default_factory=list)

    def add(self, rows: Floats) -> None:
        self.kept.append(rows)
        del self.kept[: max(0, len(self.kept) - _REPLAY // _EPISODES)]

    def sample(self, rng: np.random.Generator) -> Floats:
        """Return transitions drawn uniformly, shape (_BATCH, 4)."""
        at = rng.integers((len(self.kept), _EPISODES), size=(_BATCH, 2))
        return np.array([self.kept[i][j] for i, j in at.tolist()])


class _Task:
    """Episodes of moves on the table.

    Args:
        corpus, table, shuffled: as for `pretrain`.
        seed: of what the trainings show, and of how losses are dealt out.
    """

    def __init__(self, corpus: str, table: Path | None, seed: int, shuffled: bool) -> None:
        self._env = TableTyingEnv(corpus=corpus, table=table, budget=2**62)
        self._env.reset(seed=seed)
        self._tyings = list(self._env.table.tyings)
        self.n_units = self._env.n_units
        self.horizon = MOVES_PER_LAYER * self.n_units
        n = len(self._tyings)
        self._dealt = numpy_stream(seed, "shuffled").permutation(n) if shuffled else np.arange(n)
        self._groups = np.array([len(partition.leaders(tying)) for tying in self._tyings])
        limits, tyings = range(1, self.n_units + 1), np.array(self._tyings)
        self._features = torch.stack([torch.from_numpy(features_of(tyings, m)) for m in limits])
        to = [candidates(self._tyings, m) for m in limits]
        self.width = max(len(row) for rows in to for row in rows)
        # A move that there is not is one that stays: so that is tried more often than each of the others.
        padded = [[row + [row[0]] * (self.width - len(row)) for row in rows] for rows in to]
        self.reach = np.array(padded)  # (L, T, width): where a move leads to from a tying, under a limit of groups

    def shown(self, rows: Ints) -> Floats:
        """Return the log-perplexity that a training of each of these tyings shows."""
        return np.array([math.log(-self._env.step(self._tyings[row])[1]) for row in self._dealt[rows].tolist()])

    def begun(self, count: int, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
        """Return the limits (less 1), first tyings and what they show of new episodes, each of shape (count,)."""
        most = rng.integers(self.n_units, size=count)
        rows = np.array([rng.choice(np.flatnonzero(self._groups <= m + 1)) for m in most.tolist()])
        return most, rows, self.shown(rows)

    def values(self, network: MoveValues, most: Ints, rows: Ints, left: Ints) -> Tensor:
        """Return values of moves to tyings, shape of `rows`, which the others broadcast to."""
        limits, remaining = np.broadcast_to(most, rows.shape), np.broadcast_to(left, rows.shape)
        share = torch.from_numpy(remaining / self.horizon).float()
        return network.of(self._features[torch.from_numpy(limits.copy()), torch.from_numpy(rows)], share)

    @torch.no_grad()
    def best(self, network: MoveValues, most: Ints, rows: Ints, left: Ints) -> Ints:
        """Return where the best moves lead to, shape (N,)."""
        there = self.reach[most, rows]  # (N, width)
        chosen = self.values(network, most[:, None], there, left[:, None]).argmax(dim=1).numpy()
        return np.asarray(np.take_along_axis(there, chosen[:, None], 1)[:, 0])


def pretrain(
    corpus: str,
    table: Path | None,
    seed: int,
    updates: int,
    members: int,
    shuffled: bool,
    on_update: Callable[[int, int], None],
) -> Ensemble:
    """Return values of moves, learned on the table.

    Args:
        corpus: of the table.
        table: its file; None for the package's.
        seed: of everything random.
        updates: of each network, one for 64 moves.
        members: networks, each of which learns by itself.
        shuffled: whether the table's losses are dealt out at random among the tyings: the control for learning.
        on_update: is told (updates done, updates in all).

    Raises:
        ValueError: a number is below 1, or the table has no such corpus, or no whole seed of it.
        OSError: the table cannot be read.
    """
    check_at_least(1, updates=updates, members=members)
    task, found = _Task(corpus, table, seed, shuffled), Ensemble(members)
    for number, network in enumerate(found.networks):
        _learn(network, task, seed, f"pretraining {number}", updates, number * updates, members * updates, on_update)
    return found


def _learn(
    network: MoveValues,
    task: _Task,
    seed: int,
    stream: str,
    updates: int,
    done: int,
    total: int,
    on_update: Callable[[int, int], None],
) -> None:
    rng, generator = numpy_stream(seed, stream), torch_stream(seed, stream)
    with torch.no_grad():
        for layer in (module for module in network if isinstance(module, nn.Linear)):
            bound = 1 / math.sqrt(layer.in_features)
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
    target = copy.deepcopy(network)
    optimizer, replay = torch.optim.Adam(network.parameters(), lr=_RATE), _Replay()
    (most, rows, before), left = task.begun(_EPISODES, rng), rng.integers(1, task.horizon + 1, size=_EPISODES)
    for update in range(updates):
        epsilon = max(_LAST_EPSILON, 1 - (1 - _LAST_EPSILON) * update / (updates / 2))
        left = left - 1
        after = task.best(network, most, rows, left)
        explores = np.flatnonzero(rng.random(_EPISODES) < epsilon)
        after[explores] = task.reach[most[explores], rows[explores], rng.integers(task.width, size=len(explores))]
        now = task.shown(after)
        replay.add(np.stack([most, after, left, before - now], axis=1))
        rows, before = after, now
        if len(over := np.flatnonzero(left == 0)):
            most[over], rows[over], before[over] = task.begun(len(over), rng)
            left[over] = task.horizon
        _update(network, target, optimizer, task, replay.sample(rng))
        if (update + 1) % _TARGET_EVERY == 0:
            target.load_state_dict(network.state_dict())
        on_update(done + update + 1, total)


def _update(
    network: MoveValues, target: MoveValues, optimizer: torch.optim.Optimizer, task: _Task, drawn: Floats
) -> None:
    """Learn from transitions, shape (N, 4): limit, the tying that a move led to, moves left after it, reward."""
    most, rows, left = (drawn[:, i].astype(np.int64) for i in range(3))
    later = np.maximum(left - 1, 0)
    with torch.no_grad():
        future = task.values(target, most, task.best(network, most, rows, later), later)
        wanted = torch.from_numpy(drawn[:, 3]).float() + torch.from_numpy(left > 0).float() * future
    loss = F.mse_loss(task.values(network, most, rows, left), wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def judged(values: Ensemble, corpus: str, table: Path | None) -> list[Judged]:
    """Return what values choose for each number of groups, and what that costs, by the table's means over seeds."""
    env = TableTyingEnv(corpus=corpus, table=table)
    true = env.scores.true
    groups = np.array([len(partition.leaders(tying)) for tying in env.table.tyings])
    found = []
    for most in range(1, env.n_units + 1):
        best = float(true[groups <= most].min())

        def regret(tying: partition.IntVector, best: float = best) -> float:
            return float(true[env.table.row(tying)]) - best

        regrets = {rule: regret(prior.best(env.n_units, most)) for rule, prior in PRIORS.items()}
        tying = plan(values, PRIORS["own-first"].best(env.n_units, most), most)
        found.append(Judged(most, tying.tolist(), regret(tying), regrets))
    return found
