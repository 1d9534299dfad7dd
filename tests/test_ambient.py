"""What a caller has switched in torch changes nothing: modes, default types and devices, autocast."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.modes import MODES
from tying_env.env import LayerTyingEnv
from tying_env.vector import VectorTyingEnv

ACTION = np.array([0, 0, 2, 1])


def life(tiny: dict[str, Any]) -> list[Any]:
    """Return what an environment says of two steps, a fork and a restored copy."""
    env = LayerTyingEnv(**tiny)
    told = [env.reset(seed=0), env.step(ACTION), env.fork().step(ACTION), env.evaluate("test", 2)]
    twin = LayerTyingEnv(**tiny)
    twin.load_state_dict(env.state_dict())
    return [*told, twin.step(ACTION), env.step(ACTION)]


def life_of_many(tiny: dict[str, Any]) -> list[Any]:
    env = VectorTyingEnv(2, **tiny)
    return [env.reset(seed=0), env.step(np.stack([ACTION, ACTION]))]


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_is_the_same_in_every_mode_and_leaves_it_on(mode: str, tiny: dict[str, Any]) -> None:
    expected, expected_of_many = life(tiny), life_of_many(tiny)
    with MODES[mode]():
        before = _modes()
        found, found_of_many = life(tiny), life_of_many(tiny)
        assert _modes() == before
    np.testing.assert_equal(found, expected)
    np.testing.assert_equal(found_of_many, expected_of_many)


def _modes() -> list[Any]:
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
    ]


def test_a_network_made_in_inference_mode_trains_outside_of_it(tiny: dict[str, Any]) -> None:
    with torch.inference_mode():
        env = LayerTyingEnv(**tiny)
        env.reset(seed=0)
    plain = LayerTyingEnv(**tiny)
    plain.reset(seed=0)
    np.testing.assert_equal(env.step(ACTION), plain.step(ACTION))
