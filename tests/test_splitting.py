"""Gradients of layers that share weights, and the controller that goes by them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.callbacks import Callback, Record
from tying_agents.controllers.base import Context
from tying_agents.controllers.splitting import ShareThenSplit, most_apart, split
from tying_agents.controllers.view import View
from tying_agents.loop import Loop
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import run
from tying_agents.settings import ProbeConfig, SplitConfig

from tests.conftest import TINY
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.budget import BudgetSpent
from tying_env.env import LayerTyingEnv
from tying_env.partition import leaders

pytestmark = pytest.mark.usefixtures("short_text")

OWN, TIED = np.arange(4), np.zeros(4, dtype=np.int64)


def begun(tying: Any, **settings: Any) -> LayerTyingEnv:
    env = LayerTyingEnv(**TINY | {"total_steps": 60} | settings)
    env.reset(seed=0, options={"tying": np.array(tying)})
    env.step(np.array(tying))
    return env


@pytest.mark.parametrize("tying", [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 2, 3]])
def test_agreement_is_the_cosine_between_gradients_of_an_untied_copy(tying: list[int]) -> None:
    env = begun(tying)
    found = env.gradient_agreement(6)
    # An untied network with the same values: gradients of its layers, by torch.
    model = copy.deepcopy(env.trainer.network.model)
    blocks = model.get_submodule("transformer.h")
    for block in blocks:  # a copy of tied blocks is tied as well
        for path, parameter in list(block.named_parameters(remove_duplicate=False)):
            module, _, name = path.rpartition(".")
            setattr(block.get_submodule(module), name, torch.nn.Parameter(parameter.detach().clone()))
    windows = torch.from_numpy(np.asarray(env.windows("train", 6), dtype=np.int64))
    model.eval()
    loss = torch.nn.functional.cross_entropy(model(windows[:, :-1]).logits.flatten(0, 1), windows[:, 1:].flatten())
    loss.backward()
    gradients = torch.stack([torch.cat([p.grad.flatten() for p in b.parameters()]) for b in blocks]).double()
    expected = torch.nn.functional.cosine_similarity(gradients[:, None], gradients[None], dim=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (np.diag(found) == 1).all() and np.abs(found - found.T).max() < 1e-12
    if tying != [0, 1, 2, 3]:
        assert found.min() < 0.99


def test_images_are_measured_as_they_are_trained_on() -> None:
    settings: dict[str, Any] = {"model": "vit", "dataset": "digits", "n_layer": 3, "n_embd": 8, "n_head": 2}
    env = LayerTyingEnv(**settings, batch_size=4, k=2, total_steps=20, validation_windows=8, device="cpu")
    env.reset(seed=0, options={"tying": [0, 0, 0]})
    env.step(np.zeros(3, dtype=np.int64))
    given: list[Any] = []
    env.trainer.network.model.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs), with_kwargs=True)
    env.gradient_agreement(6)
    pixels = torch.cat([batch["pixel_values"] for batch in given])
    assert pixels.shape[0] == 6 and pixels.dtype == torch.float32
    assert abs(float(pixels.mean())) < 0.5 and 0.5 < float(pixels.std()) < 2  # of all training pixels 0 and 1


def test_measuring_agreement_leaves_everything_as_it_was() -> None:
    env, other = begun([0, 1, 1, 0], dropout=0.1), begun([0, 1, 1, 0], dropout=0.1)
    parameters = list(map(id, env.trainer.network.model.parameters()))
    env.gradient_agreement()
    assert list(map(id, env.trainer.network.model.parameters())) == parameters
    assert all(p.grad is None for p in env.trainer.network.model.parameters())
    for action in (TIED, np.array([0, 0, 2, 2])):
        assert env.step(action)[1] == other.step(action)[1]
    with pytest.raises(ValueError, match="max_windows must be a whole number of at least 1, got 0"):
        env.gradient_agreement(0)


@pytest.mark.parametrize("weights", ["held", "redrawn"])
def test_layers_whose_weights_are_not_held_have_no_agreement(weights: str) -> None:
    env = LayerTyingEnv(**TINY | {"frozen_weights": weights})
    env.reset(seed=0)
    found = env.gradient_agreement()
    assert np.isfinite(found[0, 1]) == (weights == "held")
    assert (np.diag(found) == 1).all()


def test_layers_of_two_kinds_are_not_compared() -> None:
    env = begun([0, 0, 0, 0])
    kinds = np.array([0, 0, 2, 2])
    env.trainer.tied.kinds = kinds
    found = env.gradient_agreement()
    assert np.isnan(found[:2, 2:]).all() and np.isfinite(found[:2, :2]).all() and np.isfinite(found[2:, 2:]).all()


def test_a_controller_pays_for_what_it_measures() -> None:
    env = begun([0, 0, 0, 0])
    view = View(env)
    np.testing.assert_array_equal(view.gradient_agreement(), env.gradient_agreement())
    assert env.trial_steps == 1
    view.gradient_agreement(9)  # 4 + 4 + 1
    assert env.trial_steps == 4
    view.fork().gradient_agreement()
    assert env.trial_steps == 5


def test_the_pair_that_agrees_least_is_parted_and_the_others_go_with_whom_they_agree() -> None:
    cosines = np.array([[1, 0.1, 0.2, 0.9], [0.1, 1, 0.8, 0.0], [0.2, 0.8, 1, 0.3], [0.9, 0.0, 0.3, 1]])
    assert most_apart(TIED, cosines) == (1, 3)
    assert split(TIED, cosines, 1, 3).tolist() == [0, 1, 1, 0]
    assert most_apart(np.array([0, 1, 1, 0]), cosines) == (1, 2)
    assert split(np.array([0, 1, 1, 0]), cosines, 1, 2).tolist() == [0, 1, 2, 0]
    assert most_apart(OWN, cosines) is None
    unknown = np.full((4, 4), np.nan)
    assert most_apart(TIED, unknown) is None
    unknown[2, 3] = unknown[3, 2] = 0.5
    assert most_apart(TIED, unknown) == (2, 3)


@pytest.mark.parametrize(("settings", "groups"), [({"groups": 3, "threshold": 1.0}, 3), ({"threshold": -1.0}, 1)])
def test_it_splits_until_there_are_so_many_groups_or_all_agree(settings: dict[str, Any], groups: int) -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 40})
    loop = drive_agent("share-then-split", env, settings=SplitConfig(**settings), seed=0)
    assert len(leaders(env.tying)) == groups
    assert env.train_step + env.trial_steps == 40
    assert env.trial_steps == (2 if groups == 3 else env.trial_steps) and loop.finished


def test_it_stays_after_its_share_of_the_run() -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 40})
    drive_agent("share-then-split", env, settings=SplitConfig(threshold=1.0, until=0.1), seed=0)
    assert len(leaders(env.tying)) == 2  # decided at step 2; at step 4 it is too late
    drive_agent("share-then-split", env, settings=SplitConfig(threshold=1.0, every=3, until=1.0), seed=0)
    assert len(leaders(env.tying)) == 4


def test_a_run_of_it_is_resumed(tiny: dict[str, Any], tmp_path: Path) -> None:
    config: dict[str, Any] = {"agent": "share-then-split", "controller": SplitConfig(threshold=1.0, every=2)}
    expected = outcome(finish(small(tiny | {"total_steps": 30}, tmp_path / "whole", **config)))
    for stop_at in (1, 3, 4):
        path = tmp_path / f"stopped{stop_at}"
        status = run(
            small(tiny | {"total_steps": 30}, path, **config),
            [Watcher(lambda n, at=stop_at: interrupt() if n == at else None)],
        )[1]
        assert status == "interrupted"
        resume_until_it_ends(path)
        assert outcome(path) == expected


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"groups": 5}, "groups must be at most the number of layers, 4, got 5"),
        ({"groups": -1}, "groups must be at least 0, got -1"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"threshold": 2.0}, "threshold must be a cosine, from -1 to 1, got 2.0"),
        ({"until": 1.5}, r"until must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ShareThenSplit(SplitConfig(**settings), Context(4, seed=0))


def test_a_probe_pays_for_itself_and_its_groups_are_trained_from_the_start() -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 40, "schedule": "cosine"})
    loop = drive_agent("probe-then-tie", env, settings=ProbeConfig(groups=2, threshold=1.0, share=0.25), seed=0)
    assert env.trial_steps == 11  # five decisions, and a batch for the gradients
    assert env.train_step == 29 and loop.finished
    found = env.tying
    assert len(leaders(found)) == 2
    # The trial is training with all layers tied from the start, and its gradients decide.
    trial = LayerTyingEnv(**TINY | {"total_steps": 40, "schedule": "cosine"})
    trial.reset(seed=0, options={"tying": TIED})
    for _ in range(5):
        trial.step(TIED)
    agreement = trial.gradient_agreement()
    pair = most_apart(TIED, agreement)
    assert pair is not None and found.tolist() == split(TIED, agreement, *pair).tolist()
    # And the run is one with that tying from the start, but for its end.
    fixed = LayerTyingEnv(**TINY | {"total_steps": 40, "schedule": "constant"})
    fixed.reset(seed=0, options={"tying": found})
    rewards = [fixed.step(found)[1] for _ in range(3)]
    probed = LayerTyingEnv(**TINY | {"total_steps": 40, "schedule": "constant"})
    seen: list[float] = []

    class Noting(Callback):
        def decision_made(self, loop: Loop, record: Record) -> None:
            seen.append(record["reward"])

    drive_agent("probe-then-tie", probed, [Noting()], settings=ProbeConfig(groups=2, threshold=1.0, share=0.25))
    assert seen[:3] == rewards


def test_a_run_that_is_too_short_for_its_probe_says_so() -> None:
    env = LayerTyingEnv(**TINY | {"total_steps": 8})
    with pytest.raises(BudgetSpent, match="a trial of 2 training steps is more than is left for trials, 0: of 8 "):
        drive_agent("probe-then-tie", env, settings=ProbeConfig(share=0.9), seed=0)
