"""VectorTyingEnv: N layer-tying environments in one process whose networks train as one batched computation."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from tying_env import partition
from tying_env.ambient import usual_modes
from tying_env.config import EnvConfig
from tying_env.data import Corpus, RandomWindows, ShuffledWindows, evaluation_windows, load_corpus
from tying_env.decision import Computation, Measure, Outcome, Stage, Train
from tying_env.environment import tying_space
from tying_env.episode import advance
from tying_env.primary.models import find_device
from tying_env.primary.trainer import TrainResult
from tying_env.reporting import BEGINNING, info_of, reward_of
from tying_env.seeding import check_seed, numpy_stream
from tying_env.vector.batch import TrainingBatch
from tying_env.vector.episode import BatchedEpisode
from tying_env.vector.supported import check_supported


class VectorTyingEnv(gym.vector.VectorEnv[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]):
    """N environments `LayerTyingEnv` of small GPT-2 networks, trained together.

    Each is equal to its single twin under the same seed up to float tolerance: data, dropout, weights and tying are
    those of the twin, only sums are rounded differently (on a GPU dropout's masks are others). It pays where a
    single network is too small to keep the machine busy; docs/performance.md has the factors. An environment that is
    over is reset by the next step (`AutoresetMode.NEXT_STEP`), from its own generator.

    Args:
        num_envs: N.
        settings: fields of `EnvConfig`; which of them, and which values, `tying_env.vector.supported` lists.

    Raises:
        TypeError, ValueError: a setting is unknown, wrong, or not offered here; the message names it.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    @usual_modes()
    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs!r}")
        if settings.pop("render_mode", None) is not None:
            raise ValueError("the vector environment does not render: leave render_mode out")
        self.config = config = EnvConfig.from_settings(settings)
        check_supported(config)
        self.num_envs = num_envs
        self.device = find_device(config.device)
        self.corpus: Corpus = load_corpus(config.dataset, config.tokenizer, config.cache_dir)
        validation = evaluation_windows(self.corpus.validation, config.seq_len, config.validation_windows)
        self._validation = validation.astype(np.int64)
        evaluation_windows(self.corpus.train, config.seq_len, 1)  # too short a text fails here
        self.kinds = config.kinds
        self.single_action_space, self.single_observation_space = tying_space(self.kinds), tying_space(self.kinds)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.batch = TrainingBatch(config, self.corpus.tokenizer.vocab_size, num_envs, self.device)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._episodes: list[BatchedEpisode] = []

    @usual_modes()
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """Begin N training runs.

        Args:
            seed: one for each environment; from a single one they get seed, seed + 1, ... as in Gymnasium.
            options: none are known.

        Raises:
            ValueError: seeds or options do not fit.
        """
        if options:
            raise ValueError(f"the vector environment knows no reset options, got {sorted(options)}")
        seeds: list[int | None]
        if isinstance(seed, (Sequence, np.ndarray)):
            seeds = [None if own is None else check_seed(own) for own in seed]
        else:
            seeds = [None if seed is None else check_seed(seed) + n for n in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must be one number or {self.num_envs}, got {len(seeds)}")
        self._episodes = [self._begin(n, own) for n, own in enumerate(seeds)]
        return self._observations(), self._infos([BEGINNING] * self.num_envs)

    @usual_modes()
    def step(self, actions: npt.NDArray[np.int64]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Apply a tying in each environment, train for k steps, measure the rewards; reset those that are over.

        Args:
            actions: shape (N, L).

        Raises:
            ValueError: an action is not valid; nothing is changed.
            gymnasium.error.ResetNeeded: reset was never called.
        """
        if not self._episodes:
            raise gym.error.ResetNeeded("no training run has begun: call reset() first")
        if np.shape(actions) != (self.num_envs, self.n_units):
            raise ValueError(f"actions must have the shape {(self.num_envs, self.n_units)}, got {np.shape(actions)}")
        valid = [self.kinds.units_named(self.kinds.check_action(action)) for action in actions]
        fresh = [n for n, episode in enumerate(self._episodes) if episode.over]
        for n in fresh:
            self._episodes[n] = self._begin(n, None)
        decided = self._decide({n: action for n, action in enumerate(valid) if n not in fresh})
        outcomes = [decided.get(n, BEGINNING) for n in range(self.num_envs)]
        rewards = np.array([reward_of(decided[n], self.config) if n in decided else 0.0 for n in range(self.num_envs)])
        terminated = np.array([outcome.diverged for outcome in outcomes])
        truncated = np.array([episode.over for episode in self._episodes]) & ~terminated
        return self._observations(), rewards, terminated, truncated, self._infos(outcomes)

    @property
    def n_units(self) -> int:
        """L, the length of an action and of a tying."""
        return self.config.n_units

    def _observations(self) -> npt.NDArray[np.int64]:
        return self.kinds.position[self.batch.tying]  # (N, L)

    def _begin(self, n: int, seed: int | None) -> BatchedEpisode:
        if seed is not None:
            self._generators[n], _ = gym.utils.seeding.np_random(seed)
        own = seed if seed is not None else int(self._generators[n].integers(2**31))
        config, train = self.config, self.corpus.train
        self.batch.begin(n, own)
        if not config.freeze_at_start:
            self.batch.change(n, np.arange(self.n_units))
        batches, rewards = (numpy_stream(own, f"{name} batches") for name in ("training", "reward"))
        sizes = config.batch_size, config.seq_len
        return BatchedEpisode(
            self.batch, n, ShuffledWindows(train, *sizes, batches), RandomWindows(train, *sizes, rewards), config
        )

    def _decide(self, actions: dict[int, partition.IntVector]) -> dict[int, Outcome]:
        """Carry out the decisions of some environments, a stage of all of them at a time."""
        outcomes: dict[int, Outcome] = {}
        deciding = {n: self._episodes[n].decide(action) for n, action in actions.items()}
        tasks: dict[int, Computation] = {}
        moving = list(actions)
        while moving or tasks:
            for n in moving:
                following = advance(deciding[n])
                if isinstance(following, Outcome):
                    outcomes[n] = following
                else:
                    tasks[n] = following
            # Who is at an earlier stage comes first: the others wait, and share the next stages with it.
            stage = min((task.stage for task in tasks.values()), default=None)
            moving = [n for n, task in tasks.items() if task.stage == stage]
            self._perform({n: tasks.pop(n) for n in moving})
        return outcomes

    def _perform(self, tasks: dict[int, Computation]) -> None:
        """Compute tasks of one stage, and fill in their results."""
        trains = {n: task for n, task in tasks.items() if isinstance(task, Train)}
        measures = {n: task for n, task in tasks.items() if isinstance(task, Measure)}
        if trains:
            for n, result in self._train({n: task.steps for n, task in trains.items()}).items():
                trains[n].result = result
        if measures:
            validating = any(task.stage == Stage.VALIDATION for task in measures.values())
            found = self.batch.evaluate(self._windows(measures), self.config.batch_size, dependence=validating)
            for n, task in measures.items():
                task.result = found[n]

    def _train(self, steps: dict[int, int]) -> dict[int, TrainResult]:
        """Train some networks, each for so many steps, until its loss or gradient is not finite."""
        shape = (self.num_envs, self.config.batch_size, self.config.seq_len + 1)
        losses: dict[int, list[float]] = {n: [] for n in steps}
        diverged: set[int] = set()
        for i in range(max(steps.values())):
            on = [n for n, most in steps.items() if i < most and n not in diverged]
            if not on:
                break
            drawn, active = np.zeros(shape, dtype=np.int64), np.zeros(self.num_envs, dtype=bool)
            for n in on:
                drawn[n], active[n] = self._episodes[n].batches.next_batch(), True
            loss, norm = self.batch.train(torch.from_numpy(drawn).to(self.device), active)
            for n in on:
                if math.isfinite(loss[n]) and math.isfinite(norm[n]):
                    losses[n].append(float(loss[n]))
                    self._episodes[n].count_batch()
                else:
                    diverged.add(n)
        finite = self.batch.finite()
        return {n: TrainResult(own, n in diverged or not finite[n], stopped=False) for n, own in losses.items()}

    def _windows(self, tasks: dict[int, Measure]) -> torch.Tensor:
        """Return what networks are to be measured on, (N, W, T + 1); zeros for those that are not."""
        if all(task.stage == Stage.VALIDATION for task in tasks.values()):
            return torch.from_numpy(self._validation).to(self.device).expand(self.num_envs, -1, -1)
        config = self.config
        windows = np.zeros((self.num_envs, config.reward_batches * config.batch_size, config.seq_len + 1), np.int64)
        for n in tasks:
            windows[n] = np.concatenate(self._episodes[n].next_reward_batches())
        return torch.from_numpy(windows).to(self.device)

    def _infos(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for n, (episode, outcome) in enumerate(zip(self._episodes, outcomes, strict=True)):
            infos = self._add_info(infos, info_of(episode, outcome, classifies=False), n)
        return infos
