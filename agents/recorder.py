"""Steps an environment and writes down what happens: the one place where a run directory is filled."""

import platform
import time
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from agents import traces
from tying_env.env import LayerTyingEnv
from tying_env.files import written_whole
from tying_env.partition import IntVector
from tying_env.render import replication_map_figure
from tying_env.runs import RunDirectory, load_network, save_network
from tying_env.runs.run_directory import BEST, FINAL, MAP, SUMMARY
from tying_env.runs.tensorboard import Curves

Step = tuple[IntVector, float, bool, bool, dict[str, Any]]


class Observer(Protocol):
    """Is told how the run goes; see agents.progress."""

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Take note of one decision, the record that went to metrics.jsonl."""
        ...

    def note(self, text: str) -> None:
        """Take note of something worth saying."""
        ...


class Recorder:
    """Records the episodes of one environment in one run directory.

    `reset`, then `step` and `record` for each decision, then `conclude`. Episodes follow each other in the same files;
    the networks and the test results are those of the last one.

    Args:
        env: a LayerTyingEnv, perhaps in wrappers that change its reward.
        directory: where to write.
        curves: TensorBoard events.
        observer: is told of every decision.
        seed: of the first episode; those after it follow from it.
        episodes: how many there will be.
        test_windows: sequences of the test split to measure at the end; 0 for all, None to leave it alone.
    """

    def __init__(
        self,
        env: gym.Env[IntVector, IntVector],
        directory: RunDirectory,
        curves: Curves,
        observer: Observer,
        *,
        seed: int,
        episodes: int,
        test_windows: int | None,
    ) -> None:
        unwrapped = env.unwrapped
        assert isinstance(unwrapped, LayerTyingEnv)
        self.env = env
        self.layer_tying: LayerTyingEnv = unwrapped
        self.directory = directory
        self._curves = curves
        self._observer = observer
        self._seed = seed
        self._episodes = episodes
        self._test_windows = test_windows
        self._episode = 0  # the running one, counted from 1
        self._decision = 0
        self._seconds = 0.0
        self._tokens = 0  # of the episodes before this one
        self._best = float("inf")
        self._info: dict[str, Any] = {}
        self._pending: tuple[IntVector, float, dict[str, Any]] | None = None
        self._over = False

    @property
    def finished(self) -> bool:
        """Whether the last episode is over."""
        return self._over and self._episode >= self._episodes

    def reset(self, tying: IntVector | None) -> tuple[IntVector, dict[str, Any]]:
        """Begin the next episode, with this tying or (None) as the environment begins."""
        if self._episode:
            self._tokens += self._info["tokens"]
        seed = self._seed if self._episode == 0 else None
        observation, self._info = self.env.reset(seed=seed, options=None if tying is None else {"tying": tying})
        self._episode += 1
        self._best, self._over = float("inf"), False
        self.directory.append(traces.TRACE, traces.header(len(observation), tying))
        return observation, self._info

    def step(self, action: IntVector) -> Step:
        """Step the environment, and measure how long it takes."""
        started = time.perf_counter()
        following, reward, terminated, truncated, info = self.env.step(action)
        self._seconds += time.perf_counter() - started
        self._decision += 1
        self._info, self._over = info, terminated or truncated
        self._pending = (np.asarray(action), float(reward), info)
        self.directory.append(traces.TRACE, traces.line(self.layer_tying.tied_at, info["tying"]))
        return following, float(reward), terminated, truncated, info

    def record(self, metrics: dict[str, float]) -> None:
        """Write down the last step, with what the controller has to say of it."""
        assert self._pending is not None, "record() follows step()"
        action, reward, info = self._pending
        memory = self.layer_tying.trainer.memory_in_training._asdict()
        record = {
            "episode": self._episode,
            "decision": self._decision,
            "action": action,
            "reward": reward,
            **info,
            "storages": len(self.layer_tying.trainer.tied.owners()),
            **metrics,
            **{f"{kind}_bytes": n for kind, n in memory.items()},
        }
        self.directory.append_metrics(record)
        if info["validation_perplexity"] < self._best:
            self._best = info["validation_perplexity"]
            self._save(BEST)
        steps_before = (self._episode - 1) * self.layer_tying.config.total_steps
        shown = record | {"train_step": steps_before + info["train_step"]}
        self._curves.add(shown, self._speed())
        self._observer.decided(shown, self._speed())

    def conclude(self) -> str:
        """Save the network, draw its map, sum up; return how the run ended.

        Returns:
            "finished", "diverged" (in the last episode) or "interrupted".
        """
        info, env = self._info, self.layer_tying
        status = "interrupted" if not self.finished else "diverged" if info["diverged"] else "finished"
        self._save(FINAL)
        figure = replication_map_figure(info["tying"], f"Replication map at training step {info['train_step']}")
        with written_whole(self.directory.path / MAP) as unfinished:
            figure.savefig(unfinished, format="png")
        self._summary = {
            "status": status,
            "episodes": self._episode,
            "decisions": self._decision,
            "train_step": info["train_step"],
            "best_validation_perplexity": self._best,
            "test": None,
            "parameters_conventional": env.trainer.count_conventional(),
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
        self._observer.note("Measuring on the test split ...")
        self.directory.write_json(SUMMARY, self._summary | {"test": self._test(self._test_windows)})

    def _speed(self) -> float:
        return float((self._tokens + self._info["tokens"]) / self._seconds) if self._seconds else 0.0

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
