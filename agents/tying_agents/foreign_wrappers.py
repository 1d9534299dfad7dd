"""Wrappers of the user's own at work: what one raises names it, and what comes out of them is checked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np

from tying_agents.foreign import WrongReturn, check_entry, modules_through, whose
from tying_env.episode import Stopped
from tying_env.files import to_json
from tying_env.plugins import ForeignCodeError, is_ours
from tying_env.wrappers import wrapper_states
from tying_env.wrappers.base import Step

# Gymnasium's wrappers that `gym.make` puts around an environment; they pass on what they get.
_OF_MAKE = "gymnasium.wrappers.common"
# What recorder, curves and progress bar read from `info` of an environment in which a network trains, besides "tying".
_NUMBERS = (
    "train_loss",
    "perplexity",
    "validation_perplexity",
    "input_dependence",
    "independent_layers",
    "trainable_parameters",
    "tied_events",
    "untied_events",
    "train_step",
    "tokens",
    "diverged",
)


@contextlib.contextmanager
def naming_the_wrapper(env: gym.Env[Any, Any]) -> Iterator[None]:
    """Say whose code it was that raised, where that is a wrapper of the user's own around this environment.

    A wrapper is at fault when the error comes out of its code, or out of a library that its code called; what the
    environment inside it raises is passed on.

    Raises:
        tying_env.plugins.ForeignCodeError: it raised; what it raised is chained.
    """
    try:
        yield
    except (Stopped, ForeignCodeError):
        raise
    except (Exception, SystemExit) as error:
        if (wrapper := _wrapper_at_fault(env, error)) is None:
            raise
        raise ForeignCodeError(f"the wrapper {whose(wrapper)} raised {type(error).__name__}: {error}") from error


def outermost_own(env: gym.Env[Any, Any]) -> gym.Env[Any, Any] | None:
    """Return the outermost wrapper around an environment that is not this package's, nor put there by `gym.make`."""
    while isinstance(env, gym.Wrapper):
        if not is_ours(type(env).__module__) and type(env).__module__ != _OF_MAKE:
            return env
        env = env.env
    return None


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """Checks what comes out of a wrapper of the user's own before one around it makes use of it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and check what comes back."""
        return _checked_reset(self.env.reset(seed=seed, options=options), self.env)

    def step(self, action: Any) -> Step:
        """Step, and check what comes back."""
        return _checked_step(self.env.step(action), self.env)


def step(env: gym.Env[Any, Any], action: Any) -> Step:
    """Step an environment; where wrappers of the user's own are around it, check what comes out.

    Raises:
        WrongReturn: it is none of a step; the message names the outermost wrapper of the user's own.
        tying_env.plugins.ForeignCodeError: a wrapper of the user's own raised; what it raised is chained.
    """
    with naming_the_wrapper(env):
        returned = env.step(action)
    return _checked_step(returned, env)


def reset(env: gym.Env[Any, Any], seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Reset an environment; where wrappers of the user's own are around it, check what comes out.

    Raises:
        WrongReturn, tying_env.plugins.ForeignCodeError: as `step`.
    """
    with naming_the_wrapper(env):
        returned = env.reset(seed=seed, options=options)
    return _checked_reset(returned, env)


def states(env: gym.Env[Any, Any]) -> list[dict[str, Any]]:
    """Return what the wrappers around an environment remember, after checking that a checkpoint gives it back.

    Raises:
        TypeError, ValueError: as `tying_env.wrappers.wrapper_states`.
        WrongReturn: a state cannot be saved; the message names the wrapper and the entry.
        tying_env.plugins.ForeignCodeError: a wrapper of the user's own raised; what it raised is chained.
    """
    with naming_the_wrapper(env):
        found = wrapper_states(env)
    if outermost_own(env) is not None:
        for state in found:
            check_entry(state, f"the state of the wrapper {state['wrapper']}")
    return found


@contextlib.contextmanager
def naming_who_cannot_be_recorded(info: Mapping[str, Any], env: gym.Env[Any, Any]) -> Iterator[None]:
    """Say which entry of `info` it was that JSON cannot hold, where wrappers of the user's own may have put it there.

    Raises:
        WrongReturn: there is one; the message names the outermost wrapper of the user's own.
    """
    try:
        yield
    except TypeError as error:
        wrapper = outermost_own(env)
        name = next((name for name, value in info.items() if not _is_json(value)), None)
        if wrapper is None or name is None:
            raise
        raise WrongReturn(
            f"the wrapper {whose(wrapper)} must put only numbers, texts, lists and dictionaries into info, got "
            f"{name}={info[name]!r:.200}"
        ) from error


def _checked_step(returned: Any, env: gym.Env[Any, Any]) -> Step:
    if (wrapper := outermost_own(env)) is None:
        return returned  # type: ignore[no-any-return]
    expected = f"the wrapper {whose(wrapper)} must return"
    if not isinstance(returned, tuple) or len(returned) != 5:
        parts = "(observation, reward, terminated, truncated, info)"
        raise WrongReturn(f"{expected} {parts} from step(), got {returned!r:.200}")
    observation, reward, terminated, truncated, info = returned
    _check_observation(observation, env, f"{expected} from step()")
    if not _is_finite(reward):
        raise WrongReturn(f"{expected} a finite number as the reward, got {reward!r:.200} ({type(reward).__name__})")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, (bool, np.bool_)):
            raise WrongReturn(f"{expected} True or False as {name}, got {flag!r:.200} ({type(flag).__name__})")
    _check_info(info, env, f"{expected} info as it is, or with more in it, from step()")
    return returned


def _checked_reset(returned: Any, env: gym.Env[Any, Any]) -> tuple[Any, dict[str, Any]]:
    if (wrapper := outermost_own(env)) is None:
        return returned  # type: ignore[no-any-return]
    expected = f"the wrapper {whose(wrapper)} must return"
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
        raise WrongReturn(f"{expected} (observation, info) from reset(), got {returned!r:.200}")
    _check_observation(returned[0], env, f"{expected} from reset()")
    return returned


def _check_observation(observation: Any, env: gym.Env[Any, Any], expected: str) -> None:
    try:
        held = bool(env.observation_space.contains(observation))
    except Exception:  # a space compares what it is given with its bounds
        held = False
    if not held:
        raise WrongReturn(f"{expected} an observation in {env.observation_space}, got {observation!r:.200}")


def _check_info(info: Any, env: gym.Env[Any, Any], expected: str) -> None:
    if not isinstance(info, dict):
        raise WrongReturn(f"{expected}, got {info!r:.200}")
    if not hasattr(env.unwrapped, "evaluate"):  # nothing trains in it, and nothing is recorded
        return
    if missing := [name for name in ("tying", *_NUMBERS) if name not in info]:
        raise WrongReturn(f"{expected}: it lacks {missing[0]!r}")
    for name in _NUMBERS:
        if not isinstance(info[name], (Real, np.generic)):
            raise WrongReturn(f"{expected}: {name!r} must be a number, got {info[name]!r:.200}")


def _is_json(value: Any) -> bool:
    try:
        to_json(value)
    except TypeError:
        return False
    return True


def _is_finite(reward: Any) -> bool:
    """Return whether a reward can be made a finite float; a tensor or array of one number can."""
    try:
        return not isinstance(reward, (str, bytes)) and math.isfinite(float(reward))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def _wrapper_at_fault(env: gym.Env[Any, Any], error: BaseException) -> gym.Env[Any, Any] | None:
    """Return the wrapper out of whose code an error comes; None if it comes out of this package's."""
    wrappers: dict[str, gym.Env[Any, Any]] = {}
    while isinstance(env, gym.Wrapper):
        wrappers.setdefault(type(env).__module__, env)
        env = env.env
    for module in reversed(modules_through(error)):
        if is_ours(module):
            return None
        if module in wrappers and not module.startswith("gymnasium."):
            return wrappers[module]
    return None
