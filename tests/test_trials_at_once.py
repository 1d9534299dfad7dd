"""How many networks a search holds at once beside the run's own: what its memory is bounded by."""

import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from tying_agents.controllers.view import Trial
from tying_agents.running.agents import drive_agent
from tying_agents.settings import HalvingConfig, SearchConfig, TreeConfig

SMALL: dict[str, Any] = {"n_layer": 4, "n_embd": 16, "n_head": 2, "seq_len": 8, "batch_size": 2, "tokenizer": "bytes"}
SMALL |= {"validate_every": 0, "validation_windows": 4}


@pytest.mark.parametrize(
    ("agent", "settings", "steps", "most"),
    [
        ("hill-climbing", None, 30, 1),
        ("annealing", None, 30, 1),
        ("tree-search", SearchConfig(tree_depth=2), 30, 2),
        ("tree-search", SearchConfig(tree_depth=3, candidates=1), 30, 3),
        ("halving", HalvingConfig(candidates=5), 30, 5),
        ("change-little", None, 60, 1),  # which tries nothing early in a run
        ("thompson", None, 60, 1),
        ("mcts", TreeConfig(share=0.6), 30, 1),
        ("probe-then-tie", None, 30, 1),
    ],
)
def test_trials_at_once_are_as_many_as_is_said(
    agent: str, settings: Any, steps: int, most: int, text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Trial] = weakref.WeakSet()
    counts = [0]
    begin = Trial.__init__

    def counted(self: Trial, *args: Any) -> None:
        begin(self, *args)
        alive.add(self)
        counts.append(len(alive))

    monkeypatch.setattr(Trial, "__init__", counted)
    env = gym.make("LayerTying-GPT2-v0", **SMALL, dataset=str(text_folder), total_steps=steps, k=1)
    drive_agent(agent, env, settings=settings, seed=0)
    assert max(counts) == most
