"""Optimizers: which moves what, whose state follows the tying, and what is refused."""

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.blocks import L, Net, train
from tests.models import own
from tests.odd_optimizers import AtOnce, InItsGroups, Langevin, LookingAhead, Slowing, WithNumbers
from tying_env import EnvConfig, partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.optimizers import choose_optimizer, make_groups
from tying_env.tied_blocks import TiedBlocks

NADAM: dict[str, Any] = {"optimizer": torch.optim.NAdam}
CHOICES: list[dict[str, Any]] = [
    {"optimizer": "sgd", "learning_rate": 0.1},
    {"optimizer": "muon", "decayed_parameters": "matrices"},
    {"optimizer": "adamw", "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "decayed_parameters": "matrices"},
    NADAM,
    {"optimizer": torch.optim.RMSprop},
]
NAMES = ["sgd", "muon", "adamw", "NAdam", "RMSprop"]


@pytest.mark.parametrize("choice", CHOICES, ids=NAMES)
def test_a_restored_or_forked_environment_goes_on_with_the_same_bits(tiny: dict[str, Any], choice: Any) -> None:
    env, other = (LayerTyingEnv(**tiny | {"warmup_steps": 4} | choice) for _ in range(2))
    rng = np.random.default_rng(0)
    env.reset(seed=3)
    for _ in range(4):
        env.step(partition.uniform_random_action(4, rng))
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    fork = env.fork()
    for action in [partition.uniform_random_action(4, rng) for _ in range(3)]:
        expected = env.step(action)
        np.testing.assert_equal([other.step(action), fork.step(action)], [expected, expected])
    mine, theirs = (dict(e.trainer.named_parameters()) for e in (env, other))
    assert all(torch.equal(p, theirs[name]) for name, p in mine.items())


class Plain:
    """The same training without TiedBlocks: layers of a group are one module, a new leader is a plain copy of it."""

    def __init__(self, config: EnvConfig) -> None:
        self.config, self.net, self.tying = config, Net(), list(range(L))
        self.modules = dict(enumerate(self.net.blocks))
        self._optimize({})

    def tie(self, tying: list[int]) -> None:
        state = self.optimizer.state
        modules, copied = {}, {}
        for j in sorted(set(tying)):
            former = self.modules[self.tying[j]]
            modules[j] = former if self.tying[j] == j else copy.deepcopy(former)
            for new, old in zip(modules[j].parameters(), former.parameters(), strict=True):
                copied[new] = state[old] if new is old else copy.deepcopy(state[old])
        copied |= {p: state[p] for p in self.net.first.parameters()}
        self.modules, self.tying = modules, list(tying)
        self.net.blocks = nn.ModuleList(modules[j] for j in tying)
        self._optimize(copied)

    def _optimize(self, state: dict[Any, Any]) -> None:
        inside = [p for block in self.modules.values() for p in block.parameters()]
        groups = [{"params": [p], "lr": 0.01, **self._options(p, False)} for p in self.net.first.parameters()]
        groups += [{"params": [p], "lr": 0.01, **self._options(p, True)} for p in inside]
        self.optimizer = choose_optimizer(self.config)(groups)
        self.optimizer.state.update(state)

    def _options(self, p: nn.Parameter, inside: bool) -> dict[str, Any]:
        everything = self.config.decayed_parameters == "all"
        method = {"method": "muon" if inside and p.ndim == 2 else "adamw"} if self.config.optimizer == "muon" else {}
        return {"weight_decay": self.config.weight_decay if everything or p.ndim > 1 else 0.0, **method}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("decayed", ["all", "matrices"])
def test_state_follows_the_tying_as_plain_copies_do(optimizer: Any, decayed: Any) -> None:
    config = EnvConfig(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, decayed_parameters=decayed)
    net = Net()
    tied = TiedBlocks(list(net.blocks), np.arange(L))
    mine = choose_optimizer(config)(make_groups(config, list(net.first.parameters()), tied))
    plain = Plain(config)
    for step, tying in enumerate(
        ([0, 0, 2, 2, 4, 0], [0, 1, 1, 1, 0, 5], [0, 1, 2, 3, 4, 5], [0] * L, [0, 0, 0, 3, 3, 3])
    ):
        train(net, mine, 2, start=10 * step)
        train(plain.net, plain.optimizer, 2, start=10 * step)
        tied.change(tying, mine)
        plain.tie(tying)
        train(net, mine, 2, start=10 * step + 5)
        train(plain.net, plain.optimizer, 2, start=10 * step + 5)
        for i in range(L):
            for name, p in plain.net.blocks[i].named_parameters():
                torch.testing.assert_close(tied.weights(i)[name], p, rtol=1e-9, atol=1e-12)
        assert len(mine.state) == 2 + 4 * len(partition.leaders(tying))


def test_a_copy_or_pickle_of_an_environment_goes_on_with_the_same_bits(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"optimizer": "muon", "warmup_steps": 4})
    env.reset(seed=0)
    for copies in range(2):
        twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        expected = env.step(np.array([0, 0, 2, copies]))
        for twin in twins:
            np.testing.assert_equal(twin.step(np.array([0, 0, 2, copies])), expected)


def test_muon_moves_the_matrices_of_blocks_and_adamw_the_rest(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"optimizer": "muon"})
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 1]))
    state = env.trainer.optimizer.state
    for name, p in env.trainer.named_parameters():
        inside = ".h." in name and p.ndim == 2
        assert set(state[p]) == ({"momentum_buffer"} if inside else {"step", "exp_avg", "exp_avg_sq"}), name


def test_weight_decay_can_be_for_matrices_alone(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"decayed_parameters": "matrices", "weight_decay": 0.3})
    env.reset(seed=0)
    for tying in ([0, 1, 0, 3], [0, 0, 2, 0]):
        env.step(np.array(tying))
        groups = env.trainer.groups()
        for name, p in env.trainer.named_parameters():
            assert groups[p]["weight_decay"] == (0.3 if p.ndim > 1 else 0.0), name


def test_sgd_moves_as_computed_by_hand() -> None:
    config = EnvConfig(optimizer="sgd", momentum=0.5, weight_decay=0.1, learning_rate=0.2)
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = choose_optimizer(config)([{"params": [p], "lr": 0.2, "weight_decay": 0.1}])
    for _ in range(2):
        p.grad = torch.tensor([1.0])
        optimizer.step()
    first = 2.0 - 0.2 * (1 + 0.1 * 2)  # 1.76
    assert p.item() == pytest.approx(first - 0.2 * (0.5 * 1.2 + 1 + 0.1 * first))


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 3), ("adamw", 4)])
def test_memory_is_what_the_optimizer_holds(tiny: dict[str, Any], optimizer: str, copies: int) -> None:
    env = LayerTyingEnv(**tiny | {"optimizer": optimizer})
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 1]))
    assert env.trainer.memory_in_training.total == 4 * copies * env.trainer.count_trainable()
    assert env.trainer.count_conventional_bytes() == 4 * copies * env.trainer.count_conventional()


def test_momentum_that_is_not_finite_ends_the_run(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"optimizer": "muon"})
    env.reset(seed=0)
    env.trainer.train(1)
    assert env.trainer.is_finite()
    weight = env.trainer.network.blocks[0].get_parameter("mlp.c_fc.weight")
    env.trainer.optimizer.state[weight]["momentum_buffer"][0, 0] = torch.inf
    assert not env.trainer.is_finite()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            torch.optim.Adafactor,
            r"optimizer=Adafactor cannot follow a tying: its state 'row_var' of a Parameter of shape \(2, 3\) is a "
            r"tensor of shape \(2, 1\), neither a number nor a tensor of that shape",
        ),
        (torch.optim.LBFGS, "optimizer=LBFGS cannot move Parameters that come and go"),
        (AtOnce, "optimizer=AtOnce cannot move Parameters that come and go: KeyError"),
        (InItsGroups, "InItsGroups .*it keeps state in its parameter groups, 'd'"),
        (lambda groups: torch.optim.SGD(groups[:1]), "must keep the groups that it is given"),
        (
            lambda groups: torch.optim.SGD([p for group in groups for p in group["params"]], lr=1),
            "must keep the groups that it is given",
        ),
        (
            lambda groups: torch.optim.SGD([{**group, "lr": 0.1} for group in groups]),
            "must keep the groups that it is given, all of them and as they are: it made 'lr', 0.001, 0.1",
        ),
        (Slowing, "optimizer=Slowing cannot be saved: a copy with its state and groups moves .* after step 2"),
        (LookingAhead, "optimizer=LookingAhead cannot be saved: .* after step 6"),
        (lambda groups: 3, "expected a torch.optim.Optimizer, got int"),
        ("custom", "optimizer='custom' is one of your own: give LayerTyingEnv a function"),
        ("adam", "optimizer must be one of 'adamw', 'sgd', 'muon', 'custom', got 'adam'"),
    ],
)
def test_an_optimizer_that_cannot_follow_is_refused_before_training(
    tiny: dict[str, Any], make: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LayerTyingEnv(**tiny | {"optimizer": make})


def test_an_optimizer_that_draws_has_a_stream_of_the_run(tiny: dict[str, Any]) -> None:
    def began(seed: int) -> LayerTyingEnv:
        env = LayerTyingEnv(**tiny | {"optimizer": Langevin})
        env.reset(seed=seed)
        return env

    before = torch.get_rng_state()
    env, same, other = began(0), began(0), began(1)
    actions = [np.array([0, 1, 0, 1]), np.array([0, 0, 2, 3])]
    first = env.step(actions[0])
    np.testing.assert_equal(same.step(actions[0]), first)
    assert other.step(actions[0])[1] != first[1]
    restored = LayerTyingEnv(**tiny | {"optimizer": Langevin})
    restored.load_state_dict(copy.deepcopy(env.state_dict()))
    fork = env.fork()
    expected = env.step(actions[1])
    np.testing.assert_equal([restored.step(actions[1]), fork.step(actions[1])], [expected, expected])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimizer_that_keeps_numbers_is_restored(tiny: dict[str, Any]) -> None:
    env, other = (LayerTyingEnv(**tiny | {"optimizer": WithNumbers}) for _ in range(2))
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 1]))
    state = env.state_dict()
    other.load_state_dict(copy.deepcopy(state))
    np.testing.assert_equal(other.step(np.array([0, 0, 2, 3])), env.step(np.array([0, 0, 2, 3])))
    counts = [e.trainer.optimizer.state[e.trainer.tied.weights(2)["ln_1.bias"]]["count"] for e in (env, other)]
    assert counts == [6, 6]  # four before the change that untied it, inherited, and two since
    name = next(iter(state["trainer"]["optimizer"]))
    for damage in (None, float("nan"), "many"):
        state["trainer"]["optimizer"][name]["count"] = damage
        with pytest.raises(ValueError, match=re.escape(f"optimizer state of {name!r} must have a number 'count'")):
            other.load_state_dict(state)


def test_a_network_of_ones_own_has_any_optimizer() -> None:
    for choice in CHOICES:
        env = own(**{"learning_rate": 0.01} | choice)
        env.reset(seed=0)
        losses = [env.step(np.array(tying))[4]["train_loss"] for tying in ([0, 1, 0], [0, 0, 2])]
        assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.5}, "momentum applies only to the optimizers sgd and muon: leave it out, got 0.5"),
        ({"optimizer": "sgd", "beta1": 0.5}, "beta1 applies only to the optimizers adamw and muon: leave it out"),
        ({"optimizer": "custom", "eps": 0.5}, "eps applies only to the optimizers adamw and muon: leave it out"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\), got 1.0"),
        ({"eps": 0.0}, "eps must be a finite number above 0, got 0.0"),
        ({"decayed_parameters": "none"}, "decayed_parameters must be one of 'all', 'matrices', got 'none'"),
    ],
)
def test_settings_that_do_nothing_or_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig(**settings)
