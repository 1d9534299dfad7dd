"""The agents by name: the one door through which a controller comes in, built-in ones and strangers alike.

    register("mine", "my_package.my_module:MyController")     # by name, from then on
    find_agent("my_folder/my_controller.py:MyController")     # by import string, as --agent takes it

An installed package can also name its agents in the entry point group "layer_tying.agents". What is registered is an
import string, so that nothing is imported before it is used.
"""

import contextlib
import dataclasses
import difflib
import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tying_agents import settings
from tying_agents.controllers.base import Context, Controller, check_needs
from tying_env.config.checks import check_type
from tying_env.plugins import foreign_code, is_import_string, load_object

ENTRY_POINTS = "layer_tying.agents"
# The base class of all algorithms of Stable-Baselines3 and its contributions.
_SB3_BASE = ("stable_baselines3.common.base_class", "BaseAlgorithm")

Kind = Literal["controller", "sb3"]

# What an import string must lead to, in the words of error messages.
_EXPECTED = "a Controller class, a function (settings, context) -> Controller or an algorithm of Stable-Baselines3"


@dataclass(frozen=True)
class Agent:
    """An agent that can be run.

    Attributes:
        name: on the command line.
        target: import string of a `Controller` class, of a function (settings, context) -> Controller, or of an
            algorithm of Stable-Baselines3.
        settings: the dataclass of its settings.
        kind: a controller, or an algorithm of Stable-Baselines3, which drives the environment itself.
        foreign: whether it is code of the user's own, named by import string.
    """

    name: str
    target: str
    settings: type
    kind: Kind = "controller"
    foreign: bool = False

    @property
    def static(self) -> bool:
        """Whether it is a built-in agent whose tying is the same from the first training step to the last."""
        return self.name in _STATIC and not self.foreign

    @property
    def light(self) -> bool:
        """Whether it is made without torch: a pattern or a trace."""
        rooms = ("fixed", "rules", "traces")
        return self.target.startswith(tuple(f"{CONTROLLERS}.{room}:" for room in rooms))

    def goes_by_length(self, chosen: Any) -> bool:
        """Return whether it is a controller that says it decides otherwise in a longer run.

        Args:
            chosen: its settings.

        Raises:
            ValueError, ImportError, tying_env.plugins.ForeignCodeError: it cannot be had.
        """
        made = self.load()
        return isinstance(made, type) and issubclass(made, Controller) and bool(made.goes_by_length(chosen))

    def load(self) -> Any:
        """Return the class or function.

        Raises:
            ValueError, ImportError, tying_env.plugins.ForeignCodeError: it cannot be had.
        """
        try:
            return load_object(self.target, _EXPECTED)
        except ModuleNotFoundError as error:
            if self.foreign or self.kind != "sb3":
                raise
            package = self.target.partition(":")[0]
            raise ImportError(f"the agent {self.name!r} needs {package}: pip install 'tying-env[sb3]'") from error

    def make(self, chosen: Any, context: Context) -> Controller:
        """Return a new controller.

        Raises:
            ValueError, TypeError, FileNotFoundError: its settings do not suit the run.
            tying_env.plugins.ForeignCodeError: code of the user's own failed.
        """
        for field in dataclasses.fields(chosen):
            if not _is_finite(value := getattr(chosen, field.name)):
                raise ValueError(f"the setting {field.name!r} of the agent {self.name!r} must be finite, got {value!r}")
        target = self.load()
        make: Callable[[Any, Context], Any] = getattr(target, "create", target)
        with foreign_code(self.target, "while the controller was made") if self.foreign else contextlib.nullcontext():
            made = make(chosen, context)
        if not isinstance(made, Controller):
            raise TypeError(f"the agent {self.name!r} must make a Controller, got {type(made).__name__}")
        check_needs(made, f"the agent {self.name!r}")
        return made


CONTROLLERS = "tying_agents.controllers"
_STATIC = frozenset(
    {
        *("conventional", "albert", "cycle", "cycle-rev", "sequence", "contiguous", "periodic", "sandwich", "pattern"),
        *("shared-attention", "shared-feed-forward", "random-static", "prior", "pretrained-dqn"),
    }
)
_agents: dict[str, Agent] = {}


def register(name: str, target: str, settings: type | None = None) -> None:
    """Make an agent known by a name.

    Args:
        name: for --agent.
        target: its import string, "package.module:Name".
        settings: the dataclass of its settings; by default it is asked for, which imports it now.

    Raises:
        ValueError: the name is taken by another target, or cannot be one.
        TypeError: the settings are no dataclass whose fields have defaults, or are of types that files cannot hold.
    """
    if not name or set(name) & set(":/\\+, ") or name.startswith("-"):
        raise ValueError(f"an agent's name must be one word without ':', '/', '+' or ',', got {name!r}")
    if name in _agents and _agents[name].target != target:
        raise ValueError(f"the agent {name!r} is registered already, as {_agents[name].target}; choose another name")
    _agents[name] = _agent(name, target, settings)


def agent_names() -> tuple[str, ...]:
    """Return the names of all agents, those of installed packages at the end."""
    return (*_agents, *(name for name in _entry_points() if name not in _agents))


def find_agent(name: str) -> Agent:
    """Return an agent by its name or import string.

    Raises:
        ValueError: there is no such agent; or it is no agent.
        TypeError: its settings are no dataclass whose fields have defaults, or are of types that files cannot hold.
        FileNotFoundError, ImportError, tying_env.plugins.ForeignCodeError: its code cannot be had.
    """
    if name in _agents:
        return _agents[name]
    if is_import_string(name):
        return dataclasses.replace(_agent(name, name, None), foreign=True)
    if (target := _entry_points().get(name)) is not None:
        return dataclasses.replace(_agent(name, target, None), foreign=True)
    if ":" in name or ".py" in name:
        raise ValueError(_as_import_string(name))
    near = difflib.get_close_matches(name, agent_names(), 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(
        f"agent must be one of {', '.join(agent_names())}, or an import string, path/to/file.py:Class or "
        f"package.module:Class, got {name!r}{hint}"
    )


def owner_of(option: str) -> list[str]:
    """Return the names of the registered agents that have a setting of this name."""
    fields = {name: {field.name for field in dataclasses.fields(agent.settings)} for name, agent in _agents.items()}
    return [name for name, names in fields.items() if option in names]


def _as_import_string(name: str) -> str:
    """Return what is wrong with an import string that is none."""
    end = name.find(".py") + 3 if ".py" in name else name.find(":")
    where = name if end < 0 else name[:end]
    first = name[len(where) :].removeprefix(":").partition(":")[0].partition(".")[0]
    said = "name one class, behind one colon" if first else "name the class too"
    return (
        "agent must be an import string, path/to/file.py:Class or package.module:Class, or the name of an agent, "
        f"got {name!r}; {said}: {where}:{first if first.isidentifier() else 'MyController'}"
    )


def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _agent(name: str, target: str, given: type | None) -> Agent:
    """Return an agent after a look at its code, unless its settings are given."""
    if given is not None:
        return Agent(name, target, _checked(given, name), "sb3" if given is settings.SB3Config else "controller")
    found = load_object(target, _EXPECTED)
    if isinstance(found, type) and any((base.__module__, base.__name__) == _SB3_BASE for base in found.__mro__):
        return Agent(name, target, settings.SB3Config, "sb3")
    if isinstance(found, type) and not issubclass(found, Controller):
        raise ValueError(
            f"the agent {name!r} is the class {found.__name__}, which is neither a tying_agents.Controller nor an "
            "algorithm of Stable-Baselines3"
        )
    own = _checked(getattr(found, "Settings", settings.NoSettings), name)
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"the agent {name!r} cannot choose: the class {found.__name__} has no {missing[0]}()")
    return Agent(name, target, own)


def _checked(chosen: Any, name: str) -> type:
    """Return the class of an agent's settings, after checking that command line and files can hold them."""
    if not (isinstance(chosen, type) and dataclasses.is_dataclass(chosen)):
        raise TypeError(f"the Settings of the agent {name!r} must be a dataclass, got {chosen!r}")
    for field in dataclasses.fields(chosen):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TypeError(f"the setting {field.name!r} of the agent {name!r} must have a default")
    try:
        hints = get_type_hints(chosen)
    except Exception as error:  # whatever stands there in quotes
        raise TypeError(f"the types of the settings of the agent {name!r} cannot be had: {error}") from error
    for field in dataclasses.fields(chosen):
        if not _can_be_held(hint := hints[field.name]):
            raise TypeError(
                f"the setting {field.name!r} of the agent {name!r} must be a number, text, path, choice (Literal), "
                f"a tuple of these or None, got {_named(hint)}"
            )
        if field.default is not dataclasses.MISSING and not _fits(field.default, hint):
            raise TypeError(
                f"the setting {field.name!r} of the agent {name!r} must have a default of its type, "
                f"{_named(hint)}, and finite, got {field.default!r}"
            )
    return chosen


def _can_be_held(hint: Any) -> bool:
    """Return whether values of a type come back the same from a command line, from JSON and from TOML."""
    options = [kind for kind in _options(hint) if kind is not NoneType]
    if len(options) == 1 and get_origin(options[0]) is tuple:
        kinds = [kind for kind in get_args(options[0]) if kind is not Ellipsis]
        return len(set(kinds)) == 1 and _is_plain(kinds[0])
    # Only a path or only a text: in a file they look alike. A choice stands alone.
    alone = any(kind is Path or get_origin(kind) is Literal for kind in options)
    return all(map(_is_plain, options)) and not (alone and len(options) > 1)


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return all(type(value) in (bool, int, str) for value in get_args(hint))
    return hint in (bool, int, float, str, Path)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a file would give this value back."""
    if not _is_finite(value):
        return False
    several = next((kind for kind in _options(hint) if get_origin(kind) is tuple), None)
    if several is not None and value is not None:
        return isinstance(value, tuple) and all(_fits(each, get_args(several)[0]) for each in value)
    try:
        check_type("", value, hint)
    except ValueError:
        return False
    return True


def _is_finite(value: Any) -> bool:
    """Return whether there is no infinity in a value, and no NaN: JSON has neither."""
    if isinstance(value, tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


for _name, _target, _settings in (
    ("dqn", f"{CONTROLLERS}.dqn:FactorizedDQN", settings.DQNConfig),
    ("repaired-dqn", f"{CONTROLLERS}.dqn:FactorizedDQN", settings.RepairedDQNConfig),
    ("layer-sweep-dqn", f"{CONTROLLERS}.published:LayerSweepDQN", settings.DQNConfig),
    ("random", f"{CONTROLLERS}.fixed:RandomController", settings.NoSettings),
    ("random-static", f"{CONTROLLERS}.fixed:make_random_static", settings.GroupsConfig),
    ("random-redrawn", f"{CONTROLLERS}.fixed:RedrawnController", settings.RandomRedrawnConfig),
    ("conventional", f"{CONTROLLERS}.fixed:make_conventional", settings.NoSettings),
    ("albert", f"{CONTROLLERS}.fixed:make_albert", settings.NoSettings),
    ("cycle", f"{CONTROLLERS}.fixed:make_cycle", settings.GroupsConfig),
    ("cycle-rev", f"{CONTROLLERS}.fixed:make_cycle_rev", settings.GroupsConfig),
    ("sequence", f"{CONTROLLERS}.fixed:make_sequence", settings.GroupsConfig),
    ("contiguous", f"{CONTROLLERS}.fixed:make_contiguous", settings.GroupsConfig),
    ("halving", f"{CONTROLLERS}.halving:SuccessiveHalving", settings.HalvingConfig),
    ("probe-then-tie", f"{CONTROLLERS}.splitting:ProbeThenTie", settings.ProbeConfig),
    ("share-then-split", f"{CONTROLLERS}.splitting:ShareThenSplit", settings.SplitConfig),
    ("prior", f"{CONTROLLERS}.rules:make_prior", settings.PriorConfig),
    ("pretrained-dqn", f"{CONTROLLERS}.pretrained:make_pretrained", settings.PretrainedConfig),
    ("periodic", f"{CONTROLLERS}.fixed:make_periodic", settings.PeriodicConfig),
    ("shared-attention", f"{CONTROLLERS}.fixed:make_shared_attention", settings.SharedConfig),
    ("shared-feed-forward", f"{CONTROLLERS}.fixed:make_shared_feed_forward", settings.SharedConfig),
    ("sandwich", f"{CONTROLLERS}.fixed:make_sandwich", settings.SandwichConfig),
    ("pattern", f"{CONTROLLERS}.fixed:make_pattern", settings.PatternConfig),
    ("hill-climbing", f"{CONTROLLERS}.search:HillClimbing", settings.SearchConfig),
    ("annealing", f"{CONTROLLERS}.search:Annealing", settings.SearchConfig),
    ("tree-search", f"{CONTROLLERS}.search:TreeSearch", settings.SearchConfig),
    ("gates", f"{CONTROLLERS}.gates:Gates", settings.GatesConfig),
    ("merge-alike", f"{CONTROLLERS}.merging:MergeAlike", settings.MergeConfig),
    ("change-little", f"{CONTROLLERS}.patient:ChangeLittle", settings.ChangeConfig),
    ("thompson", f"{CONTROLLERS}.thompson:ThompsonSampling", settings.ThompsonConfig),
    ("mcts", f"{CONTROLLERS}.mcts:MonteCarloTreeSearch", settings.TreeConfig),
    ("tpe", f"{CONTROLLERS}.asked:TPEController", settings.NoSettings),
    ("cma-es", f"{CONTROLLERS}.asked:CMAESController", settings.NoSettings),
    ("evolution", f"{CONTROLLERS}.asked:EvolutionController", settings.EvolutionConfig),
    ("replay", f"{CONTROLLERS}.traces:make_replay", settings.ReplayConfig),
    ("ppo", "stable_baselines3:PPO", settings.SB3Config),
    ("a2c", "stable_baselines3:A2C", settings.SB3Config),
    ("sb3-dqn", "stable_baselines3:DQN", settings.SB3Config),
    ("qrdqn", "sb3_contrib:QRDQN", settings.SB3Config),
    ("maskable-ppo", "sb3_contrib:MaskablePPO", settings.SB3Config),
):
    register(_name, _target, _settings)
