"""A DQN with options continues from its state the same; damaged states and those of other options are refused."""

import copy
import json
from typing import Any

import pytest
import torch
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.settings import OPTIONS

from tests.controllers import COMBINATIONS, dqn, drive, equal, short, weights

ALL: dict[str, Any] = {
    "replay_size": 50,
    "replay_batch": 8,
    "target_every": 5,
    "double_q": True,
    "dueling": True,
    "reward_scale": "running",
    "state_scale": "unit",
}


@pytest.mark.parametrize("settings", [*COMBINATIONS, ALL, ALL | {"q_head": "low-rank", "q_rank": 3}], ids=short)
def test_a_restored_controller_continues_the_same_with_options(settings: dict[str, Any]) -> None:
    for decisions in (0, 3, 12, 57):  # empty, part-filled and wrapped replay; between two copies of the target
        controller = dqn(5, **settings)
        drive(controller, decisions)
        saved = controller.state_dict()
        frozen = copy.deepcopy(saved)
        other = dqn(5, 99, **settings)
        drive(other, 7)
        other.load_state_dict(saved)
        went_on = drive(controller, 12, seed=8)  # past two copies of the target, and the end of an episode
        assert drive(other, 12, seed=8) == went_on
        assert equal(weights(controller.network), weights(other.network))
        assert_same(controller.state_dict(), other.state_dict())
        assert_same(saved, frozen)  # the state is a copy, on both sides


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    else:
        assert first == second


def without_tensors(state: Any) -> Any:
    if isinstance(state, dict):
        return {k: without_tensors(v) for k, v in state.items() if not isinstance(v, torch.Tensor)}
    return state


def test_all_but_the_tensors_of_a_state_is_json() -> None:
    controller = dqn(5, **ALL)
    drive(controller, 60)
    plain = without_tensors(controller.state_dict())
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("name", OPTIONS)
def test_a_state_of_other_options_is_refused_by_name(name: str) -> None:
    values = {"replay_size": 7, "replay_batch": 3, "target_every": 9, "reward_scale": "none", "state_scale": "raw"}
    settings = ALL | {name: values.get(name, False)}
    controller, there = dqn(4, **ALL), dqn(4, 1, **settings)
    drive(there, 5)
    refused(controller, there.state_dict(), rf"other options: {name} is {settings[name]!r} there, {ALL[name]!r} here$")


def test_a_state_of_another_head_is_refused_by_name() -> None:
    full, low, lower = (dqn(4, **ALL, **head) for head in ({}, *({"q_head": "low-rank", "q_rank": n} for n in (3, 2))))
    other = "other options: q_head is {} there, {} here; q_rank is {} there, {} here$"
    refused(full, low.state_dict(), other.format("'low-rank'", None, 3, None))
    refused(low, full.state_dict(), other.format(None, "'low-rank'", None, 3))
    refused(lower, low.state_dict(), "other options: q_rank is 3 there, 2 here$")


def refused(controller: FactorizedDQN, state: dict[str, Any], message: str) -> None:
    before = controller.state_dict()
    with pytest.raises(ValueError, match=message):
        controller.load_state_dict(state)
    assert_same(before, controller.state_dict())


def damages() -> list[tuple[str, Any, str]]:
    short_target = {"0.weight": torch.zeros(2, 2)}
    return [
        ("rng", {"bit_generator": "MT19937"}, "generator"),
        ("epsilon", 1.5, "epsilon"),
        ("updates", -1, "updates"),
        ("target", short_target, "the target network's state has '0.weight'"),
        ("optimizer", {"0.weight": {}}, "lacks 0.bias"),
        ("rewards", {"count": 3, "mean": float("nan"), "squares": 1.0}, "reward normaliser"),
        ("rewards", {"count": 3, "mean": 0.0, "squares": -1.0}, "reward normaliser"),
        ("rewards", {"count": 3}, "reward normaliser"),
    ]


@pytest.mark.parametrize(("key", "value", "message"), damages())
def test_a_damaged_state_is_refused_and_changes_nothing(key: str, value: Any, message: str) -> None:
    controller, other = dqn(4, **ALL), dqn(4, 1, **ALL)
    drive(controller, 9)
    drive(other, 12)
    state = other.state_dict()
    refused(controller, state | {key: value}, message)
    del state[key]
    refused(controller, state, f"the state of a DQN lacks {key}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("action", torch.full((12, 4), 3), r"action\[0\] is 3"),
        ("action", torch.zeros(12, 5, dtype=torch.int64), "12.*of 4 layers|1 to 50 transitions of 4 layers"),
        ("reward", torch.full((12,), torch.nan, dtype=torch.float64), "reward that is not finite"),
        ("reward", torch.zeros(11, dtype=torch.float64), "1 to 50 transitions"),
        ("terminated", None, "the replay state must have observation"),
    ],
)
def test_damaged_replay_is_refused_and_changes_nothing(name: str, value: Any, message: str) -> None:
    controller, other = dqn(4, **ALL), dqn(4, 1, **ALL)
    drive(controller, 9)
    drive(other, 12)
    state = other.state_dict()
    if value is None:
        del state["replay"]["transitions"][name]
    else:
        state["replay"]["transitions"][name] = value
    refused(controller, state, message)
