"""Successive halving: what is tried, what it costs, what is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.base import Context
from tying_agents.controllers.halving import SuccessiveHalving
from tying_agents.controllers.view import View
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import run
from tying_agents.settings import HalvingConfig

from tests.conftest import TINY
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.env import LayerTyingEnv
from tying_env.kinds import Kinds
from tying_env.partition import leaders

pytestmark = pytest.mark.usefixtures("short_text")

OWN = np.arange(4)


def halving(env: Any, **settings: Any) -> SuccessiveHalving:
    controller = SuccessiveHalving(HalvingConfig(**settings), Context(4, seed=0, of_kinds=getattr(env, "kinds", None)))
    controller.bind(View(env))
    return controller


def test_it_pays_for_its_rounds_and_trains_with_what_was_best() -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 200, "validate_every": 0})
    loop = drive_agent("halving", env, settings=HalvingConfig(candidates=4, share=0.24, groups=2), seed=0)
    # Two rounds of 24 steps: four trials of 3 decisions, then two of 6.
    assert env.trial_steps == 2 * (4 * 3 + 2 * 6)
    assert env.train_step == 152 and loop.finished
    # Anew, trial by trial.
    fresh = LayerTyingEnv(**TINY | {"total_steps": 200, "validate_every": 0})
    fresh.reset(seed=0, options={"tying": OWN})
    twins = {tuple(tying.tolist()): fresh.fork() for tying in halving(fresh, candidates=4, groups=2).candidates()}
    assert len(twins) == 4 and all(len(leaders(tying)) == 2 for tying in twins)
    for decisions in (3, 6):
        losses = {
            tying: np.mean([np.log(twin.step(np.array(tying))[4]["perplexity"]) for _ in range(decisions)])
            for tying, twin in twins.items()
        }
        twins = {tying: twins[tying] for tying in sorted(twins, key=lambda tying: losses[tying])[: len(twins) // 2]}
    assert tuple(env.tying.tolist()) in twins


def test_candidates_are_the_patterns_and_then_chance() -> None:
    env = LayerTyingEnv(**TINY)
    env.reset(seed=0)
    patterns = [[0, 1, 1, 3], [0, 0, 2, 3], [0, 1, 2, 0]]  # own ends and own first, own last and equal runs, in turn
    found = [tying.tolist() for tying in halving(env, candidates=5, groups=3).candidates()]
    assert found[:3] == patterns and len(found) == 5
    assert [tying.tolist() for tying in halving(env, candidates=2, groups=3).candidates()] == patterns[:2]
    every = halving(env, candidates=50, groups=3, patterns=False).candidates()
    assert len(every) == len({tuple(tying.tolist()) for tying in every}) == 6  # all there are, S(4, 3)
    env.workload._kinds = Kinds([0, 1, 0, 1])  # only layers of a kind can be tied, and groups are those of each
    for groups, only in ((1, [0, 0, 0, 0]), (2, [0, 0, 1, 1])):
        assert [tying.tolist() for tying in halving(env, candidates=9, groups=groups).candidates()] == [only]


def test_a_trial_that_diverges_is_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 200})
    env.reset(seed=0, options={"tying": OWN})
    plain = LayerTyingEnv.step

    def step(self: LayerTyingEnv, action: Any) -> Any:
        observation, reward, terminated, truncated, info = plain(self, action)
        if action.tolist() != [0, 0, 2, 2]:
            return observation, reward, True, truncated, info | {"perplexity": np.inf}
        return observation, reward, terminated, truncated, info

    monkeypatch.setattr(LayerTyingEnv, "step", step)
    assert halving(env, candidates=4, groups=2).act(OWN).tolist() == [0, 0, 2, 2]


def test_a_stopped_run_ends_with_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | {"total_steps": 100, "validate_every": 50}
    config: dict[str, Any] = {"agent": "halving", "controller": HalvingConfig(candidates=3, share=0.2, patterns=False)}
    expected = outcome(finish(small(tiny, tmp_path / "whole", **config)))
    path = tmp_path / "stopped"
    watcher = Watcher(lambda n: interrupt() if n == 2 else None)
    assert run(small(tiny, path, **config), [watcher])[1] == "interrupted"
    resume_until_it_ends(path)
    assert outcome(path) == expected


def test_wrong_settings_and_too_short_runs_are_named() -> None:
    for settings, why in (
        ({"candidates": 1}, "candidates must be at least 2, got 1"),
        ({"share": 1.0}, r"share must be in \(0, 1\), got 1.0"),
        ({"groups": 5}, "groups must be at most the number of layers, 4, got 5"),
    ):
        with pytest.raises(ValueError, match=why):
            halving(None, **settings)
    env = LayerTyingEnv(**TINY | {"total_steps": 20})
    with pytest.raises(ValueError, match="halving 7 candidates takes 26 training steps of trials, and the run has 18 "):
        drive_agent("halving", env, settings=HalvingConfig(groups=2, patterns=False), seed=0)
