"""The settings of one run: one frozen dataclass, from which the command line is made."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tying_agents.registry import find_agent
from tying_env.config import EnvConfig
from tying_env.plugins import is_import_string
from tying_env.seeding import check_seed
from tying_env.wrappers import WRAPPERS
from tying_env.wrappers.interval import check_intervals

# The names of wrappers that change the reward and nothing else.
_OF_REWARDS = ("tying_env.wrappers.rewards", "tying_env.wrappers.size")
REWARDS = tuple(name for name, wrapper in WRAPPERS.items() if wrapper.__module__ in _OF_REWARDS)
# Options of a run that a wrapper reads -> the option that names the wrapper, and its name.
_READ_BY = {
    "parameter_penalty": ("rewards", "parameter-penalty"),
    "max_bytes": ("rewards", "max-bytes"),
    "max_bytes_bits": ("rewards", "max-bytes"),
    "max_bytes_penalty": ("rewards", "max-bytes"),
    "max_changes": ("wrappers", "limit-changes"),
    "settle_after": ("wrappers", "settle"),
    "intervals": ("wrappers", "choose-interval"),
    "longest_interval": ("wrappers", "interval-doubling"),
}


@dataclass(frozen=True)
class RunConfig:
    """One run: which agent, on which environment, into which folder.

    Raises:
        ValueError: a setting is outside its range.
        TypeError: `controller` has not the settings of this agent.
        FileNotFoundError, ImportError, tying_env.plugins.ForeignCodeError: the agent is code of the user's own, and it
            cannot be had.
    """

    agent: str = "dqn"
    """Who chooses the tying: the name of an agent, or your own by import string, path/to/file.py:Class or
    package.module:Class; an algorithm of Stable-Baselines3 likewise (sb3_contrib:TRPO)."""
    seed: int = 0
    """Seed of everything random in the run: weights, data order, dropout, exploration."""
    episodes: int = 1
    """Training runs, one after the other, that the agent learns over; networks and results are of the last."""
    rewards: tuple[str, ...] = ()
    """Wrappers that change the reward, innermost first: log-perplexity, improvement, clipped, probe, parameter-penalty,
    max-bytes, shuffled (the control whose rewards mean nothing), or your own: path/to/file.py:Class."""
    parameter_penalty: float = 1.0
    """Lambda of --rewards parameter-penalty: what conventional training's parameters cost, in units of the reward."""
    max_bytes: int = 16_000_000
    """Of --rewards max-bytes: what the network's weights may take, each once; beyond it the reward falls."""
    max_bytes_bits: int = 8
    """Of --rewards max-bytes: bits of a weight in a matrix, 8, 6 or 4."""
    max_bytes_penalty: float = 1.0
    """Lambda of --rewards max-bytes: what each time the limit beyond it costs, in units of the reward."""
    wrappers: tuple[str, ...] = ()
    """Other wrappers, around those of --rewards, innermost first: a name in tying_env.wrappers.WRAPPERS, or your own:
    path/to/file.py:Class."""
    max_changes: int = 1
    """Of --wrappers limit-changes: at most so many entries of the tying change at a decision."""
    settle_after: float = 0.66
    """Of --wrappers settle: after this share of the training steps the tying stays as it is."""
    intervals: tuple[int, ...] = (1, 5, 15, 50)
    """Of --wrappers choose-interval: the numbers of training steps that a decision chooses from, in place of --k."""
    longest_interval: int = 50
    """Of --wrappers interval-doubling: training steps double from one decision to the next, from 1 up to this."""
    callbacks: tuple[str, ...] = ()
    """Callbacks that are told how the run goes: path/to/file.py:Class, package.module:Class."""
    run_dir: Path | None = None
    """Folder for the results; the default is runs/<time>-<agent>-seed<seed>. It must not exist yet."""
    label: str | None = None
    """Name of this run's arm in a comparison; the default is the agent's name."""
    checkpoint_every: int = 25
    """Decisions between two checkpoints, from which --resume continues; 0: only when the run is stopped or over."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep; the one with the best validation perplexity is kept beside them."""
    test_windows: int = 128
    """Sequences (or images) of the test split to measure at the end; 0 for the whole split."""
    measure_test: bool = True
    """Measure on the test split at the end. Runs that choose settings leave it alone."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The environment."""
    controller: object = None
    """Settings of the agent; its own defaults where none are given."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        self._check_controller()
        for name, least in (
            ("episodes", 1),
            ("test_windows", 0),
            ("checkpoint_every", 0),
            ("keep_checkpoints", 1),
            ("max_bytes", 1),
            ("max_changes", 1),
            ("longest_interval", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        for option in ("rewards", "wrappers", "callbacks"):
            given = getattr(self, option)
            if not (isinstance(given, tuple) and all(isinstance(name, str) for name in given)):
                raise TypeError(f"{option} must be a tuple of names, got {given!r}")
        for option, known in (("rewards", REWARDS), ("wrappers", tuple(WRAPPERS)), ("callbacks", ())):
            for name in getattr(self, option):
                if name not in known and not is_import_string(name):
                    choices = f"among {', '.join(known)}, or import strings" if known else "import strings"
                    raise ValueError(f"{option} must be {choices}, path/to/file.py:Name, got {name!r}")
        _check_order(self.rewards)
        if not 0 <= self.settle_after <= 1:
            raise ValueError(
                f"settle_after must be a share of the training steps, from 0 to 1, got {self.settle_after!r}"
            )
        if "choose-interval" in self.wrappers:
            check_intervals(self.intervals, self.env.total_steps)
        if self.max_bytes_bits not in (8, 6, 4):
            raise ValueError(f"max_bytes_bits must be one of 8, 6, 4, got {self.max_bytes_bits!r}")
        if not 0 <= self.max_bytes_penalty < float("inf"):
            raise ValueError(f"max_bytes_penalty must be a finite number of at least 0, got {self.max_bytes_penalty!r}")
        if not 0 <= self.parameter_penalty < float("inf"):
            raise ValueError(f"parameter_penalty must be a finite number of at least 0, got {self.parameter_penalty!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Settings of a user's own class are rebuilt from their values: another process finds the class by its import
        # string, not under the name that it happens to have here.
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        values["controller"] = dataclasses.asdict(self.controller)  # type: ignore[call-overload]
        return functools.partial(_remade, type(self)), (values,)

    @property
    def name(self) -> str:
        """The agent's name, short enough for a folder: of an import string what is behind the colon."""
        return short_name(self.agent)

    def foreign(self) -> list[tuple[str, str]]:
        """Return (option, import string) for everything that is code of the user's own."""
        single = [("agent", self.agent), ("model", self.env.model)]
        several = [(option, name) for option in ("rewards", "wrappers", "callbacks") for name in getattr(self, option)]
        return [(option, name) for option, name in (*single, *several) if is_import_string(name)]

    def foreign_options(self) -> list[str]:
        """Return the options that name code of the user's own, with all their values, as words of a command line."""
        words: list[str] = []
        for option in dict.fromkeys(option for option, _ in self.foreign()):
            value = self.env.model if option == "model" else getattr(self, option)
            words += [f"--{option}", *([value] if isinstance(value, str) else value)]
        return words

    def _check_controller(self) -> None:
        settings = find_agent(self.agent).settings
        if self.controller is None:
            object.__setattr__(self, "controller", settings())
        elif not isinstance(self.controller, settings):
            raise TypeError(
                f"the agent {self.agent!r} takes settings of the class {settings.__name__}, got {self.controller!r}"
            )


def refuse_unread(configs: Sequence[RunConfig]) -> None:
    """Refuse an option of a wrapper that none of these runs has; of several runs one that reads it is enough.

    Raises:
        ValueError: there is one; the message names it and what would read it.
    """
    for each in dataclasses.fields(RunConfig):
        option, name = _READ_BY.get(each.name, ("", ""))
        if not name or any(name in getattr(config, option) for config in configs):
            continue
        for config in configs:
            if (value := getattr(config, each.name)) != each.default:
                raise ValueError(
                    f"{each.name} applies only to --{option} {name}: name that, too, or leave it out, got {value!r}"
                )


def short_name(agent: str) -> str:
    """Return an agent's name; of an import string what is behind the colon."""
    return agent.rpartition(":")[2] if is_import_string(agent) else agent


def with_agent(config: RunConfig, agent: str, controller: object = None) -> RunConfig:
    """Return the settings with another agent, and its settings; its defaults where none are given."""
    return dataclasses.replace(config, agent=agent, controller=controller)


def _remade(kind: type[RunConfig], values: dict[str, Any]) -> RunConfig:
    settings = find_agent(values["agent"]).settings
    return kind(**values | {"controller": settings(**values["controller"])})


def _check_order(rewards: Sequence[str]) -> None:
    """Refuse rewards of which one would undo another, or be undone.

    Raises:
        ValueError: there are some.
    """
    for i, name in enumerate(rewards):
        if name in rewards[:i]:
            raise ValueError(f"rewards must be different ones, got {name!r} twice")
    if "probe" in rewards[1:]:
        raise ValueError(f"rewards: 'probe' must come first: it takes the place of {rewards[0]!r} before it")
    below = rewards[: rewards.index("log-perplexity")] if "log-perplexity" in rewards else ()
    if unfit := [name for name in below if name in REWARDS and name != "probe"]:
        raise ValueError(f"rewards: 'log-perplexity' needs a perplexity below it, not {unfit[-1]!r}")
