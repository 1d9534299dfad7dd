"""Replay: what is kept, what is drawn from it, and what a batch of it teaches."""

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.controllers.base import Transition
from tying_agents.controllers.replay import ReplayBuffer

from tests.controllers import dqn, drive, numbered, vector


@pytest.mark.parametrize("added", [1, 3, 5, 6, 17])
def test_replay_samples_only_what_is_kept_and_whole(added: int) -> None:
    buffer = ReplayBuffer(3, 5, np.random.default_rng(0))
    for n in range(added):
        buffer.add(numbered(n))
    kept = range(max(0, added - 5), added)
    assert len(buffer) == len(kept)
    batch = buffer.sample(300)
    assert {int(reward) for reward in batch.reward} == set(kept)  # all of them come up, no other does
    for n in range(300):
        one = Transition(*(part[n] for part in batch))
        expected = numbered(int(one.reward))
        assert all(np.array_equal(a, b) for a, b in zip(one, expected, strict=True))


def test_replay_is_uniform_and_equal_for_equal_seeds() -> None:
    first, second, third = (ReplayBuffer(3, 8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for n, buffer in itertools.product(range(11), (first, second, third)):
        buffer.add(numbered(n))
    drawn = first.sample(8000).reward
    assert np.array_equal(drawn, second.sample(8000).reward)
    assert not np.array_equal(drawn, third.sample(8000).reward)
    counts = np.bincount(drawn.astype(int), minlength=11)
    assert counts[:3].tolist() == [0, 0, 0]
    assert counts[3:] == pytest.approx(1000, abs=150)  # 5 standard deviations of a binomial


def test_replay_keeps_copies() -> None:
    buffer = ReplayBuffer(3, 5, np.random.default_rng(0))
    given = Transition(vector(0, 0, 0), vector(0, 1, 1), -1.0, vector(0, 1, 1), False)
    buffer.add(given)
    for part in (given.observation, given.action, given.next_observation):
        part[:] = 9
    assert buffer.sample(1).action.tolist() == [[0, 1, 1]]


def test_replay_of_one_is_no_replay_and_exploration_does_not_depend_on_it() -> None:
    plain, one, many = dqn(12), dqn(12, replay_size=1, replay_batch=1), dqn(12, replay_size=40)
    expected, of_one, of_many = drive(plain, 60), drive(one, 60), drive(many, 60)
    # The same up to rounding: the one transition comes as a batch of one.
    assert [m["q_loss"] for _, m in of_one] == pytest.approx([m["q_loss"] for _, m in expected], rel=1e-3)
    assert [m["explored"] for _, m in of_many] == [m["explored"] for _, m in expected]
    random = [n for n, (_, m) in enumerate(expected) if m["explored"]]
    assert [of_many[n][0] for n in random] == [expected[n][0] for n in random]


def test_a_batch_is_the_mean_over_its_transitions() -> None:
    """The gradient of a batch of mixed transitions, terminal ones among them, against one by one."""
    settings: dict[str, Any] = {"target_every": 3, "double_q": True, "dueling": True}
    controller = dqn(5, replay_size=6, replay_batch=6, **settings)
    drive(controller, 13)
    before, state = copy.deepcopy(controller.network), controller.state_dict()
    controller.update(numbered(0, 5))
    replay = ReplayBuffer(5, 6, np.random.default_rng(0))
    replay.load_state_dict(state["replay"])
    replay.add(numbered(0, 5))
    batch = replay.sample(6)
    losses = []
    for n in range(6):
        observation, action, reward, following, terminated = (part[n] for part in batch)
        best = before.table(following).argmax(1)
        target_network = copy.deepcopy(before)
        target_network.load_state_dict(state["target"])
        future = sum(target_network.table(following)[i, best[i]].item() for i in range(4))
        target = reward + (0.0 if terminated else 0.99 * future)
        predicted = sum(before.table(observation)[i, action[i + 1]] for i in range(4))
        losses.append((predicted - target) ** 2)
    mean = torch.stack([torch.as_tensor(loss) for loss in losses]).mean()
    mean.backward()
    assert controller.metrics()["q_loss"] == pytest.approx(mean.item(), rel=1e-4)
    for mine, theirs in zip(before.parameters(), controller.network.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
