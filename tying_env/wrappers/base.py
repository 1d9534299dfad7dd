"""What several wrappers share: types, the environment below them, and checks of their arguments."""

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym
import numpy as np

from tying_env.environment import TyingEnv, tying_space
from tying_env.kinds import Kinds

if TYPE_CHECKING:
    from tying_env.env import LayerTyingEnv

AnyEnv: TypeAlias = gym.Env[Any, Any]
AnyWrapper: TypeAlias = gym.Wrapper[Any, Any, Any, Any]
# What `step` returns: observation, reward, terminated, truncated, info.
Step: TypeAlias = tuple[Any, float, bool, bool, dict[str, Any]]


def tying_env_below(env: AnyEnv) -> TyingEnv:
    """Return the environment under all wrappers, whether a network trains in it or not.

    Raises:
        TypeError: it is not a TyingEnv.
    """
    unwrapped: AnyEnv = env.unwrapped
    if not isinstance(unwrapped, TyingEnv):
        raise TypeError(f"this wrapper needs a TyingEnv, such as LayerTyingEnv, got {type(unwrapped).__name__}")
    return unwrapped


def layer_tying_env(env: AnyEnv) -> "LayerTyingEnv":
    """Return the environment under all wrappers, in which a network trains.

    Raises:
        TypeError: it is not a LayerTyingEnv.
    """
    # Here and not above: an environment that exists has imported torch already, `import tying_env.wrappers` need not.
    from tying_env.env import LayerTyingEnv

    unwrapped: AnyEnv = env.unwrapped
    if not isinstance(unwrapped, LayerTyingEnv):
        raise TypeError(f"this wrapper needs a LayerTyingEnv, got {type(unwrapped).__name__}")
    return unwrapped


def check_vector_actions(name: str, env: AnyEnv) -> Kinds:
    """Return the kinds of units of an environment that takes whole tying vectors, at least 2 of them of one kind.

    Args:
        name: of the wrapper that wants them.
        env: a TyingEnv, wrapped or not.

    Raises:
        TypeError: it is not a TyingEnv.
        ValueError: it takes other actions, or has fewer than 2 layers.
    """
    below = tying_env_below(env)
    expected = tying_space(below.kinds)
    if env.action_space != expected:
        named = expected if below.kinds.several else f"MultiDiscrete([1, 2, ..., {below.n_units}])"
        raise ValueError(
            f"{name} needs the actions {named}, got {env.action_space}: put it inside the wrapper that changes actions"
        )
    if not len(below.kinds.open):
        raise ValueError(f"{name} needs at least 2 layers to decide about, got {below.n_units}")
    return below.kinds


def check_finite(name: str, value: object) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: it is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)
