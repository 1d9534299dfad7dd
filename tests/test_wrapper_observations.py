"""Wrappers of observations: how far training is, and tyings as ones and zeros."""

import numpy as np

from tests.conftest import Make
from tying_env import partition
from tying_env.primary.evaluation import MAX_MEAN_LOSS
from tying_env.wrappers import (
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
