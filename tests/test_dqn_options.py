"""The options that the paper's DQN does not have: off they change nothing, on they do what their papers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from tying_agents.controllers.base import Context, Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.controllers.replay import RewardNormaliser
from tying_agents.settings import OPTIONS, DQNConfig

from tests.controllers import COMBINATIONS, dqn, drive, equal, numbered, short, vector, weights
from tying_env import partition
from tying_env.seeding import numpy_stream, torch_randomness_from, torch_stream

# The paper's algorithm, untouched


class PaperDQN:
    """Algorithm 1, lines 20-27, written down as plainly as can be; it knows of no options."""

    def __init__(self, n_layer: int, seed: int) -> None:
        self.n_units, self.epsilon, self.explored, self.loss = n_layer, 1.0, False, 0.0
        self.rng = numpy_stream(seed, "controller")
        self.valid = torch.ones(n_layer - 1, n_layer, dtype=torch.bool).tril(1)
        with torch_randomness_from(torch_stream(seed, "controller weights")):
            self.network = nn.Sequential(
                nn.Linear(n_layer - 1, 128), nn.ReLU(), nn.Linear(128, (n_layer + 2) * (n_layer - 1) // 2)
            )
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def values(self, observation: partition.IntVector) -> torch.Tensor:
        state = torch.from_numpy(observation[1:].astype(np.float32))
        return torch.full(self.valid.shape, -torch.inf).masked_scatter(self.valid, self.network(state))

    def act(self, observation: partition.IntVector) -> partition.IntVector:
        self.explored = bool(self.rng.random() < self.epsilon)
        if self.explored:
            return partition.uniform_random_action(self.n_units, self.rng)
        with torch.no_grad():
            return np.concatenate([[0], self.values(observation).argmax(dim=1).numpy()])

    def update(self, transition: Transition) -> None:
        chosen = torch.from_numpy(transition.action[1:])[:, None]
        with torch.no_grad():
            future = 0.0 if transition.terminated else self.values(transition.next_observation).amax(dim=1).sum()
            target = torch.as_tensor(transition.reward + 0.99 * future, dtype=torch.float32)
        loss = nn.functional.mse_loss(self.values(transition.observation).gather(1, chosen).sum(), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss, self.epsilon = loss.item(), max(self.epsilon * 0.95, 0.1)

    def metrics(self) -> dict[str, float]:
        return {"epsilon": self.epsilon, "explored": float(self.explored), "q_loss": self.loss}


@pytest.mark.parametrize("n_layer", [2, 3, 6, 12, 48])
def test_by_default_it_is_the_papers_algorithm_bit_for_bit(n_layer: int) -> None:
    for seed in range(3):
        paper, ours = PaperDQN(n_layer, seed), dqn(n_layer, seed)
        assert equal(weights(paper.network), weights(ours.network))
        assert drive(paper, 80) == drive(ours, 80)
        assert equal(weights(paper.network), weights(ours.network))


def test_every_option_is_off_by_default() -> None:
    assert tuple(DQNConfig().options) == OPTIONS
    off = {"replay_size": 0, "target_every": 0, "double_q": False, "dueling": False}
    assert off.items() <= DQNConfig().options.items()
    assert (DQNConfig().reward_scale, DQNConfig().state_scale) == ("none", "raw")
    assert equal(weights(dqn().network), weights(dqn(replay_batch=3).network))
    assert drive(dqn(), 30) == drive(dqn(replay_batch=3), 30)


def test_every_option_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "dqn_options.md").read_text(encoding="utf-8")
    for name in (*OPTIONS, "replay_updates", "exploration_share", "q_head", "q_rank"):
        assert f"`--{name.replace('_', '-')}" in page


# Several updates, and a straight line of exploration


def test_several_updates_are_as_many_as_after_several_decisions() -> None:
    """From a buffer with one decision, n updates are those of n decisions that are all that one."""
    several, single = dqn(3, replay_size=1, replay_updates=3), dqn(3, replay_size=1)
    several.update(numbered(1))
    for _ in range(3):
        single.update(numbered(1))
    assert equal(weights(several.network), weights(single.network))
    assert several.epsilon == 0.95 and single.epsilon == pytest.approx(0.95**3)


def test_epsilon_falls_in_a_straight_line_over_its_share_of_the_decisions() -> None:
    config = DQNConfig(exploration_share=0.5, epsilon_floor=0.2)
    controller = FactorizedDQN.create(config, Context(3, seed=0, decisions=16))
    seen = []
    for _ in range(12):
        seen.append(controller.epsilon)
        controller.update(numbered(1))
    assert seen == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2, 0.2])
    with pytest.raises(ValueError, match=r"exploration_share is one of all decisions, and nobody can tell .* got 0.5"):
        FactorizedDQN.create(config, Context(3, seed=0))


# Target network and double Q-learning


def test_the_target_network_is_renewed_after_every_n_updates() -> None:
    controller = dqn(3, target_every=3)
    target = controller._target
    assert target is not None
    copied = weights(controller.network)
    for n in range(1, 11):
        controller.update(numbered(1))
        assert not equal(weights(controller.network), copied)
        if n % 3 == 0:
            copied = weights(controller.network)
        assert equal(weights(target), copied)
    assert not any(parameter.grad is not None for parameter in target.parameters())


def test_a_target_network_renewed_at_every_update_is_none() -> None:
    assert drive(dqn(6), 50) == drive(dqn(6, target_every=1), 50) != drive(dqn(6, target_every=2), 50)


def by_hand(**settings: Any) -> FactorizedDQN:
    """L = 3, one hidden unit, round weights: the network of test_agents.test_an_update_by_hand."""
    controller = dqn(3, hidden_units=1, gamma=0.5, **settings)
    with torch.no_grad():
        first, _, last = controller.network
        first.weight.copy_(torch.tensor([[1.0, 2.0]]))
        first.bias.fill_(1.0)
        #                                 layer 1: 0, 1; layer 2: 0, 1, 2
        last.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [-1.0], [0.5]]))
        last.bias.zero_()
    return controller


def test_double_q_by_hand() -> None:
    """Layer by layer: the network chooses, the target network values."""
    transition = Transition(vector(0, 0, 0), vector(0, 1, 1), -5.0, vector(0, 1, 1), False)
    for double, expected in ((False, 64.0), (True, 72.25)):
        controller = by_hand(target_every=2, double_q=double)
        target = controller._target
        assert target is not None
        target.load_state_dict(controller.network.state_dict())
        with torch.no_grad():
            target[2].weight.copy_(torch.tensor([[5.0], [0.25], [-1.5], [1.0], [2.0]]))
        # s' = (0, 1, 1): hidden = relu(1 + 1*1 + 2*1) = 4
        # the network: (4, 8) and (12, -4, 2), so it chooses 1 and 0; the target network: (20, 1) and (-6, 4, 8)
        # plain: 20 + 8 = 28, target = -5 + 14 = 9;      double: 1 - 6 = -5, target = -5 - 2.5 = -7.5
        # Q(s, a) = 2 - 1 = 1 at s = 0; loss = (1 - 9)^2 = 64 or (1 + 7.5)^2 = 72.25
        controller.update(transition)
        assert controller.metrics()["q_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("every", [0, 1])
def test_double_q_without_a_second_network_is_refused(every: int) -> None:
    with pytest.raises(ValueError, match=rf"double_q needs target_every of at least 2.*got target_every={every}"):
        DQNConfig(double_q=True, target_every=every)


# Dueling and the scale of states


def test_dueling_by_hand() -> None:
    controller = dqn(3, hidden_units=1, dueling=True)
    first, _, last = controller.network
    assert last.out_features == 5 + 2  # the choices, then a value for each of layers 1 and 2
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(1.0)
        last.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [-1.0], [1.0], [10.0], [-20.0]]))
        last.bias.zero_()
    # layer 1: advantages 1, 2, mean 1.5, value 10; layer 2: advantages 3, -1, 1, mean 1, value -20
    table = controller.values(vector(0, 0, 0))
    assert table.tolist() == [[9.5, 10.5, -np.inf], [-18.0, -22.0, -20.0]]
    # d Q(s, a) / d outputs for a = (0, 1, 1): own choice 1 - 1/n, the others of its layer -1/n, each value 1
    controller.update(Transition(vector(0, 0, 0), vector(0, 1, 1), -12.0, vector(0, 0, 0), True))
    # Q(s, a) = 10.5 - 22 = -11.5, so d loss / d Q = 2 * 0.5 = 1
    assert controller.metrics()["q_loss"] == pytest.approx(0.25)
    expected = [-1 / 2, 1 / 2, -1 / 3, 2 / 3, -1 / 3, 1, 1]
    assert last.bias.grad.tolist() == pytest.approx(expected)
    assert all(parameter.grad.isfinite().all() for parameter in controller.network.parameters())


def test_a_layers_dueling_values_average_to_its_value() -> None:
    controller = dqn(12, dueling=True)
    observation = partition.canonicalise(partition.uniform_random_action(12, np.random.default_rng(0)))
    table = controller.values(observation)
    outputs = controller.network(torch.from_numpy(observation[1:].astype(np.float32)))
    for i in range(1, 12):
        assert table[i - 1, : i + 1].mean().item() == pytest.approx(outputs[-11:][i - 1].item(), abs=1e-5)
        assert table[i - 1, i + 1 :].eq(-torch.inf).all()


def test_unit_states_are_layer_numbers_over_the_last_ones() -> None:
    raw, unit = dqn(5), dqn(5, state_scale="unit")
    assert equal(weights(raw.network), weights(unit.network))
    with torch.no_grad():
        raw.network[0].weight /= 4
    observation = vector(0, 0, 2, 0, 4)
    torch.testing.assert_close(raw.values(observation), unit.values(observation))


def test_unit_states_keep_the_first_values_small() -> None:
    """At L = 48 raw layer numbers make the sum of maxima a hundred before anything was learned."""
    states = [partition.canonicalise(partition.uniform_random_action(48, np.random.default_rng(n))) for n in range(20)]

    def largest(controller: FactorizedDQN) -> float:
        return float(np.mean([controller.values(state).amax(1).sum().item() for state in states]))

    assert np.mean([largest(dqn(48, seed)) for seed in range(5)]) > 60
    assert np.mean([largest(dqn(48, seed, state_scale="unit")) for seed in range(5)]) < 10


# Rewards


def test_the_normaliser_by_hand() -> None:
    normaliser = RewardNormaliser()
    normaliser.add(-4.0)
    assert normaliser.normalise(np.array([-4.0, -1.0])).tolist() == [0.0, 3.0]  # no spread yet: only the mean
    for reward in (-2.0, -6.0, -4.0):
        normaliser.add(reward)
    # mean -4, squared deviations 0 + 4 + 4 + 0 = 8, variance 8 / 4 = 2
    assert (normaliser.count, normaliser.mean, normaliser.std) == (4, -4.0, pytest.approx(2**0.5))
    assert normaliser.normalise(np.array([-2.0, -4.0])).tolist() == pytest.approx([2**0.5, 0.0])


def test_the_normaliser_is_exact_where_sums_of_squares_are_not() -> None:
    rewards = -1e9 - np.random.default_rng(0).random(500)
    normaliser = RewardNormaliser()
    for reward in rewards.tolist():
        normaliser.add(reward)
    assert normaliser.mean == pytest.approx(rewards.mean(), rel=1e-12)
    assert normaliser.std == pytest.approx(rewards.std(), rel=1e-6)


def test_equal_rewards_divide_by_one() -> None:
    normaliser = RewardNormaliser()
    for _ in range(5):
        normaliser.add(-0.1)
    assert normaliser.normalise(np.array(-0.1)).item() == pytest.approx(0.0, abs=1e-12)


def test_a_reward_is_counted_before_it_is_learned_from() -> None:
    controller = by_hand(reward_scale="running")
    # s = (0, 0, 0), a = (0, 1, 1): Q = 1. The first reward is its own mean: 0, terminal, loss (1 - 0)^2.
    controller.update(Transition(vector(0, 0, 0), vector(0, 1, 1), -300.0, vector(0, 1, 1), True))
    assert controller.metrics()["q_loss"] == pytest.approx(1.0)
    predicted = controller.values(vector(0, 0, 0))
    # then -100: mean -200, deviation 100, so this one is worth 1
    controller.update(Transition(vector(0, 0, 0), vector(0, 1, 1), -100.0, vector(0, 1, 1), True))
    q = (predicted[0, 1] + predicted[1, 1]).item()
    assert controller.metrics()["q_loss"] == pytest.approx((q - 1.0) ** 2, abs=1e-6)


def test_replayed_rewards_are_normalised_by_what_is_known_now() -> None:
    controller = dqn(3, replay_size=5, replay_batch=200, reward_scale="running", gamma=0.0)
    for reward in (-300.0, -100.0):
        controller.update(Transition(vector(0, 0, 0), vector(0, 1, 1), reward, vector(0, 1, 1), False))
    batch = controller._replay.sample(50)  # type: ignore[union-attr]
    assert set(batch.reward) == {-300.0, -100.0}
    assert set(controller._rewards.normalise(batch.reward)) == {-1.0, 1.0}  # type: ignore[union-attr]


# All of them together


@pytest.mark.parametrize("settings", COMBINATIONS, ids=short)
def test_every_combination_learns_which_action_pays(settings: dict[str, Any]) -> None:
    """A bandit: Layer 1 had better be tied, layer 2 independent; the state is where the last action led."""
    controller = dqn(3, gamma=0.3, epsilon_floor=0.5, q_learning_rate=0.01, hidden_units=32, **settings)
    state = vector(0, 0, 0)
    for _ in range(400):
        action = controller.act(state)
        reward = -10.0 - 4.0 * float(action[1] != 0) - 4.0 * float(action[2] != 2)
        following = partition.canonicalise(action)
        controller.update(Transition(state, action, reward, following, False))
        state = following
    controller.epsilon = 0.0
    assert controller.act(vector(0, 0, 0)).tolist() == [0, 0, 2]
    assert controller.act(vector(0, 0, 2)).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay_size": -1}, "replay_size must be at least 0, got -1"),
        ({"replay_batch": 0}, "replay_batch must be at least 1, got 0"),
        ({"replay_updates": 0}, "replay_updates must be at least 1, got 0"),
        ({"replay_updates": 2}, "replay_updates of more than 1 needs replay_size: .* got replay_updates=2"),
        ({"exploration_share": 1.5}, r"exploration_share must be in \[0, 1\], got 1.5"),
        ({"target_every": -2}, "target_every must be at least 0, got -2"),
        ({"reward_scale": "runing"}, "reward_scale must be one of 'none', 'running', got 'runing'"),
        ({"q_head": "low"}, "q_head must be one of 'full', 'low-rank', got 'low'"),
        ({"q_rank": 0}, "q_rank must be at least 1, got 0"),
        ({"state_scale": "Unit"}, "state_scale must be one of 'raw', 'unit', got 'Unit'"),
    ],
)
def test_bad_options_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DQNConfig(**settings)
