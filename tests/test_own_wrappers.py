"""Wrappers from outside the package: given by class or by a name of their own, saved because they have a state."""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests.conftest import Make
from tying_env.wrappers import (
    WRAPPERS,
    ClippedReward,
    load_wrapper_states,
    register_wrapper,
    wrap,
    wrapper_states,
)


class StepCounter(gym.Wrapper[Any, Any, Any, Any]):
    """Counts steps by `by`, and puts the count where the reward was."""

    def __init__(self, env: gym.Env[Any, Any], by: int = 1) -> None:
        super().__init__(env)
        self.by, self.count = by, 0

    def step(self, action: Any) -> Any:
        self.count += self.by
        observation, _, *rest = self.env.step(action)
        return observation, self.count, *rest

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        (self.count,) = state.values()  # exactly what it gave


class OnlySaves(gym.Wrapper[Any, Any, Any, Any]):
    """Has a state that nobody can give back to it."""

    def state_dict(self) -> dict[str, Any]:
        return {}


class OnlyLoads(gym.Wrapper[Any, Any, Any, Any]):
    """Takes a state that it never gave."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class PassesOn(gym.Wrapper[Any, Any, Any, Any]):
    """Has no state, but whatever it lacks it looks for below, `state_dict` of LayerTyingEnv among it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The known names, put back after the test."""
    known = dict(WRAPPERS)
    for module in ("tying_env.wrappers.WRAPPERS", f"{__name__}.WRAPPERS"):
        monkeypatch.setattr(module, known)
    return known


def test_a_wrapper_from_outside_is_saved_and_restored_with_the_others(make: Make) -> None:
    env = wrap(make(), ["improvement", StepCounter, PassesOn])
    env.reset(seed=0)
    for _ in range(3):
        env.step([0, 1, 1, 3])
    states = json.loads(json.dumps(wrapper_states(env)))
    assert [state["wrapper"] for state in states] == ["StepCounter", "ImprovementReward"]
    other = wrap(make(), ["improvement", StepCounter, PassesOn])
    other.reset(seed=1)
    load_wrapper_states(other, states)
    assert wrapper_states(other) == states
    assert other.step([0, 0, 0, 0])[1] == 4


def test_a_wrapper_is_given_by_class_by_function_or_by_name_each_with_settings(
    make: Make, names: dict[str, Any]
) -> None:
    def counter(env: Any, by: int) -> Any:
        return StepCounter(env, by)

    register_wrapper("counter", StepCounter)
    env = wrap(
        make(), [StepCounter, counter, "counter"], {StepCounter: {"by": 2}, counter: {"by": 3}, "counter": {"by": 5}}
    )
    env.reset(seed=0)
    env.step(np.zeros(4, dtype=np.int64))
    assert [state["count"] for state in wrapper_states(env)] == [5, 3, 2]


def test_a_name_that_is_taken_or_none_and_a_factory_that_is_none_are_refused(names: dict[str, Any]) -> None:
    register_wrapper("counter", StepCounter)
    for taken, by in (("counter", "StepCounter"), ("clipped", "ClippedReward")):
        with pytest.raises(ValueError, match=f"the wrapper name {taken!r} is taken, by {by}"):
            register_wrapper(taken, ClippedReward)
    with pytest.raises(ValueError, match="a wrapper's name must be a word, got ' '"):
        register_wrapper(" ", StepCounter)
    with pytest.raises(TypeError, match="the wrapper 'five' must be a class or a function of an environment, got 5"):
        register_wrapper("five", 5)  # type: ignore[arg-type]
    assert names["counter"] is StepCounter
    assert "five" not in names


@pytest.mark.parametrize(("half", "lacks"), [(OnlySaves, "load_state_dict"), (OnlyLoads, "state_dict")])
def test_half_of_a_state_is_refused_by_name(make: Make, names: dict[str, Any], half: Any, lacks: str) -> None:
    message = f"the wrapper {half.__name__} must have both .* or neither: it lacks {lacks}$"
    env = half(make())  # put there without wrap()
    for attempt in (
        lambda: wrap(make(), [half]),
        lambda: register_wrapper("half", half),
        lambda: wrapper_states(env),
        lambda: load_wrapper_states(env, []),
    ):
        with pytest.raises(TypeError, match=message):
            attempt()


def test_what_makes_no_wrapper_is_refused(make: Make) -> None:
    with pytest.raises(TypeError, match="a wrapper must be a name, a class or a function of an environment, got 5"):
        wrap(make(), [5])  # type: ignore[list-item]

    def nothing(env: Any) -> Any:
        return None

    with pytest.raises(TypeError, match=r"nothing must make a gymnasium\.Wrapper, got None"):
        wrap(make(), [nothing])


def test_a_state_that_cannot_be_told_from_others_is_refused(make: Make) -> None:
    env = wrap(make(), [StepCounter])
    for state, error in (({"wrapper": 1}, ValueError), ([1], TypeError)):
        StepCounter.state_dict, before = lambda self, state=state: state, StepCounter.state_dict  # type: ignore
        try:
            with pytest.raises(error, match="the state of StepCounter must"):
                wrapper_states(env)
        finally:
            StepCounter.state_dict = before  # type: ignore[method-assign]
