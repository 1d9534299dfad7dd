"""Networks that draw from the generators of Python, NumPy and torch: equal seeds give equal runs."""

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models import own
from tests.test_references import Net
from tying_env.seeding import GlobalStreams, all_randomness_from, torch_stream

ACTIONS = [np.array(action) for action in ([0, 0, 0], [0, 1, 0], [0, 0, 2])]


class Drawing(Net):
    """Draws weights, noise and which layers are left out, in training and when it is measured."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.out.weight += torch.as_tensor(np.random.standard_normal((1, 3)))

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.as_tensor(np.random.standard_normal(x.shape), dtype=x.dtype) + random.gauss(0.0, 0.1)
        for layer in self.layers:
            x = x if torch.rand(()) < 0.2 else layer(x)
        return self.out(x)  # type: ignore[no-any-return]


def disturb(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def outside() -> list[Any]:
    return [random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state().tolist()]


def life(seed: int, **settings: Any) -> list[Any]:
    """What is told of a run, while the program around it draws numbers of its own."""
    env = own(Drawing, learning_rate=0.02, **settings)
    told: list[Any] = [env.reset(seed=seed)]
    for action in ACTIONS:
        told.append(env.step(action))
        random.random()
        np.random.random()
        torch.rand(3)
    return [*told, env.evaluate("validation"), env.evaluate("validation")]


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"prefetch": True}, {"checkpoint_blocks": True}])
def test_equal_seeds_give_equal_runs_and_leave_the_programs_generators_alone(settings: dict[str, Any]) -> None:
    told = []
    for i in range(2):
        disturb(i)
        before = outside()
        env = own(Drawing, **settings)
        env.reset(seed=3)
        env.step(ACTIONS[0])
        np.testing.assert_equal(outside(), before)
        told.append(life(3, **settings))
    np.testing.assert_equal(told[0], told[1])
    assert told[0][-1] == told[0][-2]  # measuring draws the same each time
    assert life(4, **settings)[1][1] != told[0][1][1]


def test_forks_restored_states_and_pickles_continue_the_same_streams() -> None:
    env = own(Drawing)
    env.reset(seed=0)
    env.step(ACTIONS[0])
    twin = own(Drawing)
    twin.load_state_dict(copy.deepcopy(env.state_dict()))
    others = [twin, env.fork(), pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    disturb(0)
    expected = [env.step(action) for action in ACTIONS[1:]]
    for i, other in enumerate(others):
        disturb(i + 1)
        np.testing.assert_equal([other.step(action) for action in ACTIONS[1:]], expected)


def test_a_stop_between_two_training_steps_changes_nothing() -> None:
    whole, parts = own(Drawing), own(Drawing)
    for env in (whole, parts):
        env.reset(seed=0)
    expected = whole.trainer.train(4).losses
    found = [*parts.trainer.train(1).losses, *parts.trainer.train(3).losses]
    assert found == expected


def test_a_state_from_before_there_were_streams_begins_them_and_a_damaged_one_is_refused() -> None:
    env = own(Drawing)
    env.reset(seed=0)
    state = env.state_dict()
    del state["trainer"]["streams"]
    own(Drawing).load_state_dict(state)
    streams = GlobalStreams(0)
    good = streams.state_dict()
    wrong = [{}, None, 3, good | {"python": [3, [1, 2], None]}, good | {"numpy": {}}, good | {"torch": "00"}]
    for state["trainer"]["streams"] in [*wrong, good | {"torch": 3}]:
        with pytest.raises(ValueError, match="not a state of the streams"):
            env.load_state_dict(state)
    assert streams.state_dict() == good


def test_what_happens_once_draws_from_its_generators_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        with all_randomness_from(torch_stream(seed, "weights")):
            drawn.append([random.random(), float(np.random.random()), nn.Linear(1, 1).weight.item()])
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])
