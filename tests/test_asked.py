"""Optimisers of libraries as controllers: seeds, states, and that they find what there is to find."""

import importlib.util
import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tying_agents.callbacks import Callback, Record
from tying_agents.controllers.base import Context, Transition
from tying_agents.loop import Loop
from tying_agents.registry import find_agent
from tying_agents.running.agents import drive_agent
from tying_agents.settings import EvolutionConfig

import tying_env  # noqa: F401 (registers the environments)
from tying_env.partition import canonicalise

NAMES = ("tpe", "cma-es", "evolution")


class Seen(Callback):
    """Keeps actions and values."""

    def __init__(self) -> None:
        self.actions: list[list[int]] = []
        self.values: list[float] = []

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Keep one."""
        self.actions.append(record["action"].tolist())
        self.values.append(record["share"])


def seen(name: str, seed: int, decisions: int = 40, n_layer: int = 6) -> Seen:
    """Return what an agent did."""
    found = Seen()
    env = gym.make("LayerTying-Synthetic-v0", n_layer=n_layer, decisions=decisions, instance=seed)
    drive_agent(name, env, [found], seed=seed)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_decide_the_same_and_leave_the_shared_generators(name: str) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = seen(name, 1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert seen(name, 1).actions == first.actions != seen(name, 2).actions
    assert len({str(action) for action in first.actions}) > 10


@pytest.mark.parametrize("name", NAMES)
def test_two_layers_are_enough(name: str) -> None:
    assert {tuple(action) for action in seen(name, 0, 20, n_layer=2).actions} == {(0, 0), (0, 1)}


def test_all_find_more_than_chance() -> None:
    means = {name: np.mean([np.mean(seen(name, seed, 60).values[-10:]) for seed in range(4)]) for name in NAMES}
    # Of what lies between chance, 0, and the best, 1.
    assert means["tpe"] > 0.1 and means["evolution"] > 0.3 and means["cma-es"] > 0.3, means


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_controller_continues_with_the_same_actions(name: str) -> None:
    agent = find_agent(name)

    def make(seed: int = 5) -> Any:
        return agent.make(agent.settings(), Context(6, seed))

    def decide(controller: Any) -> list[int]:
        action = controller.act(np.zeros(6, dtype=np.int64))
        reward = -float(len(set(canonicalise(action).tolist())))
        controller.update(Transition(action, action, reward, action, False))
        return list(action)

    controller, again = make(), make()
    for _ in range(30):
        decide(controller)
    waiting = controller.act(np.zeros(6, dtype=np.int64))
    again.load_state_dict(controller.state_dict())
    assert again.state_dict() == controller.state_dict()
    assert (again.act(np.zeros(6, dtype=np.int64)) == waiting).all()
    assert [decide(controller) for _ in range(10)] == [decide(again) for _ in range(10)]
    with pytest.raises(ValueError, match="where it proposed"):
        make(6).load_state_dict(controller.state_dict() | {"asked": [0, 1, 2, 3, 4, 5]})
    with pytest.raises(ValueError, match="must hold the rewards so far, got 7"):
        make().load_state_dict({"told": 7, "asked": None})


def test_settings_and_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="population_size must be at least 2, got 1"):
        EvolutionConfig(population_size=1)
    with pytest.raises(ValueError, match="tournament_size must be from 1 to the population's 20, got 30"):
        EvolutionConfig(tournament_size=30)
    agent = find_agent("evolution")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyglove" else find(name))
    with pytest.raises(ImportError, match=r"needs pyglove: pip install 'tying-env\[search\]'"):
        agent.make(EvolutionConfig(), Context(6, 0))
