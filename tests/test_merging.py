"""Merging what is alike: how alike weights are, what is merged, when, and what it comes to."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.controllers.base import Context
from tying_agents.controllers.merging import MergeAlike, merged
from tying_agents.controllers.view import View
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import run
from tying_agents.settings import MergeConfig

from tests.conftest import TINY
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.env import LayerTyingEnv
from tying_env.kinds import Kinds
from tying_env.partition import leaders

OWN = np.arange(4)


def test_weights_are_compared_by_their_matrices() -> None:
    env = LayerTyingEnv(**TINY | {"freeze_at_start": False})
    env.reset(seed=0, options={"tying": np.array([0, 1, 1, 3])})
    blocks: Any = env.trainer.network.blocks
    with torch.no_grad():
        for parameter, other in zip(blocks[3].parameters(), blocks[0].parameters(), strict=True):
            parameter.copy_(-other if parameter.ndim > 1 else other + 1)
    rows = torch.stack([torch.cat([p.flatten() for p in b.parameters() if p.ndim > 1]) for b in blocks]).double()
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).detach().numpy()
    found = env.weight_agreement()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[1, 2] == pytest.approx(1) and found[0, 3] == pytest.approx(-1) and abs(found[0, 1]) < 0.3


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "muon"}])
def test_updates_are_compared_by_running_means_of_gradients(options: dict[str, Any]) -> None:
    env = LayerTyingEnv(**TINY | {"freeze_at_start": False} | options)
    env.reset(seed=0, options={"tying": np.array([0, 1, 1, 3])})
    assert np.isnan(env.update_agreement()[0, 1])  # nothing was trained yet
    env.step(np.array([0, 1, 1, 3]))
    blocks: Any = env.trainer.network.blocks
    states = [[env.trainer.optimizer.state[p] for p in block.parameters()] for block in blocks]
    key = "exp_avg" if not options else "momentum_buffer"
    means = [torch.cat([state.get(key, state.get("exp_avg")).flatten() for state in own]) for own in states]
    rows = torch.stack(means).double()
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).numpy()
    found = env.update_agreement()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[1, 2] == pytest.approx(1) and found[0, 1] < 0.999


def test_updates_need_an_optimizer_with_a_running_mean() -> None:
    plain: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0}
    for choice in (plain, {"optimizer": torch.optim.SGD}, {"optimizer": torch.optim.RMSprop}):
        env = LayerTyingEnv(**TINY | {"freeze_at_start": False} | choice)
        with pytest.raises(ValueError, match=r"keeps no running mean of gradients \(exp_avg or momentum_buffer\)"):
            drive_agent("merge-alike", env, settings=MergeConfig(by="updates"), seed=0)
        assert env.train_step == 0


def test_the_two_groups_are_merged_that_are_most_alike_on_average() -> None:
    alike = np.full((5, 5), 0.1)
    for i, j, value in ((0, 1, 0.9), (0, 3, 0.6), (1, 3, 0.0), (2, 4, 0.4), (1, 2, np.nan)):
        alike[i, j] = alike[j, i] = value
    kinds = Kinds.alike(5)
    action, found = merged(np.arange(5), alike, kinds, [1])
    assert action.tolist() == [0, 0, 2, 3, 4] and found == 0.9
    action, found = merged(action, alike, kinds, [1])  # 0.3 with layer 3 on average: 2 and 4 are more alike
    assert action.tolist() == [0, 0, 2, 3, 2] and found == 0.4
    action, found = merged(action, alike, kinds, [1])
    assert action.tolist() == [0, 0, 2, 0, 2] and found == pytest.approx(0.3)
    assert merged(action, alike, kinds, [2])[0].tolist() == action.tolist()  # there are as few as wanted
    apart = Kinds([0, 1, 0, 1, 0])  # counted within each kind; 0 and 1 cannot be tied
    assert merged(np.array([0, 0, 1, 1, 2]), alike, apart, [1, 1])[0].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("by", ["weights", "updates", "gradients", "chance"])
def test_there_are_fewer_and_fewer_groups_and_then_they_stay(by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 80, "later_tying": "mean", "freeze_at_start": False})
    seen: list[tuple[int, int]] = []
    plain = LayerTyingEnv.step

    def step(self: LayerTyingEnv, action: Any) -> Any:
        seen.append((env.train_step + env.trial_steps, len(leaders(action))))
        return plain(self, action)

    monkeypatch.setattr(LayerTyingEnv, "step", step)
    drive_agent("merge-alike", env, settings=MergeConfig(groups=1, by=by, start=0.2, until=0.8), seed=0)
    # Of four groups there are three from 20 % and a third of 60 % on, and so on.
    expected = [(at, 4 - min(3, max(0, int((at / 80 - 0.2) / 0.2 + 1e-9)))) for at, _ in seen]
    assert [groups for _, groups in seen] == [groups for _, groups in expected]
    assert env.trial_steps == (3 if by == "gradients" else 0)
    assert env.train_step + env.trial_steps == 80


def test_by_chance_each_two_groups_are_merged_as_often_whatever_their_sizes() -> None:
    class Here:  # at the end of a run: all mergers are due
        ties_at, trial_steps, total_steps = 80, 0, 80

    counts: Counter[tuple[int, ...]] = Counter()
    before = np.array([0, 0, 0, 0, 4, 5])
    for seed in range(600):
        controller = MergeAlike(MergeConfig(groups=2, by="chance"), Context(6, seed=seed))
        controller.bind(Here())
        assert controller.act(before).tolist() == before.tolist()  # nothing was trained before the first decision
        counts[tuple(controller.act(before).tolist())] += 1
    assert set(counts) == {(0, 0, 0, 0, 0, 5), (0, 0, 0, 0, 4, 0), (0, 0, 0, 0, 4, 4)}
    assert min(counts.values()) > 160  # of 200; the standard deviation is 11.5


@pytest.mark.parametrize("by", ["gradients", "chance"])
def test_a_stopped_run_ends_with_the_same_bits(by: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | {"later_tying": "mean", "total_steps": 60, "validate_every": 30}
    config: dict[str, Any] = {"agent": "merge-alike", "controller": MergeConfig(groups=2, by=by)}
    expected = outcome(finish(small(tiny, tmp_path / "whole", **config)))
    path = tmp_path / "stopped"
    watcher = Watcher(lambda n: interrupt() if n in (2, 5) else None)
    assert run(small(tiny, path, **config), [watcher])[1] == "interrupted"
    resume_until_it_ends(path)
    assert outcome(path) == expected


def test_too_little_left_for_gradients_keeps_the_tying() -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 20, "freeze_at_start": False})
    controller = MergeAlike(MergeConfig(groups=1, by="gradients", start=0.0, windows=10**6), Context(4, seed=0))
    controller.bind(View(env))
    env.reset(seed=0, options={"tying": OWN})
    env.step(controller.act(OWN))
    for _ in range(3):
        assert controller.act(OWN).tolist() == OWN.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": -1}, "groups must be at least 0, got -1"),
        ({"windows": -1}, "windows must be at least 0, got -1"),
        ({"by": "names"}, "by must be 'weights', 'updates', 'gradients' or 'chance', got 'names'"),
        ({"start": 0.6}, r"start and until must be in order in \[0, 1\], got 0.6 and 0.5"),
        ({"groups": 5}, "groups must be at most the number of layers, 4, got 5"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MergeAlike(MergeConfig(**settings), Context(4, seed=0))
