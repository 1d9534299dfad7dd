"""Code of the user's own at work: what it raises names it, and what it returns is checked before it is used."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator, Sequence
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np

from tying_agents.controllers.base import NEEDS, Controller, check_needs
from tying_agents.controllers.view import View
from tying_env.episode import Stopped
from tying_env.plugins import ForeignCodeError, is_ours
from tying_env.wrappers.base import tying_env_below

_SB3 = ("stable_baselines3.", "sb3_contrib.")
_STATE = ("state_dict", "load_state_dict")


class WrongReturn(ForeignCodeError, ValueError):
    """Code of the user's own returned what it may not; the message says what was expected."""


@contextlib.contextmanager
def naming_the_controller(controller: Controller, method: str) -> Iterator[None]:
    """Say whose code it was that raised, where the controller is not one of this package's.

    Raises:
        tying_env.plugins.ForeignCodeError: it raised; what it raised is chained.
    """
    try:
        yield
    except (Stopped, ForeignCodeError):
        raise
    except (Exception, SystemExit) as error:
        if is_ours(type(controller).__module__):
            raise
        raise ForeignCodeError(
            f"the controller {whose(controller)} raised {type(error).__name__} in {method}(): {error}"
        ) from error


@contextlib.contextmanager
def naming_the_algorithm(algorithm: type[Any]) -> Iterator[None]:
    """Say whose code it was that raised, where an algorithm of SB3 is a class of the user's own.

    Its policies and buffers are part of it. What the environment raises while it drives it is passed on.

    Raises:
        tying_env.plugins.ForeignCodeError: it raised; what it raised is chained.
    """
    try:
        yield
    except (Stopped, ForeignCodeError):
        raise
    except (Exception, SystemExit) as error:
        if algorithm.__module__.startswith(_SB3) or not _out_of_it(algorithm, error):
            raise
        raise ForeignCodeError(f"the algorithm {whose(algorithm)} raised {type(error).__name__}: {error}") from error


def whose(thing: object) -> str:
    """Return the class of a thing, or a class, and the file that it is in: `MyController (/home/me/mine.py)`."""
    kind = thing if isinstance(thing, type) else type(thing)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return f"{kind.__name__} ({file or kind.__module__})"


def give_what_it_needs(controller: Controller, env: gym.Env[Any, Any]) -> None:
    """Give a controller a view of the environment that offers what it needs, if it needs anything.

    Raises:
        TypeError: its needs are no set of names.
        ValueError: this environment does not offer one of them, or there is no such need.
        tying_env.plugins.ForeignCodeError: a controller of the user's own failed.
    """
    check_needs(controller, whose(controller))
    for need in sorted(controller.needs):
        if not (hasattr(env.unwrapped, NEEDS[need]) or env.has_wrapper_attr(NEEDS[need])):
            raise ValueError(
                f"{type(controller).__name__} needs {need}, which this environment does not offer: "
                f"{type(env.unwrapped).__name__} has no {NEEDS[need]}()"
            )
    if not controller.needs:
        return
    with naming_the_controller(controller, "bind"):
        controller.bind(View(env))


def checked_action(action: Any, env: gym.Env[Any, Any], controller: Controller) -> Any:
    """Return an action as an array, after checking that it is one.

    Raises:
        WrongReturn: it is not; the message names the controller and what was expected.
    """
    space = env.action_space
    expected = f"the controller {whose(controller)} must return whole numbers of the shape {space.shape} from act()"
    try:
        found = np.asarray(action)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of unequal length; a tensor on a GPU
        raise WrongReturn(f"{expected}, got {action!r:.200}: {error}") from error
    if found.shape != space.shape:
        raise WrongReturn(f"{expected}, got the shape {found.shape}")
    if not (np.issubdtype(found.dtype, np.integer) and space.contains(found)):
        raise WrongReturn(f"{expected}, one of {space}, got {found.tolist()!r:.200} ({found.dtype})")
    return found


def checked_tying(tying: Any, env: gym.Env[Any, Any], controller: Controller) -> Any:
    """Return the tying that a controller begins an episode with, after checking that it is one, or None.

    Raises:
        WrongReturn: it is neither; the message names the controller and what was expected.
    """
    shape = env.unwrapped.action_space.shape
    if tying is None or tying_env_below(env).kinds.is_canonical(tying):
        return tying
    raise WrongReturn(
        f"the controller {whose(controller)} must return None or a tying of the shape {shape} from initial_tying(), "
        f"one in which every follower names its leader, got {tying!r:.200}"
    )


def checked_notes(notes: Any, controller: Controller) -> Sequence[str]:
    """Return what a controller has to say of a run, after checking that it is sentences.

    Raises:
        WrongReturn: it is not; the message names the controller and what was expected.
    """
    if isinstance(notes, (list, tuple)) and all(isinstance(text, str) for text in notes):
        return notes
    raise WrongReturn(
        f"the controller {whose(controller)} must return a list of sentences from notes(), got {notes!r:.200}"
    )


def checked_metrics(metrics: Any, taken: Collection[str], controller: Controller) -> dict[str, float]:
    """Return what a controller says of itself, after checking that it can stand in a record.

    Args:
        metrics: what it returned.
        taken: names that a record has already.
        controller: for messages.

    Raises:
        WrongReturn: it cannot; the message names the controller and what was expected.
    """
    expected = f"the controller {whose(controller)} must return numbers by name from metrics()"
    if not isinstance(metrics, dict) or any(not isinstance(name, str) for name in metrics):
        raise WrongReturn(f"{expected}, got {metrics!r:.200}")
    for name, value in metrics.items():
        if not isinstance(value, (Real, np.generic)):
            raise WrongReturn(f"{expected}, got {name}={value!r:.200} ({type(value).__name__})")
        if name in taken:
            raise WrongReturn(f"{expected}, none that a record has already, got {name!r}")
    return metrics


def checked_state(state: Any, controller: Controller) -> dict[str, Any]:
    """Return a controller's state, after checking that a checkpoint gives back what was put into it.

    Raises:
        WrongReturn: it would not; the message names the controller and the entry.
    """
    if not isinstance(state, dict):
        raise WrongReturn(
            f"the controller {whose(controller)} must return a dictionary from state_dict(), got {state!r:.200}"
        )
    check_entry(state, f"the state of the controller {whose(controller)}")
    return state


def check_keeps_its_state(controller: Controller) -> None:
    """Ask a controller of the user's own for its state before the run begins, not at the first checkpoint.

    Raises:
        TypeError: it has only one of `state_dict` and `load_state_dict`.
        WrongReturn: its state cannot be saved; the message names the entry.
        tying_env.plugins.ForeignCodeError: it raised.
    """
    kind = type(controller)
    if is_ours(kind.__module__):
        return
    lacking = [name for name in _STATE if getattr(kind, name) is getattr(Controller, name)]
    if len(lacking) == 1:
        raise TypeError(
            f"the controller {whose(kind)} must have both state_dict and load_state_dict, or neither: "
            f"it lacks {lacking[0]}"
        )
    with naming_the_controller(controller, "state_dict"):
        state = controller.state_dict()
    checked_state(state, controller)


def check_entry(value: Any, whole: str, where: str = "") -> None:
    """Check a state, or a part of it, for what a checkpoint would not give back.

    Args:
        value: the state or part.
        whole: the words for the whole state, for messages.
        where: the part's place in it.

    Raises:
        WrongReturn: there is something; the message names its place.
    """
    import torch

    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str) or "/" in key:
                raise WrongReturn(f"{whole} must have texts without '/' as keys, got {key!r}{where and f' in {where}'}")
            check_entry(entry, whole, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            check_entry(entry, whole, f"{where}[{number}]")
    elif not (
        value is None
        or isinstance(value, (bool, int, float, str, torch.Tensor))
        or (isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufU")  # numbers and texts
    ):
        raise WrongReturn(
            f"{whole} must hold numbers, texts, lists, dictionaries and tensors, got {where}={value!r:.80} "
            f"({type(value).__name__})"
        )


def _out_of_it(algorithm: type[Any], error: BaseException) -> bool:
    """Return whether an error comes out of an algorithm of SB3, and not out of what it drives, which is ours."""
    for module in reversed(modules_through(error)):
        if is_ours(module):
            return False
        if module == algorithm.__module__ or module.startswith(_SB3):
            return True
    return False


def modules_through(error: BaseException) -> list[str]:
    """Return the modules that an error has come through, the one that raised it last."""
    modules, trace = [], error.__traceback__
    while trace is not None:
        modules.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return modules
