import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from tying_agents.controllers.base import Transition
from tying_agents.controllers.dqn import FactorizedDQN
from tying_agents.controllers.fixed import FixedController, RandomController
from tying_agents.controllers.patterns import albert, contiguous, conventional, cycle, cycle_rev, sequence
from tying_agents.settings import DQNConfig, GroupsConfig, RandomRedrawnConfig

from tests.controllers import make_controller
from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.partition import IntVector


def dqn(n_layer: int = 4, seed: int = 0, **settings: Any) -> FactorizedDQN:
    controller = make_controller("dqn", n_layer, seed, DQNConfig(**settings))
    assert isinstance(controller, FactorizedDQN)
    return controller


def transition(reward: float = -5.0, terminated: bool = False) -> Transition:
    return Transition(np.array([0, 0, 0]), np.array([0, 1, 1]), reward, np.array([0, 1, 1]), terminated)


def test_the_network_has_the_papers_shape() -> None:
    for n_layer in (2, 3, 12, 48):
        first, activation, last = dqn(n_layer).network
        assert isinstance(activation, nn.ReLU)
        assert (first.in_features, first.out_features) == (n_layer - 1, 128)
        assert (last.in_features, last.out_features) == (128, (n_layer + 2) * (n_layer - 1) // 2)


def test_q_is_a_sum_over_layers_so_the_greedy_action_is_the_best_of_all() -> None:
    controller = dqn(5, epsilon_start=0.0, epsilon_floor=0.0)
    state = np.array([0, 0, 2, 0, 2])
    table = controller.values(state)

    def q(action: Any) -> float:
        return sum(table[i - 1, action[i]].item() for i in range(1, 5))

    greedy = controller.act(state)
    actions = np.stack(np.meshgrid(*(range(i + 1) for i in range(5)), indexing="ij"), -1).reshape(-1, 5)
    assert len(actions) == 120
    assert q(greedy) == pytest.approx(max(q(a) for a in actions))
    assert table[torch.triu(torch.ones(4, 5, dtype=torch.bool), 2)].eq(-torch.inf).all()
    assert table[controller._valid].isfinite().all()


def test_an_update_by_hand() -> None:
    """L = 3, one hidden unit, round weights: every number below is worked out on paper."""
    controller = dqn(3, hidden_units=1, gamma=0.5)
    with torch.no_grad():
        first, _, last = controller.network
        first.weight.copy_(torch.tensor([[1.0, 2.0]]))
        first.bias.fill_(1.0)
        #                layer 1: 0, 1; layer 2: 0, 1, 2
        last.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [-1.0], [0.5]]))
        last.bias.zero_()
    # s = (0, 0, 0): hidden = relu(1) = 1; Q(s)[1] = (1, 2), Q(s)[2] = (3, -1, 0.5)
    assert controller.values(np.array([0, 0, 0])).tolist() == [[1, 2, -np.inf], [3, -1, 0.5]]
    # s' = (0, 1, 1): hidden = relu(1 + 1*1 + 2*1) = 4; the maxima are 8 and 12
    # target = -5 + 0.5 * 20 = 5; Q(s, a) with a = (0, 1, 1): 2 - 1 = 1; loss = (1 - 5)^2 = 16
    controller.update(transition())
    assert controller.metrics()["q_loss"] == pytest.approx(16.0)
    # d loss / d Q(s, a) = 2 (1 - 5) = -8. The chosen outputs are rows 1 and 3: d/d weight = -8 * hidden = -8 each.
    assert last.weight.grad.flatten().tolist() == [0, -8, 0, -8, 0]
    assert last.bias.grad.tolist() == [0, -8, 0, -8, 0]
    # d/d hidden = -8 * (2 - 1) = -8; the state is zero, so the first layer's weights get none and its bias -8.
    assert first.weight.grad.flatten().tolist() == [0, 0]
    assert first.bias.grad.tolist() == [-8]
    # Adam's first step is the learning rate against the sign of the gradient.
    assert last.weight.flatten().tolist() == pytest.approx([1.0, 2.001, 3.0, -0.999, 0.5], abs=1e-6)
    assert first.bias.item() == pytest.approx(1.001, abs=1e-6)


def test_a_terminal_state_has_no_future() -> None:
    controller = dqn(3, hidden_units=1)
    predicted = controller.values(np.array([0, 0, 0]))
    expected = (predicted[0, 1] + predicted[1, 1] - -5.0).item() ** 2
    controller.update(transition(terminated=True))
    assert controller.metrics()["q_loss"] == pytest.approx(expected, rel=1e-5)


def test_epsilon_decays_per_decision_to_its_floor() -> None:
    controller = dqn(3)
    seen = []
    for _ in range(60):
        seen.append(controller.epsilon)
        controller.update(transition())
    assert seen[:3] == pytest.approx([1.0, 0.95, 0.9025])
    assert seen[44] > 0.1 == seen[45] == seen[59]  # at the floor after 45 decisions


def test_one_draw_decides_for_the_whole_vector() -> None:
    always, never = dqn(12, epsilon_floor=1.0), dqn(12, epsilon_start=0.0)
    state = np.zeros(12, dtype=np.int64)
    greedy = never.act(state)
    assert all((never.act(state) == greedy).all() for _ in range(20))
    drawn = np.array([always.act(state) for _ in range(300)])
    assert always.metrics()["explored"] == 1.0
    assert (drawn <= np.arange(12)).all()
    assert (drawn.max(axis=0) == np.arange(12)).all()  # every choice of every layer comes up
    half = dqn(12, epsilon_start=0.5, epsilon_floor=0.5)
    same = [(half.act(state) == greedy).mean() for _ in range(300)]
    assert sum(share == 1.0 for share in same) == pytest.approx(150, abs=45)
    assert max(share for share in same if share < 1.0) < 0.9  # never a mixture


def test_q_learns_which_action_pays() -> None:
    controller = dqn(4, gamma=0.0, epsilon_floor=0.5)
    state = np.zeros(4, dtype=np.int64)
    for _ in range(1500):
        action = controller.act(state)
        controller.update(Transition(state, action, -float(action[2] != 1) - float(action[3] == 3), state, False))
    controller.epsilon = 0.0
    best = controller.act(state)
    assert best[2] == 1
    assert best[3] != 3


@pytest.mark.parametrize("agent", ["dqn", "random", "random-redrawn"])
def test_a_restored_controller_continues_the_same(agent: Any) -> None:
    controller = make_controller(agent, 3, 0)
    state = np.zeros(3, dtype=np.int64)
    for _ in range(5):
        controller.act(state)
        controller.update(transition())
    saved = copy.deepcopy(controller.state_dict())
    other = make_controller(agent, 3, 99)
    other.load_state_dict(saved)
    for _ in range(40):
        assert (controller.act(state) == other.act(state)).all()
        controller.update(transition())
        other.update(transition())
    assert controller.metrics() == other.metrics()
    json.dumps({key: value for key, value in saved.items() if key not in ("network", "optimizer")})


def test_a_state_of_another_controller_is_refused() -> None:
    controller = dqn(4)
    before = controller.network[0].weight.detach().clone()
    with pytest.raises(ValueError, match="Q-network"):
        controller.load_state_dict(dqn(5).state_dict())
    assert torch.equal(controller.network[0].weight, before)
    with pytest.raises(ValueError, match="keeps no state"):
        make_controller("cycle", 4, 0).load_state_dict({"epsilon": 1})


def test_equal_seeds_give_equal_controllers() -> None:
    for agent in ("dqn", "random"):
        state = np.zeros(12, dtype=np.int64)
        first, second, third = (make_controller(agent, 12, seed) for seed in (1, 1, 2))
        actions = [[c.act(state).tolist() for _ in range(5)] for c in (first, second, third)]
        assert actions[0] == actions[1] != actions[2]


@pytest.mark.parametrize("n_layer", range(1, 10))
@pytest.mark.parametrize("pattern", [conventional, albert, cycle, cycle_rev, sequence])
def test_patterns_are_tyings_for_every_number_of_layers(pattern: Callable[[int], IntVector], n_layer: int) -> None:
    tying, name = pattern(n_layer), pattern.__name__.replace("_", "-")
    assert partition.is_tying(tying)
    controller = make_controller(name, n_layer, 0)  # type: ignore[arg-type]
    assert (controller.initial_tying() == tying).all()
    assert (controller.act(np.zeros(n_layer, dtype=np.int64)) == tying).all()


def test_the_patterns_of_the_paper() -> None:
    assert conventional(4).tolist() == [0, 1, 2, 3]
    assert albert(4).tolist() == [0, 0, 0, 0]
    assert cycle(6).tolist() == [0, 1, 2, 0, 1, 2]
    assert cycle(7).tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert cycle_rev(6).tolist() == [0, 1, 2, 2, 1, 0]
    assert cycle_rev(7).tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert sequence(6).tolist() == [0, 0, 2, 2, 4, 4]
    assert sequence(7).tolist() == [0, 0, 2, 2, 4, 4, 6]
    assert contiguous(7, 3).tolist() == [0, 0, 0, 3, 3, 5, 5]
    assert contiguous(12, 12).tolist() == list(range(12)) and contiguous(12, 1).tolist() == [0] * 12
    with pytest.raises(ValueError, match="groups must be between 1 and the number of layers 6, got 7"):
        contiguous(6, 7)


@pytest.mark.parametrize("n_layer", range(1, 10))
@pytest.mark.parametrize("pattern", [cycle, cycle_rev, sequence, contiguous])
def test_patterns_have_as_many_groups_as_asked_for(pattern: Callable[[int, int], IntVector], n_layer: int) -> None:
    for groups in range(1, n_layer + 1):
        tying = pattern(n_layer, groups)
        assert partition.is_tying(tying)
        assert len(set(tying.tolist())) == groups
    with pytest.raises(ValueError, match=f"number of layers {n_layer}, got {n_layer + 1}"):
        pattern(n_layer, n_layer + 1)


def test_the_patterns_of_takase_and_kiyono() -> None:
    # Their Figure 1: six layers with the parameters of three.
    assert sequence(6, 3).tolist() == [0, 0, 2, 2, 4, 4]
    assert cycle(6, 3).tolist() == [0, 1, 2, 0, 1, 2]
    assert cycle_rev(6, 3).tolist() == [0, 1, 2, 2, 1, 0]
    # Eighteen layers with those of six: three passes, of which the last goes back.
    there, back = list(range(6)), list(range(5, -1, -1))
    assert cycle(18, 6).tolist() == there * 3 and cycle_rev(18, 6).tolist() == there * 2 + back
    assert sequence(18, 6).tolist() == [layer // 3 * 3 for layer in range(18)]
    # Seven with those of three.
    assert cycle_rev(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 2]
    assert sequence(7, 3).tolist() == [0, 0, 2, 2, 4, 4, 4]
    controller = make_controller("cycle-rev", 4, 0, GroupsConfig(groups=2))
    assert controller.act(np.zeros(4, dtype=np.int64)).tolist() == [0, 1, 1, 0]


def test_random_tyings_are_redrawn_every_so_many_decisions_with_as_many_groups() -> None:
    def decided(**settings: Any) -> tuple[Any, list[tuple[int, ...]]]:
        controller = make_controller("random-redrawn", 12, 3, RandomRedrawnConfig(**settings))
        first = controller.initial_tying()
        return first, [tuple(controller.act(np.zeros(12, dtype=np.int64)).tolist()) for _ in range(12)]

    for every in (1, 3, 5):
        first, seen = decided(groups=4, redraw_every=every)
        assert first is not None and tuple(first.tolist()) == seen[0]
        assert {len(partition.leaders(tying)) for tying in seen} == {4}
        changed = [i for i in range(1, 12) if seen[i] != seen[i - 1]]
        assert changed == list(range(every, 12, every))
    assert len(set(decided(redraw_every=0)[1])) == 1
    first, seen = decided(groups=12, redraw_every=0, from_start=False)
    assert first is None  # the frozen start
    assert set(seen) == {tuple(range(12))}


def test_the_paper_starts_frozen_and_patterns_do_not() -> None:
    assert dqn().initial_tying() is None
    assert RandomController(Kinds.alike(4), np.random.default_rng(0)).initial_tying() is None
    fixed = FixedController(np.array([0, 0, 1]))
    assert fixed.act(np.array([0, 1, 2])).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="action"):
        FixedController(np.array([1, 0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"q_learning_rate": 0}, "q_learning_rate must be a finite number above 0, got 0"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"epsilon_floor": -0.1}, r"epsilon_floor must be in \[0, 1\], got -0.1"),
        ({"hidden_units": 0}, "hidden_units must be from 1 to 65536, got 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DQNConfig(**settings)


def test_bad_agents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"agent must be one of dqn, .*layer-sweep-dqn, random, .*, got 'dqm'"):
        make_controller("dqm", 4, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs at least 2 layers"):
        make_controller("dqn", 1, 0)
