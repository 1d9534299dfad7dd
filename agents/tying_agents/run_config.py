"""The settings of one run: from the command line, and back from the config.json of a run."""

import dataclasses
import json
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tying_agents.controllers_by_name import ControllerName, PatternConfig
from tying_agents.controllers.dqn import DQNConfig
from tying_agents.sb3.agent import SB3Config, SB3Name
from tying_agents.controllers.search import SearchConfig
from tying_env.config import PLACE_SETTINGS, EnvConfig
from tying_env.files import to_json
from tying_env.seeding import check_seed

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
    parameter_penalty: float = 1.0
    """Lambda of --rewards parameter-penalty: what conventional training's parameters cost, in units of the reward."""
    run_dir: Path | None = None
    """Folder for the results; the default is runs/<time>-<agent>-seed<seed>. It must not exist yet."""
    label: str | None = None
    """Name of this run's arm in a comparison; the default is the agent's name."""
    checkpoint_every: int = 25
    """Decisions between two checkpoints, from which --resume goes on; 0: only when the run is stopped or over."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep; the one with the best validation perplexity is kept beside them."""
    test_windows: int = 128
    """Sequences (or images) of the test split to measure at the end; 0 for the whole split."""
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
        if self.checkpoint_every < 0:
            raise ValueError(f"checkpoint_every must be at least 0, got {self.checkpoint_every!r}")
        if self.keep_checkpoints < 1:
            raise ValueError(f"keep_checkpoints must be at least 1, got {self.keep_checkpoints!r}")
        for name in self.rewards:
            if name not in get_args(RewardName):
                raise ValueError(f"rewards must be among {', '.join(get_args(RewardName))}, got {name!r}")
        _check_order(self.rewards)
        if not 0 <= self.parameter_penalty < float("inf"):
            raise ValueError(f"parameter_penalty must be a finite number of at least 0, got {self.parameter_penalty!r}")


def _check_order(rewards: Sequence[RewardName]) -> None:
    """Refuse rewards of which one would undo another, or be undone.

    Raises:
        ValueError: there are some.
    """
    for i, name in enumerate(rewards):
        if name in rewards[:i]:
            raise ValueError(f"rewards must be different ones, got {name!r} twice")
    if "probe" in rewards[1:]:
        raise ValueError(f"rewards: 'probe' must come first: it takes the place of {rewards[0]!r} before it")
    if "log-perplexity" in rewards and (below := rewards[: rewards.index("log-perplexity")]) not in ((), ("probe",)):
        raise ValueError(f"rewards: 'log-perplexity' needs a perplexity below it, not {below[-1]!r}")


def agent_names() -> tuple[str, ...]:
    """Return the names of all agents."""
    return (*get_args(ControllerName), *get_args(SB3Name))


# These change where a run is kept and computed, not what comes of it: a resumed run may have others. (Its folder is
# where it is found.)
FREE = ("run_dir", "checkpoint_every", "keep_checkpoints", *(f"env.{name}" for name in PLACE_SETTINGS))


def saved_config(about: dict[str, Any]) -> RunConfig:
    """Return the settings that a run's config.json holds.

    Raises:
        ValueError: something is missing or wrong; the message names it.
    """
    return _from_json(RunConfig, about, "")


def differences(saved: RunConfig, asked: RunConfig) -> list[str]:
    """Return the settings that decide what comes of a run and are not the same, a line each."""
    return listed(dataclasses.asdict(saved), dataclasses.asdict(asked), FREE)


def listed(there: dict[str, Any], here: dict[str, Any], but: Sequence[str] = ()) -> list[str]:
    """Return in what two nested dictionaries differ, a line each; what one of them lacks is None."""
    theirs, mine = _flat(there), _flat(here)
    return [
        f"{name} is {theirs.get(name)!r} there, {mine.get(name)!r} here"
        for name in mine | theirs
        if name not in but and mine.get(name) != theirs.get(name)
    ]


def differences_to_config(about: dict[str, Any], asked: RunConfig, but: Sequence[str] = ()) -> list[str]:
    """Return the settings in which a run's config.json differs from what is asked for now, a line each.

    A run of an earlier version does not know every setting; those it lacks must be at their defaults.

    Args:
        about: config.json.
        asked: the settings now.
        but: settings to pass over, besides those that do not decide what comes of a run.
    """
    mine, usual = (_flat(json.loads(to_json(dataclasses.asdict(each)))) for each in (asked, RunConfig()))
    theirs = {name: value for name, value in (usual | _flat(about)).items() if name in mine}
    return listed(theirs, mine, (*FREE, *but))


T = TypeVar("T")


def _from_json(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'the settings'} must be an object, got {values!r}")
    assert dataclasses.is_dataclass(kind)
    hints, settings = get_type_hints(kind), {}
    for each in dataclasses.fields(kind):
        if each.name not in values:
            raise ValueError(f"the setting {where}{each.name} is missing")
        settings[each.name] = _value(hints[each.name], values[each.name], f"{where}{each.name}")
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the settings do not hold: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _from_json(hint, value, f"{where}.")
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if Path in allowed and isinstance(value, str):
        return Path(value)
    return value


def _flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return flat
