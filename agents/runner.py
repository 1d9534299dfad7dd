"""Drives one controller through one environment into one run directory."""

import dataclasses
import importlib.metadata
import platform
import resource
import subprocess
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from agents.base import Controller, Transition
from agents.controllers import AgentName, make_controller
from agents.factorized_dqn import DQNConfig
from agents.interrupt import Interrupt
from tying_env.config import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.partition import IntVector
from tying_env.primary.evaluation import Evaluation, evaluate
from tying_env.render import replication_map_figure
from tying_env.runs import RunDirectory, load_network, save_network
from tying_env.runs.run_directory import BEST, CONFIG, FINAL, MAP, SUMMARY
from tying_env.runs.tensorboard import Curves
from tying_env.seeding import check_seed

ENV_ID = "LayerTying-GPT2-v0"


@dataclass(frozen=True)
class RunConfig:
    """One run: which controller, on which environment, into which folder.

    Raises:
        ValueError: a setting is outside its range.
    """

    agent: AgentName = "dqn"
    """The controller: the paper's DQN, uniformly random actions, or a fixed pattern of tying."""
    seed: int = 0
    """Seed of everything random in the run: weights, data order, dropout, exploration."""
    run_dir: Path | None = None
    """Folder for the results; the default is runs/<time>-<agent>-seed<seed>. It must not exist yet."""
    test_windows: int = 128
    """Sequences of the test split to measure at the end, spread evenly; 0 for the whole split."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The environment."""
    dqn: DQNConfig = field(default_factory=DQNConfig)
    """The DQN; other agents pass it over."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.test_windows < 0:
            raise ValueError(f"test_windows must be at least 0, got {self.test_windows!r}")


class Observer(Protocol):
    """Is told how the run goes; see agents.progress."""

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Take note of one decision, the record that went to metrics.jsonl."""
        ...

    def note(self, text: str) -> None:
        """Take note of something worth saying."""
        ...


def run(config: RunConfig, observer: Observer) -> tuple[RunDirectory, str]:
    """Train one primary network under one controller, and leave a run directory.

    Ctrl-C ends the run after the decision in progress; what was recorded stays, and the network is saved.

    Returns:
        The run directory, and how the run ended: "finished", "diverged" or "interrupted".

    Raises:
        ValueError, TypeError: a setting is wrong; nothing has been written then.
        FileExistsError: the run directory exists.
        OSError: the disk is full, say; what was written before is whole.
    """
    # Everything that can be wrong with the settings shows before anything is written.
    env = gym.make(ENV_ID, **dataclasses.asdict(config.env))
    layer_tying = env.unwrapped
    assert isinstance(layer_tying, LayerTyingEnv)
    controller = make_controller(config.agent, config.env.n_layer, config.seed, config.dqn)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{config.agent}-seed{config.seed}"
    directory = RunDirectory.create(config.run_dir or Path("runs") / name)
    directory.write_json(CONFIG, describe(config))

    with Interrupt(observer.note) as interrupt, Curves(directory.path, config.env) as curves:
        seconds, best = 0.0, float("inf")
        options = None if (tying := controller.initial_tying()) is None else {"tying": tying}
        observation, info = env.reset(seed=config.seed, options=options)
        decision, over = 0, False
        while not over and not interrupt.asked:
            # 1. Decide, tie, train, measure.
            action = controller.act(observation)
            started = time.perf_counter()
            following, reward, terminated, truncated, info = env.step(action)
            elapsed = time.perf_counter() - started
            # 2. Learn.
            controller.update(Transition(observation, action, float(reward), following, terminated))
            # 3. Record.
            decision += 1
            seconds += elapsed
            record = _record(decision, action, float(reward), info, controller, layer_tying)
            directory.append_metrics(record)
            if info["validation_perplexity"] < best:
                best = info["validation_perplexity"]
                save_network(directory.path / BEST, *_network_of(layer_tying))
            speed = info["tokens"] / seconds
            curves.add(record, speed)
            observer.decided(record, speed)
            observation, over = following, terminated or truncated
        # 4. Conclude.
        save_network(directory.path / FINAL, *_network_of(layer_tying))
        figure = replication_map_figure(observation, f"{config.agent}, training step {info['train_step']}")
        figure.savefig(directory.path / MAP, format="png")
        status = "interrupted" if not over else "diverged" if info["diverged"] else "finished"
        summary = {
            "status": status,
            "decisions": decision,
            "train_step": info["train_step"],
            "best_validation_perplexity": best,
            "test": _test(layer_tying, directory, config) if status == "finished" else None,
            "parameters_conventional": layer_tying.trainer.count_conventional(),
            "seconds": seconds,
            "tokens_per_second": info["tokens"] / seconds if seconds else None,
            "peak_process_bytes": _peak_process_bytes(),
        }
        directory.write_json(SUMMARY, summary)
    env.close()
    return directory, status


def _record(
    decision: int, action: IntVector, reward: float, info: dict[str, Any], controller: Controller, env: LayerTyingEnv
) -> dict[str, Any]:
    memory = env.trainer.memory_in_training._asdict()
    return {
        "decision": decision,
        "action": action,
        "reward": reward,
        **info,
        **controller.metrics(),
        **{f"{kind}_bytes": n for kind, n in memory.items()},
    }


def _network_of(env: LayerTyingEnv) -> tuple[Any, EnvConfig, int]:
    return env.trainer, env.config, env.corpus.tokenizer.vocab_size


def _test(env: LayerTyingEnv, directory: RunDirectory, config: RunConfig) -> dict[str, Any]:
    """Measure the final network and the one with the best validation perplexity on the test split."""
    final = env.evaluate("test", config.test_windows)
    best: Evaluation | None = None
    if (directory.path / BEST).exists():
        windows = env.windows("test", config.test_windows)
        model, task = load_network(directory.path / BEST, env.device).network.model, env.trainer.task
        best = evaluate(model, task, windows, config.env.batch_size, env.device, env.corpus.tokenizer.byte_lengths)
    return {"final": final._asdict(), "best": None if best is None else best._asdict()}


def describe(config: RunConfig) -> dict[str, Any]:
    """Return every setting with what it takes to understand the numbers later: versions, commit, machine."""
    packages = ("tying-env", "torch", "transformers", "gymnasium", "numpy", "tiktoken", "safetensors")
    return {
        **dataclasses.asdict(config),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
        "platform": platform.platform(),
    }


def _git_commit() -> str | None:
    """Return the commit of the source tree, with "+changes" if it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


def _peak_process_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
