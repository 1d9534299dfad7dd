"""Wrappers of LayerTyingEnv: other actions, observations and rewards.

    env = wrap(gym.make("LayerTying-GPT2-v0"), ["single-layer", "log-perplexity"])

In the examples of the wrappers `make()` makes a LayerTyingEnv of 4 layers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym

from tying_env.wrappers.actions import LayerSweepAction, SingleLayerAction
from tying_env.wrappers.base import AnyEnv, AnyWrapper
from tying_env.wrappers.observations import OneHotObservation, TrainingProgressObservation
from tying_env.wrappers.rewards import (
    ClippedReward,
    ImprovementReward,
    LogPerplexityReward,
    ParameterPenaltyReward,
    ProbeBatchReward,
    ShuffledReward,
)

__all__ = [
    "WRAPPERS",
    "ClippedReward",
    "ImprovementReward",
    "LayerSweepAction",
    "LogPerplexityReward",
    "OneHotObservation",
    "ParameterPenaltyReward",
    "ProbeBatchReward",
    "ShuffledReward",
    "SingleLayerAction",
    "TrainingProgressObservation",
    "load_wrapper_states",
    "wrap",
    "wrapper_states",
]

# Names for command lines; each wrapper has defaults for all its settings.
WRAPPERS: dict[str, Callable[..., AnyWrapper]] = {
    "single-layer": SingleLayerAction,
    "layer-sweep": LayerSweepAction,
    "training-progress": TrainingProgressObservation,
    "one-hot": OneHotObservation,
    "log-perplexity": LogPerplexityReward,
    "improvement": ImprovementReward,
    "clipped": ClippedReward,
    "probe": ProbeBatchReward,
    "parameter-penalty": ParameterPenaltyReward,
    "shuffled": ShuffledReward,
}


def wrap(env: AnyEnv, names: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None) -> AnyEnv:
    """Return `env` inside the named wrappers, the first name innermost.

    Args:
        env: the environment to wrap.
        names: keys of WRAPPERS.
        settings: name -> keywords of that wrapper; the others have their defaults.

    Raises:
        ValueError: a name is unknown, or a wrapper does not fit what it is put around.
    """
    for name in names:
        if name not in WRAPPERS:
            raise ValueError(f"unknown wrapper {name!r}; known: {', '.join(WRAPPERS)}")
    for name in names:
        env = WRAPPERS[name](env, **(settings or {}).get(name, {}))
    return env


def wrapper_states(env: AnyEnv) -> list[dict[str, Any]]:
    """Return what the wrappers around an environment remember, ready for JSON; outermost first.

    With the state of `env.unwrapped` it is all that the next steps depend on.
    """
    return [{"wrapper": type(wrapper).__name__, **wrapper.state_dict()} for wrapper in _stateful(env)]


def load_wrapper_states(env: AnyEnv, states: list[dict[str, Any]]) -> None:
    """Go on from states that `wrapper_states` gave, of an environment in the same wrappers.

    Raises:
        ValueError: the wrappers are others, or a state does not fit.
    """
    wrappers = list(_stateful(env))
    mine, theirs = [type(wrapper).__name__ for wrapper in wrappers], [state["wrapper"] for state in states]
    if mine != theirs:
        raise ValueError(f"the states are of the wrappers {theirs}, this environment has {mine}")
    for wrapper, state in zip(wrappers, states, strict=True):
        wrapper.load_state_dict(state)


def _stateful(env: AnyEnv) -> Iterator[ImprovementReward | ShuffledReward]:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, (ImprovementReward, ShuffledReward)):
            yield env
        env = env.env
