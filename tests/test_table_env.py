"""The tying table as an environment: what is bought, shown, found and charged."""

import math
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import tying_env  # noqa: F401 (registers the environments)
from tests.tables import made_up_table, written
from tying_env.budget import BudgetSpent
from tying_env.partition import canonicalise, uniform_random_action
from tying_env.table.draws import draw, draws, mixed
from tying_env.table.env import TableTyingEnv
from tying_env.table.file import TEST, VALIDATION
from tying_env.table.vector import TableVectorEnv

ALL_TIED, INDEPENDENT = np.zeros(6, dtype=np.int64), np.arange(6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("fidelities", [False, True])
def test_both_checks_of_environments_pass(path: Path, fidelities: bool) -> None:
    env = TableTyingEnv(table=path, budget=96 * 30, fidelities=fidelities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env, skip_render_check=True)
        check_env_for_sb3(env)


def test_a_step_shows_what_one_seed_had_on_validation(path: Path) -> None:
    env = TableTyingEnv(table=path, corpus="other", budget=96 * 200, learning_rate=1e-3)
    losses = made_up_table().corpora["other"].losses[0, :, :, VALIDATION, -1]  # (S, T)
    env.reset(seed=1)
    shown = {env.step(INDEPENDENT)[1] for _ in range(200)}
    assert sorted(shown) == sorted(-np.exp(losses[:, -1]))  # the last row; all seeds are drawn


def test_regret_is_of_the_best_found_by_means_on_test(path: Path) -> None:
    env = TableTyingEnv(table=path, budget=96 * 50, learning_rate=1e-3)
    table = made_up_table()
    true = np.exp(table.corpora["sotu"].losses[0, :, :, TEST, -1].mean(axis=0))
    _, info = env.reset(seed=2)
    assert info["regret"] == math.inf and info["cost"] == 0
    rng, seen = np.random.default_rng(0), dict[int, list[float]]()
    for number in range(50):
        tying = table.tyings[rng.integers(20)]  # some come again
        _, reward, _, over, info = env.step(tying)
        seen.setdefault(table.row(tying), []).append(-reward)
        found = min(seen, key=lambda row: (np.mean(seen[row]), row))
        assert info["regret"] == pytest.approx(true[found] - true.min(), abs=1e-12)
        assert info["cost"] == info["train_step"] == 96 * (number + 1)
        assert info["trainable_parameters"] == table.parameters[table.row(tying)]
    assert over
    with pytest.raises(gym.error.ResetNeeded):
        env.step(ALL_TIED)


def test_shorter_trainings_cost_less_and_longer_ones_decide(path: Path) -> None:
    env = TableTyingEnv(table=path, budget=32 + 64 + 96 + 40, fidelities=True)
    env.reset(seed=0)
    short = env.step(np.array([*INDEPENDENT, 0]))
    assert short[4]["cost"] == 32
    longer = env.step(np.array([*ALL_TIED, 1]))
    assert longer[4]["cost"] == 96
    assert longer[4]["regret"] > short[4]["regret"]  # what the shorter training showed no longer counts
    assert env.step(np.array([*ALL_TIED, 2]))[4]["cost"] == 192
    *_, over, info = env.step(np.array([*INDEPENDENT, 2]))  # the budget pays for the shortest
    assert (over, info["cost"]) == (True, 224)
    assert info["regret"] == longer[4]["regret"]


def test_forks_pay_from_the_same_budget(path: Path) -> None:
    env = TableTyingEnv(table=path, budget=96 * 10)
    env.reset(seed=0)
    env.step(ALL_TIED)
    fork = env.fork()
    *_, info = fork.step(INDEPENDENT)
    assert info["cost"] == 96 * 2 == env.train_step
    assert (env.tying == ALL_TIED).all() and env.decisions == 1
    assert "regret" not in info and env.steps_for_trials == 96 * 7  # one is kept for the next decision
    for _ in range(7):
        _, reward, *_ = env.fork().step(INDEPENDENT)
    for trial in (env.fork(), fork):
        with pytest.raises(
            BudgetSpent, match=r"96 steps in a fork is more than is left for forks, 0: of 960 .* 864 are"
        ):
            trial.step(INDEPENDENT)
    _, here, _, over, info = env.step(INDEPENDENT)
    assert here == reward  # the twin saw what is seen here
    assert over and info["cost"] == 96 * 10 and info["regret"] < math.inf


def test_the_regret_of_earlier_is_known_to_the_training(path: Path) -> None:
    env = TableTyingEnv(table=path, budget=96 * 61)
    env.reset(seed=3)
    rng, regrets = np.random.default_rng(0), [math.inf]
    for number in range(60):
        tried = env.fork() if number % 4 == 1 else env  # forks' trainings count where they are bought
        *_, info = tried.step(np.array([0, 0, 0, *rng.integers(0, [4, 5, 6])]))
        regrets.append(env.regret_after(info["cost"]))
        assert info.get("regret", regrets[-1]) == regrets[-1]
    assert [env.regret_after(96 * bought) for bought in range(61)] == regrets
    assert env.regret_after(95) == math.inf and env.regret_after(10**9) == regrets[-1]
    assert len(set(regrets)) >= 4


def test_priced_and_limited_objectives(path: Path) -> None:
    table = made_up_table()
    true = np.exp(table.corpora["sotu"].at_rate()[:, :, TEST, -1].mean(axis=0))
    share = table.parameters / table.parameters.max()
    priced = TableTyingEnv(table=path, objective="priced", price=30.0)
    assert priced.scores.best == pytest.approx((true + 30 * share).min())
    limited = TableTyingEnv(table=path, objective="limited", max_parameters=2000)
    allowed = table.parameters <= 2000
    assert limited.scores.best == pytest.approx(true[allowed].min())
    limited.reset(seed=0)
    _, above, *_, info = limited.step(INDEPENDENT)
    assert info["regret"] == math.inf
    _, below, *_, info = limited.step(ALL_TIED)
    assert below > above and info["regret"] < math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corpus": "bible"}, "corpus must be one of 'other', 'sotu', got 'bible'"),
        ({"budget": 0}, "budget must be at least 96 training steps, one training; got 0"),
        ({"budget": 95}, "budget must be at least 96"),
        ({"budget": 31, "fidelities": True}, "budget must be at least 32"),
        ({"budget": 1e4}, "budget must be at least 96"),
        ({"objective": "loss"}, "objective must be one of 'perplexity', 'priced', 'limited', got 'loss'"),
        ({"objective": "limited"}, "max_parameters goes with objective='limited', got None"),
        ({"max_parameters": 2000}, "max_parameters goes with objective='limited', got 2000 with 'perplexity'"),
        ({"objective": "limited", "max_parameters": 100}, "max_parameters must be at least 1500, all layers tied"),
        ({"objective": "priced", "price": -1.0}, "price must be a finite number of at least 0, got -1.0"),
        ({"learning_rate": 1.0}, "learning_rate must be None or one of 0.001, 0.004, got 1.0"),
        ({"render_mode": "human"}, "render_mode must be one of"),
    ],
)
def test_bad_arguments_are_named(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableTyingEnv(table=path, **arguments)


def test_tyings_of_another_length_are_refused_and_change_nothing(path: Path) -> None:
    env = TableTyingEnv(table=path)
    env.reset(seed=0)
    for action in (np.zeros(5, dtype=np.int64), np.zeros((1, 6), dtype=np.int64), np.array([0, 2, 0, 0, 0, 0])):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
    with pytest.raises(TypeError):
        env.step(np.zeros(6))
    assert env.train_step == 0 and env.decisions == 0


@pytest.mark.parametrize("fidelities", [False, True])
def test_a_restored_environment_continues_with_the_same_bits(path: Path, fidelities: bool) -> None:
    def make() -> TableTyingEnv:
        return TableTyingEnv(table=path, budget=96 * 40, fidelities=fidelities)

    env, again = make(), make()
    env.reset(seed=4)
    env.action_space.seed(0)
    for _ in range(15):
        env.step(env.action_space.sample())
    again.reset(seed=9)
    again.load_state_dict(env.state_dict())
    for _ in range(15):
        action = env.action_space.sample()
        (_, *here), (_, *there) = env.step(action), again.step(action)
        assert str(here) == str(there)
    with pytest.raises(ValueError, match="corpus is 'sotu' there, 'other' here"):
        TableTyingEnv(table=path, corpus="other", budget=96 * 40, fidelities=fidelities).load_state_dict(
            env.state_dict()
        )
    for wrong in ({"ledger": {}}, {"over": 1}, {"ledger": env.state_dict()["ledger"] | {"sums": [[999, 1.0]]}}):
        with pytest.raises(ValueError, match=r"state|ledger"):
            again.load_state_dict(env.state_dict() | wrong)


def test_the_batch_is_its_twins(path: Path) -> None:
    batch = gym.make_vec("LayerTying-Table-v0", num_envs=3, table=path, budget=96 * 60)
    twins = [TableTyingEnv(table=path, budget=96 * 60) for _ in range(3)]
    batch.reset(seed=5)
    for number, twin in enumerate(twins):
        twin.reset(seed=5 + number)
    rng = np.random.default_rng(0)
    for step in range(60):
        few = np.array([[*uniform_random_action(3, rng).tolist(), 3, 3, 3] for _ in twins])  # some come again
        actions = few if step % 3 else np.array([uniform_random_action(6, rng) for _ in twins])
        tyings, rewards, _, over, infos = batch.step(actions)
        for n, twin in enumerate(twins):
            tying, reward, _, ended, info = twin.step(actions[n])
            assert (tyings[n] == tying).all() and (rewards[n], over[n]) == (reward, ended)
            for name in ("cost", "regret", "perplexity", "independent_layers", "trainable_parameters", "train_step"):
                assert infos[name][n] == info[name]
    assert over.all()
    _, rewards, _, over, infos = batch.step(actions)  # the next episode begins
    assert not over.any() and not rewards.any() and (infos["cost"] == 0).all()


def test_bad_batches_are_refused(path: Path) -> None:
    batch = TableVectorEnv(2, table=path)
    with pytest.raises(gym.error.ResetNeeded):
        batch.step(np.zeros((2, 6), dtype=np.int64))
    batch.reset(seed=[1, None])
    for actions, message in (
        (np.zeros((3, 6), dtype=np.int64), r"shape \(2, 6\)"),
        (np.zeros((2, 6)), "whole numbers"),
        (np.array([[0] * 6, [0, 0, 3, 0, 0, 0]]), r"action\[2\] is 3"),
    ):
        with pytest.raises(ValueError, match=message):
            batch.step(actions)
    with pytest.raises(ValueError, match="seed must be one number or 2, got 3"):
        batch.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="num_envs must be a whole number of at least 1, got 0"):
        TableVectorEnv(0, table=path)
    with pytest.raises(ValueError, match="buys whole trainings alone: leave fidelities out"):
        gym.make_vec("LayerTying-Table-v0", num_envs=2, fidelities=True)


def test_draws_are_uniform_independent_and_the_same_in_a_batch() -> None:
    seeds, rows = np.arange(2000, dtype=np.uint64), np.arange(2000) % 203
    batch = draws(mixed(seeds), 7, rows, 5)
    assert batch.tolist() == [draw(int(seed), 7, int(row), 5) for seed, row in zip(seeds, rows, strict=True)]
    for one in (
        batch,
        [draw(3, decision, 17, 5) for decision in range(2000)],
        [draw(3, 9, row, 5) for row in range(2000)],
    ):
        counts = np.bincount(one, minlength=5)
        assert ((counts - 400) ** 2 / 400).sum() < 18.5  # chi-squared with 4 degrees of freedom: p > 0.001
    following = draws(mixed(seeds), 8, rows, 5)
    assert abs(np.mean(batch == following) - 0.2) < 0.03


def test_actions_of_one_tying_see_the_same(path: Path) -> None:
    env = TableTyingEnv(table=path, budget=96 * 720)
    action, twin = np.array([0, 0, 1, 3, 3, 4]), np.array([0, 0, 0, 3, 3, 3])
    assert (canonicalise(action) == twin).all()
    env.reset(seed=0)
    assert env.fork().step(action)[1] == env.fork().step(twin)[1]
