"""Wrappers of observations: how far training is, and tyings as ones and zeros."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.run_config import RunConfig
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import run

from tests.conftest import TINY, Make
from tying_env import EnvConfig, partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.evaluation import MAX_MEAN_LOSS
from tying_env.runs import RunDirectory
from tying_env.wrappers import (
    GradientAgreementObservation,
    OneHotObservation,
    TrainingProgressObservation,
    wrap,
)


def test_progress_says_tying_loss_time_and_independent_layers(make: Make) -> None:
    env = TrainingProgressObservation(make())
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [0, 0, 0, 0, MAX_MEAN_LOSS, 0, 0.25]
    observation, *_, info = env.step(np.array([0, 1, 0, 1]))
    expected = [0, 1, 0, 1 / 3, info["train_loss"], 4 / 20, 0.5]
    np.testing.assert_allclose(observation, expected, rtol=1e-6)
    assert observation.dtype == np.float32
    while not env.step(np.array([0, 1, 2, 3]))[3]:
        pass
    assert env.observation_space.contains(observation)


def test_progress_is_inside_its_space_when_training_diverged(make: Make) -> None:
    env = TrainingProgressObservation(make(learning_rate=1e30))
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(np.array([0, 1, 2, 3]))
    assert terminated
    assert env.observation_space.contains(observation)


READERS = ("dqn", "repaired-dqn", "layer-sweep-dqn", "share-then-split", "hill-climbing", "annealing", "tree-search")
READERS += ("merge-alike", "change-little", "thompson", "mcts")


@pytest.mark.parametrize("name", ["training-progress", "one-hot", "gradient-agreement"])
def test_an_agent_that_reads_the_tying_is_refused_where_it_is_shown_something_else(make: Make, name: str) -> None:
    env = wrap(make(), [name])
    for agent in READERS:
        with pytest.raises(ValueError, match=f"the agent '{agent}' reads the tying in force, MultiDiscrete.* be shown"):
            drive_agent(agent, env)
    assert drive_agent("random", env).finished


@pytest.mark.parametrize("name", ["single-layer", "layer-sweep"])
def test_an_agent_that_gives_a_whole_tying_is_refused_where_an_action_is_another(
    make: Make, name: str, tmp_path: Path, text_folder: Path
) -> None:
    for agent in ("random", "sandwich", "tpe"):
        with pytest.raises(ValueError, match=f"the agent '{agent}' gives a whole tying, 4 numbers, .* of Discrete"):
            drive_agent(agent, wrap(make(), [name]))
    env = EnvConfig(**TINY | {"dataset": str(text_folder)})
    with pytest.raises(ValueError, match="gives a whole tying"):
        run(RunConfig("random", wrappers=(name,), env=env, run_dir=tmp_path / "run"))
    assert not list(tmp_path.iterdir())  # nothing to resume


def test_progress_keeps_the_layer_that_a_sweep_asks_for(make: Make) -> None:
    env = wrap(make(), ["layer-sweep", "training-progress"])
    observation, _ = env.reset(seed=0)
    assert observation[4] == np.float32(1 / 3)


def test_one_hot_observations_are_as_many_as_tyings(make: Make) -> None:
    env = OneHotObservation(make())
    seen = set()
    for tying in partition.all_tyings(4):
        observation, _ = env.reset(seed=0, options={"tying": tying})
        places = np.split(observation, [1, 3, 6])
        assert [int(place.argmax()) for place in places] == tying.tolist()
        assert observation.sum() == 4
        seen.add(observation.tobytes())
    assert len(seen) == partition.bell_number(4)


def test_agreement_is_observed_and_paid_for(make: Make) -> None:
    env = GradientAgreementObservation(make(total_steps=20), windows=6)
    inner = env.unwrapped
    assert isinstance(inner, LayerTyingEnv)
    observation, info = env.reset(seed=0, options={"tying": [0, 1, 1, 3]})
    np.testing.assert_allclose(observation, [0, 1, 0.5, 1, 0, 0, 0, 0, 0, 0])
    assert info["lowest_agreement"] == 1
    observation, *_, info = env.step(np.array([0, 0, 2, 2]))
    cosines = inner.gradient_agreement(6)
    np.testing.assert_allclose(observation[4:], cosines[np.triu_indices(4, 1)], rtol=1e-6)
    assert info["lowest_agreement"] == pytest.approx(min(cosines[0, 1], cosines[2, 3]))
    assert inner.trial_steps == 2  # six windows are two batches
    state = env.state_dict()
    while not env.step(np.array([0, 1, 2, 3]))[3]:
        pass
    assert inner.train_step + inner.trial_steps == 20
    assert env.observation_space.contains(observation) and observation.dtype == np.float32
    other = GradientAgreementObservation(make(total_steps=20), windows=6)
    other.load_state_dict(state)
    assert other.state_dict() == state
    with pytest.raises(ValueError, match=r"the state's cosines must have the shape \(4, 4\), got \(1, 1\)"):
        other.load_state_dict({"cosines": [[1.0]]})
    with pytest.raises(ValueError, match="needs the tying below it"):
        wrap(make(), ["one-hot", "gradient-agreement"])
    with pytest.raises(ValueError, match="windows must be at least 0, got -1"):
        GradientAgreementObservation(make(), windows=-1)


def test_an_agent_of_stable_baselines_learns_from_agreement(tiny: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig("a2c", run_dir=tmp_path / "run", env=EnvConfig(**tiny), wrappers=("gradient-agreement",))
    directory, status = run(config)
    assert status == "finished"
    records = RunDirectory.open(directory.path).read_metrics()
    assert all(-1 <= record["lowest_agreement"] <= 1 for record in records)
    assert records[-1]["trial_steps"] + records[-1]["train_step"] == tiny["total_steps"]
