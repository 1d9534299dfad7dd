"""Rules of which tying is better: their scores, and the best tying by each for any L."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tying_agents.controllers import rules
from tying_agents.controllers.base import Context
from tying_agents.controllers.patterns import cycle, sequence
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_agents.running.agents import ControlledRun, drive_agent
from tying_agents.running.runner import run
from tying_agents.settings import PriorConfig

from tests.conftest import TINY
from tests.models import own
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.partition import all_tyings, is_tying, leaders


def test_scores_have_the_right_values() -> None:
    tying = np.array([0, 1, 1, 0, 4, 5])
    assert rules.groups(tying) == 4
    assert rules.effective_size(tying) == pytest.approx(2 + 2 * 2**0.46)
    assert (rules.own_first(tying), rules.own_last(tying), rules.own_ends(tying)) == (0, 1, 1)
    assert rules.contiguity(tying) == 0.5  # of layers 2 and 3, layer 2 copies the one before it
    assert rules.periodicity(np.array([0, 1, 0, 1, 0, 0])) == 0.75
    assert rules.tied_pairs(cycle)(tying) == pytest.approx(1 / 3)  # layers 0 and 3, 1 and 4, 2 and 5
    assert rules.tied_pairs(sequence)(np.array([0, 0, 2, 2, 4, 5])) == pytest.approx(2 / 3)
    alone = np.arange(6)
    assert rules.own_ends(alone) == 2 and rules.contiguity(alone) == rules.periodicity(alone) == 1


@pytest.mark.parametrize("rule", rules.PRIORS)
@pytest.mark.parametrize("n_units", [1, 2, 5, 6, 7])
def test_the_best_tying_by_a_rule_is_the_best_of_all(rule: Any, n_units: int) -> None:
    prior = rules.PRIORS[rule]
    for n_groups in range(1, n_units + 1):
        found = prior.best(n_units, n_groups)
        assert is_tying(found)
        allowed = [tying for tying in all_tyings(n_units) if len(leaders(tying)) <= n_groups]
        assert prior.score(found) == max(map(prior.score, allowed))


def test_a_prior_is_there_for_many_layers_at_once() -> None:
    best = rules.PRIORS["own-ends"].best(12, 4)
    assert best.tolist() == [0, 1, 1, 1, 1, 1, 6, 6, 6, 6, 6, 11]


def test_the_agent_keeps_to_it() -> None:
    env = gym.make("LayerTying-Synthetic-v0", n_layer=12)
    drive_agent("prior", env, settings=PriorConfig(groups=3))
    assert env.unwrapped.tying.tolist() == [0, *[1] * 6, *[7] * 5]  # type: ignore[attr-defined]
    assert find_agent("prior").light
    context = Context(12, 0, 1, 10)
    assert len(leaders(rules.make_prior(PriorConfig(), context).initial_tying())) == 3  # H_12 is 3.1


def test_as_many_groups_as_parameters_allow(tmp_path: Path) -> None:
    env = LayerTyingEnv(**TINY)
    env.reset(seed=0, options={"tying": np.array([0, 1, 1, 3])})
    of_three = env.trainer.count_trainable()
    sizes = [env.parameters_of(tying) for tying in ([0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 3], [0, 1, 2, 3])]
    assert sizes[2] == of_three and len(set(np.diff(sizes))) == 1
    for most, expected in ((of_three, [0, 1, 1, 3]), (of_three - 1, [0, 1, 1, 1]), (10**9, [0, 1, 2, 3])):
        env = LayerTyingEnv(**TINY)
        drive_agent("prior", env, settings=PriorConfig(max_parameters=most), seed=0)
        assert env.tying.tolist() == expected
    assert not ControlledRun(rules.make_prior(PriorConfig(max_parameters=1), Context(4, 0))).chooses
    blocks: Any = env.trainer.network.blocks
    never = of_three - 3 * sum(parameter.numel() for parameter in blocks[0].parameters())
    message = rf"at least {sizes[0]:,}, that of one group \({never:,} of them are never tied\), got 5,000"
    with pytest.raises(ValueError, match=message):
        folder, settings = tmp_path / "run", PriorConfig(max_parameters=5000)
        run(RunConfig("prior", 0, run_dir=folder, env=EnvConfig(**TINY), controller=settings))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"tying must be one of 4 units in canonical form, got \[0, 0, 1, 1\]"):
        env.parameters_of([0, 0, 1, 1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tied_parameters": "matrices", "delta_rank": 2},
        {"units": "sublayers", "residual_scale": "sqrt"},
        {"model": "llama", "n_kv_head": 1, "dropout": 0.0},
        {"model": "bert"},
        {"embedding_dim": 8, "step_embedding": "learned", "frozen_weights": "redrawn"},
        None,  # a network of the user's own
    ],
)
def test_parameters_are_the_same_before_a_run_has_begun(settings: dict[str, Any] | None) -> None:
    env = own() if settings is None else LayerTyingEnv(**TINY | settings)
    rule, most = rules.PRIORS["own-first"], max(env.kinds.sizes)
    tyings = [env.kinds.units_named(rules.best_by(rule, env.kinds, groups)) for groups in (1, 2, most)]
    before = [env.parameters_of(tying) for tying in tyings]
    env.reset(seed=0)
    assert [env.parameters_of(tying) for tying in tyings] == before
    assert before[2] == env.trainer.count_conventional() > before[1] > before[0]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="max_parameters must be at least 0, got -1"):
        PriorConfig(max_parameters=-1)
    with pytest.raises(ValueError, match="not both, got groups=2 and max_parameters=9"):
        PriorConfig(groups=2, max_parameters=9)
    with pytest.raises(ValueError, match=r"rule must be one of 'own-ends', .* got 'best'"):
        PriorConfig(rule="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups must be at least 0, got -1"):
        PriorConfig(groups=-1)
    with pytest.raises(ValueError, match="groups must be between 1 and the number of layers 3, got 4"):
        rules.make_prior(PriorConfig(groups=4), Context(3, 0, 1, 10))
