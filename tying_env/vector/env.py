"""VectorTyingEnv: N layer-tying environments in one process whose networks train as one batched computation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.data import Corpus, RandomWindows, ShuffledWindows, evaluation_windows, load_corpus
from tying_env.primary.evaluation import MAX_MEAN_LOSS, perplexity
from tying_env.primary.models import find_device
from tying_env.seeding import check_seed, numpy_stream
from tying_env.vector.batch import TrainingBatch

# What is not offered here, and the one value that is.
ONLY: dict[str, Any] = {
    "model": "gpt2",
    "init_from": None,
    "first_tying": "leader",
    "delta_rank": 0,
    "replication": "tied",
    "compile_blocks": False,
    "checkpoint_blocks": False,
    "frozen_weights": "held",
    "autocast": False,
    "accumulate": 1,
    "prefetch": False,
}


@dataclass
class _Run:
    """One training run: what there is of it beside the network."""

    batches: ShuffledWindows
    reward_windows: RandomWindows
    frozen_steps: int  # still to be trained before the first decision
    decisions: int = 0
    train_step: int = 0
    tokens: int = 0
    validation_perplexity: float = math.inf


class VectorTyingEnv(gym.vector.VectorEnv[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]):
    """N environments `LayerTyingEnv` of small GPT-2 networks, trained together.

    Each is equal to its single twin under the same seed up to float tolerance: data, dropout, weights and tying are
    those of the twin, only sums are rounded differently (on a GPU dropout's masks are others). It pays where a single
    network is too small to keep the machine busy; docs/performance.md has the factors. An environment that is over is
    reset by the next step (`AutoresetMode.NEXT_STEP`), from its own generator.

    Args:
        num_envs: N.
        settings: fields of `EnvConfig`; those that change how a single large network is computed are not offered.

    Raises:
        TypeError, ValueError: a setting is unknown, wrong, or not offered here; the message names it.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs!r}")
        if settings.pop("render_mode", None) is not None:
            raise ValueError("the vector environment does not render: leave render_mode out")
        self.config = config = EnvConfig.from_settings(settings)
        for name, value in ONLY.items():
            if getattr(config, name) != value:
                raise ValueError(f"{name} must be {value!r} in the vector environment, got {getattr(config, name)!r}")
        self.num_envs = num_envs
        self.device = find_device(config.device)
        self.corpus: Corpus = load_corpus(config.dataset, config.tokenizer, config.cache_dir)
        self._validation = evaluation_windows(self.corpus.validation, config.seq_len, config.validation_windows)
        evaluation_windows(self.corpus.train, config.seq_len, 1)  # too short a text fails here
        self.single_action_space = gym.spaces.MultiDiscrete(np.arange(1, config.n_units + 1))
        self.single_observation_space = gym.spaces.MultiDiscrete(np.arange(1, config.n_units + 1))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.batch = TrainingBatch(config, self.corpus.tokenizer.vocab_size, num_envs, self.device)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._runs: list[_Run] = []
        self._over = np.zeros(num_envs, dtype=bool)

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
        self._runs = [self._begin(n, own) for n, own in enumerate(seeds)]
        self._over[:] = False
        infos: dict[str, Any] = {}
        for n in range(self.num_envs):
            infos = self._add_info(infos, self._info(n, math.inf, math.inf, partition.TyingEvents(0, 0), False), n)
        return self.batch.tying.copy(), infos

    def step(self, actions: npt.NDArray[np.int64]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Apply a tying in each environment, train for k steps, measure the rewards; reset those that are over.

        Args:
            actions: shape (N, L).

        Raises:
            ValueError: an action is not valid; nothing is changed.
            gymnasium.error.ResetNeeded: reset was never called.
        """
        if not self._runs:
            raise gym.error.ResetNeeded("no training run has begun: call reset() first")
        config, count = self.config, self.num_envs
        if np.shape(actions) != (count, config.n_units):
            raise ValueError(f"actions must have the shape {(count, config.n_units)}, got {np.shape(actions)}")
        for action in actions:
            partition.validate_action(action, config.n_units)
        fresh = self._over.copy()
        for n in np.flatnonzero(fresh).tolist():
            self._runs[n] = self._begin(n, None)
        runs, active = self._runs, ~fresh
        # 1. The first k steps lie before the first decision.
        diverged, _ = self._train([run.frozen_steps for run in runs], active, np.zeros(count, dtype=bool))
        due, events = [], []
        for n, run in enumerate(runs):
            every, since = config.validate_every, run.train_step if run.decisions else 0
            due.append((since // every + 1) * every if every else 0)
            # 2. Tie.
            events.append(self.batch.change(n, actions[n]) if active[n] else partition.TyingEvents(0, 0))
            if active[n]:
                run.decisions, run.frozen_steps = run.decisions + 1, 0
        # 3. Train, with the reward before or after.
        before = config.reward_timing == "after_tying"
        reward_loss = self._reward_losses(active) if before else np.full(count, math.inf)
        left = [min(config.k, config.total_steps - run.train_step) for run in runs]
        diverged, train_loss = self._train(left, active, diverged)
        if not before:
            reward_loss = self._reward_losses(active & ~diverged)
        diverged |= active & ~np.isfinite(reward_loss)
        # 4. Validate.
        finished = np.array([run.train_step >= config.total_steps for run in runs])
        reached = np.array([run.train_step >= step for run, step in zip(runs, due, strict=True)])
        validates = active & ~diverged & (finished | reached) & bool(config.validate_every)
        if validates.any():
            windows = torch.from_numpy(self._validation.astype(np.int64)).to(self.device)
            measured = self.batch.evaluate(windows.expand(count, -1, -1), config.batch_size).tolist()
            for n in np.flatnonzero(validates).tolist():
                runs[n].validation_perplexity = perplexity(measured[n])
                diverged[n] |= not math.isfinite(measured[n])
        truncated = active & finished & ~diverged
        self._over = diverged | truncated
        rewards, infos = np.zeros(count), dict[str, Any]()
        for n in range(count):
            found = math.inf if fresh[n] or diverged[n] else perplexity(float(reward_loss[n]))
            rewards[n] = 0.0 if fresh[n] else -math.exp(MAX_MEAN_LOSS) if diverged[n] else -found
            info = self._info(n, float(train_loss[n]), found, events[n], bool(diverged[n]))
            infos = self._add_info(infos, info, n)
        return self.batch.tying.copy(), rewards, diverged.copy(), truncated, infos

    def _begin(self, n: int, seed: int | None) -> _Run:
        if seed is not None:
            self._generators[n], _ = gym.utils.seeding.np_random(seed)
        own = seed if seed is not None else int(self._generators[n].integers(2**31))
        config = self.config
        self.batch.begin(n, own)
        if not config.freeze_at_start:
            self.batch.change(n, np.arange(config.n_units))
        train, sizes = self.corpus.train, (config.batch_size, config.seq_len)
        return _Run(
            ShuffledWindows(train, *sizes, numpy_stream(own, "training batches")),
            RandomWindows(train, *sizes, numpy_stream(own, "reward batches")),
            min(config.k, config.total_steps - 1),
        )

    def _train(
        self, steps: Sequence[int], active: npt.NDArray[np.bool_], diverged: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Train each network for so many steps; return which have diverged and the mean losses in nats, (N,) each."""
        config, shape = self.config, (self.num_envs, self.config.batch_size, self.config.seq_len + 1)
        diverged, total, done = diverged.copy(), np.zeros(self.num_envs), np.zeros(self.num_envs)
        for i in range(max(steps)):
            on = active & ~diverged & (i < np.array(steps))
            if not on.any():
                break
            drawn = np.zeros(shape, dtype=np.int64)
            for n in np.flatnonzero(on).tolist():
                drawn[n] = self._runs[n].batches.next_batch()
            loss, norm = self.batch.train(torch.from_numpy(drawn).to(self.device), on).double().cpu().numpy()
            sound = on & np.isfinite(loss) & np.isfinite(norm)
            diverged |= on & ~sound
            total[sound] += loss[sound]
            done += sound
            for n in np.flatnonzero(sound).tolist():
                self._runs[n].train_step += 1
                self._runs[n].tokens += config.batch_size * config.seq_len
        diverged |= active & ~self.batch.finite()
        return diverged, np.where(done > 0, total / np.maximum(done, 1), math.inf)

    def _reward_losses(self, active: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Measure the mean loss of the active networks on fresh training batches, (N,); infinity for the others."""
        config = self.config
        windows = np.zeros((self.num_envs, config.reward_batches * config.batch_size, config.seq_len + 1), np.int64)
        for n in np.flatnonzero(active).tolist():
            drawn = [self._runs[n].reward_windows.next_batch() for _ in range(config.reward_batches)]
            windows[n] = np.concatenate(drawn)
        measured = self.batch.evaluate(torch.from_numpy(windows).to(self.device), config.batch_size).cpu().numpy()
        return np.where(active & np.isfinite(measured), measured, math.inf)

    def _info(
        self, n: int, train_loss: float, measured: float, events: partition.TyingEvents, diverged: bool
    ) -> dict[str, Any]:
        run, tying = self._runs[n], self.batch.tying[n].copy()
        return {
            "tying": tying,
            "train_loss": train_loss,
            "perplexity": measured,
            "validation_perplexity": run.validation_perplexity,
            "independent_layers": len(partition.leaders(tying)),
            "trainable_parameters": self.batch.count_trainable(n),
            "tied_events": events.tied,
            "untied_events": events.untied,
            "train_step": run.train_step,
            "tokens": run.tokens,
            "diverged": diverged,
        }
