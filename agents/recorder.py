"""Steps an environment and writes down what happens: the one place where a run directory is filled."""

import math
import platform
import time
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from agents import traces
from tying_env.env import LayerTyingEnv
from tying_env.files import written_whole
from tying_env.partition import IntVector, validate_action
from tying_env.render import replication_map_figure
from tying_env.runs import Checkpoints, RunDirectory, load_network, save_network
from tying_env.runs.run_directory import BEST, FINAL, JOURNAL, MAP, METRICS, SUMMARY
from tying_env.runs.tensorboard import Curves
from tying_env.wrappers import load_wrapper_states, wrapper_states

_COUNTERS = ("episode", "decision", "tokens")

Step = tuple[IntVector, float, bool, bool, dict[str, Any]]


class Observer(Protocol):
    """Is told how the run goes; see agents.progress."""

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Take note of one decision, the record that went to metrics.jsonl."""
        ...

    def note(self, text: str) -> None:
        """Take note of something worth saying."""
        ...


# Files that only grow; a checkpoint remembers how far they were.
LOGS = (METRICS, traces.TRACE, JOURNAL)


class Recorder:
    """Records the episodes of one environment in one run directory.

    `reset`, then `step`, `record` and `checkpoint_if_due` for each decision, then `conclude`. Episodes follow each
    other in the same files; the networks and the test results are those of the last one.

    Args:
        env: a LayerTyingEnv, perhaps in wrappers that change its reward.
        directory: where to write.
        observer: is told of every decision.
        seed: of the first episode; those after it follow from it.
        episodes: how many there will be.
        test_windows: sequences of the test split to measure at the end; 0 for all, None to leave it alone.
        checkpoints: where the state is kept.
        checkpoint_every: decisions between two checkpoints; 0 for none but those asked for.

    Attributes:
        observation: the tying that the next decision is made on.
        action: of the step that is being made; it outlives a stop. None before the next one is chosen.
        over: whether an episode is to begin.
        diverged: whether training diverged.
        curves: TensorBoard events, where there are any.
    """

    def __init__(
        self,
        env: gym.Env[IntVector, IntVector],
        directory: RunDirectory,
        observer: Observer,
        *,
        seed: int,
        episodes: int,
        test_windows: int | None,
        checkpoints: Checkpoints,
        checkpoint_every: int,
    ) -> None:
        unwrapped = env.unwrapped
        assert isinstance(unwrapped, LayerTyingEnv)
        self.env = env
        self.layer_tying: LayerTyingEnv = unwrapped
        self.directory = directory
        self.observer = observer
        self.curves: Curves | None = None
        self.observation: IntVector = np.zeros(0, dtype=np.int64)
        self.action: IntVector | None = None
        self.over = True
        self.diverged = False
        self._seed = seed
        self._episodes = episodes
        self._test_windows = test_windows
        self._checkpoints = checkpoints
        self._checkpoint_every = checkpoint_every
        self._episode = 0  # the running one, counted from 1
        self._decision = 0
        self._seconds = 0.0
        self._tokens = 0  # of the episodes before this one
        self._best = float("inf")
        self._result: tuple[float, dict[str, Any]] | None = None  # of the last step: reward and info

    @property
    def finished(self) -> bool:
        """Whether the last episode is over."""
        return self.over and self._episode >= self._episodes

    @property
    def decisions(self) -> int:
        """Decisions made, in all episodes together."""
        return self._decision

    @property
    def decisions_in_all(self) -> int:
        """Decisions in all episodes together, if none diverges; the frozen start is none of them."""
        config = self.layer_tying.config
        frozen = min(config.k, config.total_steps - 1)
        return self._episodes * math.ceil((config.total_steps - frozen) / config.k)

    @property
    def train_step(self) -> int:
        """Training steps done in all episodes together; earlier ones count in full."""
        before = max(self._episode - 1, 0) * self.layer_tying.config.total_steps
        return before + (self.layer_tying.train_step if self._episode else 0)

    def reset(self, tying: IntVector | None) -> tuple[IntVector, dict[str, Any]]:
        """Begin the next episode, with this tying or (None) as the environment begins."""
        if self._episode:
            self._tokens += self.layer_tying.trainer.tokens
        seed = self._seed if self._episode == 0 else None
        self.observation, info = self.env.reset(seed=seed, options=None if tying is None else {"tying": tying})
        self._episode += 1
        self._best, self.over = float("inf"), False
        self.directory.append(traces.TRACE, traces.header(len(self.observation), tying))
        return self.observation, info

    def step(self, action: IntVector) -> Step:
        """Step the environment, and measure how long it takes.

        Raises:
            tying_env.episode.Stopped: the environment was asked to stop; the same step goes on later.
        """
        self.action = np.asarray(action)
        started = time.perf_counter()
        try:
            following, reward, terminated, truncated, info = self.env.step(action)
        finally:
            self._seconds += time.perf_counter() - started
        self._decision += 1
        self.over, self.diverged = terminated or truncated, bool(info["diverged"])
        self._result = float(reward), info
        self.observation = following
        self.directory.append(traces.TRACE, traces.line(self.layer_tying.tied_at, info["tying"]))
        if self.over:
            self.directory.append(traces.TRACE, traces.end(self.layer_tying.train_step))
        return following, float(reward), terminated, truncated, info

    def record(self, metrics: dict[str, float]) -> None:
        """Write down the last step, with what the controller has to say of it."""
        assert self._result is not None, "record() follows step()"
        (reward, info), action, self.action = self._result, self.action, None
        memory = self.layer_tying.trainer.memory_in_training._asdict()
        record = {
            "episode": self._episode,
            "decision": self._decision,
            "action": action,
            "reward": reward,
            **info,
            "storages": len(self.layer_tying.trainer.tied.owners()),
            "learning_rate": self.layer_tying.trainer.learning_rate,
            "gradient_norm": self.layer_tying.trainer.gradient_norm,
            **metrics,
            **{f"{kind}_bytes": n for kind, n in memory.items()},
            # Of several processes: the gradients that each gives into the average in a training step.
            **({"exchanged_bytes": sent} if (sent := self.layer_tying.trainer.bytes_exchanged) else {}),
        }
        self.directory.append_json(METRICS, record)
        if info["validation_perplexity"] < self._best:
            self._best = info["validation_perplexity"]
            self._save(BEST)
        shown = record | {"train_step": self.train_step}
        if self.curves is not None:
            self.curves.add(shown, self._speed())
        self.observer.decided(shown, self._speed())

    def checkpoint_if_due(self, controller_state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint every so many decisions, but none of a run that diverged or is about to be concluded."""
        due = self._checkpoint_every and self._decision % self._checkpoint_every == 0
        if due and not (self.diverged or self.finished):
            self.checkpoint(controller_state())

    def checkpoint(self, controller_state: dict[str, Any]) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it cannot be written; the earlier ones are whole.
        """
        own = {name: getattr(self, f"_{name}") for name in _COUNTERS}
        state: dict[str, Any] = {
            "env": self.layer_tying.state_dict(copy=False),
            "wrappers": wrapper_states(self.env),
            "controller": controller_state,
            "recorder": {**own, "seconds": self._seconds, "best": self._best, "action": self.action},
        }
        self._checkpoints.write(state, state["env"]["validation_perplexity"], self._episode)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring environment, wrappers and counters to where a checkpoint was taken.

        Raises:
            ValueError: the state does not fit.
        """
        own = state["recorder"]
        for name, value in zip(_COUNTERS, (self._episodes, self.decisions_in_all, 2**63), strict=True):
            if type(own[name]) is not int or not 0 <= own[name] <= value:
                raise ValueError(f"the recorder's {name} must be a whole number up to {value}, got {own[name]!r}")
        numbers = own["seconds"], math.inf if own["best"] is None else own["best"]
        if not all(type(n) is float and n >= 0 for n in numbers):
            raise ValueError(f"the recorder's seconds and best perplexity cannot be {numbers}")
        n_units = self.layer_tying.config.n_units
        action = None if own["action"] is None else validate_action(own["action"], n_units)
        self.observation, _ = self.env.reset(options={"state": state["env"]})
        load_wrapper_states(self.env, state["wrappers"])
        for name in _COUNTERS:
            setattr(self, f"_{name}", own[name])
        self._seconds, self._best = numbers
        self.action, self.over = action, self.layer_tying.over

    def conclude(self, stopped: str) -> str:
        """Save the network, draw its map, sum up; return how the run ended.

        Args:
            stopped: the status if the run was stopped before its end.
        """
        env = self.layer_tying
        status = "diverged" if self.diverged and self.finished else "finished" if self.finished else stopped
        self._save(FINAL)
        tying, step = env.trainer.tied.tying, env.train_step
        figure = replication_map_figure(tying, f"Replication map at training step {step}")
        with written_whole(self.directory.path / MAP) as unfinished:
            figure.savefig(unfinished, format="png")
        self._summary = {
            "status": status,
            "episodes": self._episode,
            "decisions": self._decision,
            "train_step": step,
            "best_validation_perplexity": self._best,
            "test": None,
            "parameters_conventional": env.trainer.count_conventional(),
            "bytes_conventional": env.trainer.count_conventional_bytes(),
            "seconds": self._seconds,
            "tokens_per_second": self._speed(),
            "peak_process_bytes": _peak_process_bytes(),
        }
        self.directory.write_json(SUMMARY, self._summary)
        return status

    def measure_test(self) -> None:
        """Measure the final network and the best one on the test split, and add that to the summary."""
        if self._test_windows is None:
            return
        self.observer.note("Measuring on the test split ...")
        self.directory.write_json(SUMMARY, self._summary | {"test": self._test(self._test_windows)})

    def _speed(self) -> float:
        tokens = self._tokens + self.layer_tying.trainer.tokens
        return float(tokens / self._seconds) if self._seconds else 0.0

    def _save(self, name: str) -> None:
        env = self.layer_tying
        save_network(self.directory.path / name, env.trainer, env.config, env.workload.sizes)

    def _test(self, test_windows: int) -> dict[str, Any]:
        """Measure the final network and the one with the best validation perplexity on the test split."""
        env, best = self.layer_tying, None
        final = env.evaluate("test", test_windows)
        if np.isfinite(self._best):
            model = load_network(self.directory.path / BEST, env.device, env.workload).network.model
            best = env.workload.evaluate(model, "test", test_windows, env.device)
        return {"final": final._asdict(), "best": None if best is None else best._asdict()}


def _peak_process_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
