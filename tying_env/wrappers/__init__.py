"""Wrappers of environments of tyings: other actions, limits on them, other intervals, observations and rewards.

    env = wrap(gym.make("LayerTying-GPT2-v0"), ["single-layer", "log-perplexity"])

A wrapper of your own goes in by its class, or by a name that `register_wrapper` gives it. If it remembers something, it
has `state_dict` and `load_state_dict`, and is saved with the others.

In the examples of the wrappers `make()` makes a LayerTyingEnv of 4 layers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym

from tying_env.wrappers.actions import LayerSweepAction, SingleLayerAction
from tying_env.wrappers.agreement import GradientAgreementObservation
from tying_env.wrappers.base import AnyEnv, AnyWrapper
from tying_env.wrappers.interval import ChooseInterval, DoublingInterval
from tying_env.wrappers.limits import LimitChanges, SettleTying
from tying_env.wrappers.observations import OneHotObservation, TrainingProgressObservation
from tying_env.wrappers.rewards import (
    ClippedReward,
    ImprovementReward,
    LogPerplexityReward,
    ParameterPenaltyReward,
    ProbeBatchReward,
    ShuffledReward,
)
from tying_env.wrappers.size import MaxBytesReward

__all__ = [
    "WRAPPERS",
    "ChooseInterval",
    "ClippedReward",
    "DoublingInterval",
    "GradientAgreementObservation",
    "ImprovementReward",
    "LayerSweepAction",
    "LimitChanges",
    "LogPerplexityReward",
    "MaxBytesReward",
    "OneHotObservation",
    "ParameterPenaltyReward",
    "ProbeBatchReward",
    "SettleTying",
    "ShuffledReward",
    "SingleLayerAction",
    "TrainingProgressObservation",
    "check_wrapper_states",
    "load_wrapper_states",
    "register_wrapper",
    "wrap",
    "wrapper_states",
]

# Names for command lines; each wrapper has defaults for all its settings. `register_wrapper` adds to them.
WRAPPERS: dict[str, Callable[..., AnyWrapper]] = {
    "single-layer": SingleLayerAction,
    "layer-sweep": LayerSweepAction,
    "limit-changes": LimitChanges,
    "settle": SettleTying,
    "choose-interval": ChooseInterval,
    "interval-doubling": DoublingInterval,
    "training-progress": TrainingProgressObservation,
    "one-hot": OneHotObservation,
    "gradient-agreement": GradientAgreementObservation,
    "log-perplexity": LogPerplexityReward,
    "improvement": ImprovementReward,
    "clipped": ClippedReward,
    "probe": ProbeBatchReward,
    "parameter-penalty": ParameterPenaltyReward,
    "max-bytes": MaxBytesReward,
    "shuffled": ShuffledReward,
}


def register_wrapper(name: str, factory: Callable[..., AnyWrapper]) -> None:
    """Give a wrapper a name that `wrap` knows, as those of this package have.

    Args:
        name: a new key of WRAPPERS.
        factory: a wrapper class, or a function that puts a wrapper around an environment; it takes the environment,
            and its settings as keywords with defaults.

    Raises:
        TypeError: the factory cannot be called, or is a wrapper class with only half of a state.
        ValueError: the name is empty or taken.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a wrapper's name must be a word, got {name!r}")
    if name in WRAPPERS:
        raise ValueError(f"the wrapper name {name!r} is taken, by {_named(WRAPPERS[name])}")
    if not callable(factory):
        raise TypeError(f"the wrapper {name!r} must be a class or a function of an environment, got {factory!r}")
    if isinstance(factory, type):
        _has_state(factory)
    WRAPPERS[name] = factory


def wrap(
    env: AnyEnv,
    wrappers: Sequence[str | Callable[..., AnyWrapper]],
    settings: Mapping[Any, Mapping[str, Any]] | None = None,
) -> AnyEnv:
    """Return `env` inside some wrappers, the first innermost.

    Args:
        env: the environment to wrap.
        wrappers: each a key of WRAPPERS, or a wrapper class, or a function that puts a wrapper around an environment.
        settings: wrapper, as given in `wrappers` -> its keywords; the others have their defaults.

    Raises:
        TypeError: one is neither a name nor callable, makes no `gymnasium.Wrapper`, or has only half of a state.
        ValueError: a name is unknown, or a wrapper does not fit what it is put around.
    """
    for wrapper in wrappers:
        if isinstance(wrapper, str) and wrapper not in WRAPPERS:
            raise ValueError(f"unknown wrapper {wrapper!r}; known: {', '.join(WRAPPERS)}")
        if not isinstance(wrapper, str) and not callable(wrapper):
            raise TypeError(f"a wrapper must be a name, a class or a function of an environment, got {wrapper!r}")
    for wrapper in wrappers:
        factory = WRAPPERS[wrapper] if isinstance(wrapper, str) else wrapper
        wrapped: object = factory(env, **(settings or {}).get(wrapper, {}))
        if not isinstance(wrapped, gym.Wrapper):
            raise TypeError(f"{_named(wrapper)} must make a gymnasium.Wrapper, got {wrapped!r}")
        _has_state(type(wrapped))
        env = wrapped
    return env


def wrapper_states(env: AnyEnv) -> list[dict[str, Any]]:
    """Return what the wrappers around an environment remember, ready for JSON if theirs is; outermost first.

    A wrapper remembers something if its class has `state_dict`, which returns a dictionary, and `load_state_dict`,
    which takes it. With the state of `env.unwrapped` it is all that the next steps depend on.

    Raises:
        TypeError: a wrapper has only one of the two methods, or its state is no dictionary.
        ValueError: its state has the key "wrapper", which stands for the wrapper's name.
    """
    states = []
    for wrapper in _stateful(env):
        name, state = type(wrapper).__name__, wrapper.state_dict()
        if not isinstance(state, dict):
            raise TypeError(f"the state of {name} must be a dictionary, got {state!r}")
        if "wrapper" in state:
            raise ValueError(f"the state of {name} must not have the key 'wrapper', which is its name's")
        states.append({"wrapper": name, **state})
    return states


def check_wrapper_states(env: AnyEnv) -> None:
    """Check that each wrapper around an environment can both give its state and take it back, or neither.

    Raises:
        TypeError: one cannot; the message names it.
    """
    for _ in _stateful(env):
        pass


def load_wrapper_states(env: AnyEnv, states: list[dict[str, Any]]) -> None:
    """Continue from states that `wrapper_states` gave, of an environment in the same wrappers.

    Raises:
        TypeError: a wrapper has only one of `state_dict` and `load_state_dict`.
        ValueError: the wrappers are others, or a state does not fit.
    """
    wrappers = list(_stateful(env))
    mine, theirs = [type(wrapper).__name__ for wrapper in wrappers], [state["wrapper"] for state in states]
    if mine != theirs:
        raise ValueError(f"the states are of the wrappers {theirs}, this environment has {mine}")
    for wrapper, state in zip(wrappers, states, strict=True):
        wrapper.load_state_dict({key: value for key, value in state.items() if key != "wrapper"})


def _stateful(env: AnyEnv) -> Iterator[Any]:
    while isinstance(env, gym.Wrapper):
        if _has_state(type(env)):
            yield env
        env = env.env


def _has_state(kind: type) -> bool:
    """Tell whether wrappers of this class remember something. The class is asked: instances may pass on to others."""
    missing = [name for name in ("state_dict", "load_state_dict") if not hasattr(kind, name)]
    if len(missing) == 1:
        raise TypeError(
            f"the wrapper {kind.__name__} must have both state_dict and load_state_dict, or neither: "
            f"it lacks {missing[0]}"
        )
    return not missing


def _named(wrapper: object) -> str:
    return wrapper if isinstance(wrapper, str) else getattr(wrapper, "__qualname__", repr(wrapper))
