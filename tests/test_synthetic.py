"""The positive control's environment: its best tying is the best, chance is what it says, all agents run in it."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from tying_agents.callbacks import Callback, Record
from tying_agents.control.arms import ARMS, BANDIT
from tying_agents.loop import Loop
from tying_agents.running.agents import drive_agent
from tying_agents.settings import NoSettings, SB3Config

from tying_env import partition
from tying_env.synthetic import KINDS, Kind, SyntheticTyingEnv, make_task
from tying_env.synthetic.tasks import leader_chances

ENV_ID = "LayerTying-Synthetic-v0"


class Shares(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def decision_made(self, loop: Loop, record: Record) -> None:
        self.seen.append(record["share"])


def all_actions(n_units: int) -> list[partition.IntVector]:
    return [np.array(action) for action in itertools.product(*(range(i + 1) for i in range(n_units)))]


def rewards(env: SyntheticTyingEnv, seed: int, steps: int = 5) -> list[float]:
    env.reset(seed=seed)
    action = np.array([0, 1, *[0] * (env.n_units - 2)])
    return [env.step(action)[1] for _ in range(steps)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("instance", [0, 1, 2])
def test_no_tying_of_six_layers_is_worth_more_than_the_best(kind: Kind, instance: int) -> None:
    task = make_task(kind, 6, instance)
    values = {tuple(tying): task.value(tying) for tying in partition.all_tyings(6)}
    assert max(values.values()) == pytest.approx(task.best)
    assert values.pop(tuple(task.best_tying)) == pytest.approx(task.best)
    assert max(values.values()) < task.best - 1e-6  # no other is as good
    assert task.share(task.best) == 1.0 and task.share(task.chance) == 0.0


@pytest.mark.parametrize(("kind", "n_units"), [*itertools.product(KINDS, (2, 3, 6))])
def test_chance_is_the_mean_over_all_actions(kind: Kind, n_units: int) -> None:
    task = make_task(kind, n_units, 5)
    values = [task.value(partition.canonicalise(action)) for action in all_actions(n_units)]
    assert np.mean(values) == pytest.approx(task.chance)


def test_chances_of_leaders_are_those_of_all_actions() -> None:
    tyings = np.array([partition.canonicalise(action) for action in all_actions(5)])
    counted = np.array([[np.mean(tyings[:, i] == j) for j in range(5)] for i in range(5)])
    np.testing.assert_allclose(leader_chances(5), counted)


def test_values_by_hand() -> None:
    assert make_task("independent", 12).value(np.array([0, 1, 1, 3, *[0] * 8])) == 3.0
    assert make_task("independent", 12).chance == pytest.approx(partition.chance_independent_layers(12)[0])
    task = make_task("pairwise", 12, 4)
    assert task.value(np.zeros(12, dtype=np.int64)) == pytest.approx(6.0)  # all tied: one half is right
    assert task.value(np.arange(12)) == pytest.approx(6.0)  # all independent: the other half
    additive = make_task("additive", 12, 4)
    assert additive.best == pytest.approx(additive.layer.max(axis=1).sum())  # every layer's own best


def test_both_checkers_pass_without_a_warning() -> None:
    env = gym.make(ENV_ID, n_layer=6, noise=0.3)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_sb3(env)


def test_spaces_are_those_of_the_real_environment(tiny: dict[str, Any]) -> None:
    real, synthetic = gym.make("LayerTying-GPT2-v0", **tiny), gym.make(ENV_ID, n_layer=4)
    assert synthetic.action_space == real.action_space
    assert synthetic.observation_space == real.observation_space


def test_the_reward_is_of_the_tying_and_not_of_the_action() -> None:
    env = SyntheticTyingEnv(n_layer=4, kind="additive", noise=0.5)
    found = []
    for action in ([0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 1, 1]):
        env.reset(seed=1)
        observation, reward, *_ = env.step(np.array(action))
        assert observation.tolist() == [0, 0, 0, 0]
        found.append(reward)
    assert found[0] == found[1] == found[2]


def test_equal_seeds_give_equal_bits_and_noise_is_the_reset_seeds() -> None:
    first, second = (SyntheticTyingEnv(noise=0.5, instance=3) for _ in range(2))
    assert rewards(first, 7) == rewards(second, 7) != rewards(second, 8)
    assert len(set(rewards(first, 7))) == 5  # each decision has its own
    quiet = SyntheticTyingEnv(instance=3)
    assert rewards(quiet, 7) == rewards(quiet, 8) != rewards(SyntheticTyingEnv(instance=4), 7)


def test_noise_has_the_deviation_asked_for_and_leaves_the_value_alone() -> None:
    env = SyntheticTyingEnv(kind="pairwise", noise=0.5, decisions=2000)
    env.reset(seed=0)
    action = np.zeros(12, dtype=np.int64)
    steps = [env.step(action) for _ in range(2000)]
    noise = np.array([reward - info["value"] for _, reward, *_, info in steps])
    assert noise.std() == pytest.approx(0.5 * (env.task.best - env.task.chance), rel=0.05)
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(2000)
    assert {info["value"] for *_, info in steps} == {env.task.value(action)}


def test_a_fork_sees_what_comes_next_and_leaves_the_environment_alone() -> None:
    env = SyntheticTyingEnv(noise=0.5)
    env.reset(seed=0)
    fork = env.fork()
    tried = [fork.step(np.arange(12))[1] for _ in range(3)]
    assert env.decisions == 0
    assert tried == [env.step(np.arange(12))[1] for _ in range(3)]


def test_a_restored_environment_continues_with_the_same_bits() -> None:
    env, other = (SyntheticTyingEnv(noise=0.5, decisions=6) for _ in range(2))
    env.reset(seed=5)
    env.step(np.arange(12))
    other.load_state_dict(env.state_dict())
    assert other.tying.tolist() == env.tying.tolist() and other.decisions == 1
    zeros = np.zeros(12, dtype=np.int64)
    assert [env.step(zeros)[1] for _ in range(5)] == [other.step(zeros)[1] for _ in range(5)]
    assert env.over and env.reset()[1]["tying"].tolist() == other.reset()[1]["tying"].tolist()
    assert env.seed == other.seed
    with pytest.raises(ValueError, match="other settings: noise"):
        SyntheticTyingEnv(noise=0.25, decisions=6).load_state_dict(env.state_dict())
    with pytest.raises(ValueError, match="decisions must be at most 6, got 7"):
        env.load_state_dict(env.state_dict() | {"decisions": 7})
    with pytest.raises(ValueError, match="lacks 'decisions'"):
        env.load_state_dict({"settings": {}, "np_random": {}, "seed": 0, "tying": []})


def test_an_episode_ends_after_its_decisions() -> None:
    env = SyntheticTyingEnv(n_layer=3, decisions=2)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(3, dtype=np.int64))
    env.reset(seed=0, options={"tying": [0, 1, 1]})
    assert env.tying.tolist() == [0, 1, 1]
    assert [env.step(np.zeros(3, dtype=np.int64))[3] for _ in range(2)] == [False, True]
    with pytest.raises(gym.error.ResetNeeded, match="the episode is over"):
        env.step(np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_layer": 1}, "n_layer must be a whole number of at least 2, got 1"),
        ({"n_layer": 4.0}, "n_layer must be a whole number of at least 2, got 4.0"),
        ({"kind": "triple"}, "kind must be one of 'independent', 'additive', 'pairwise', got 'triple'"),
        ({"noise": -0.1}, "noise must be a finite number of at least 0, got -0.1"),
        ({"noise": float("nan")}, "noise must be a finite number of at least 0, got nan"),
        ({"decisions": 0}, "decisions must be a whole number of at least 1, got 0"),
        ({"instance": -1}, "instance must be a whole number of at least 0, got -1"),
        ({"render_mode": "human"}, "render_mode must be one of .*, got 'human'"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticTyingEnv(**settings)


def test_wrong_actions_and_options_are_refused() -> None:
    env = SyntheticTyingEnv(n_layer=3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action\[2\] is 3, expected 0 <= action\[2\] <= 2"):
        env.step(np.array([0, 1, 3]))
    with pytest.raises(ValueError, match="unknown reset option 'start'"):
        env.reset(options={"start": 1})
    assert env.decisions == 0


def test_it_renders_the_replication_map() -> None:
    text, pixels = (SyntheticTyingEnv(n_layer=3, render_mode=mode) for mode in ("ansi", "rgb_array"))
    for env in (text, pixels):
        env.reset(seed=0)
    assert text.render() == " 0 ●  leads 1-2\n 1 ○  = 0\n 2 ○  = 0"
    assert pixels.render().shape[2] == 3


@pytest.mark.parametrize("agent", [*dict.fromkeys(arm.agent for arm in ARMS.values()), "albert", "random-static"])
def test_every_agent_runs_in_it_to_the_end_and_to_the_same_bits(agent: str) -> None:
    seen = []
    for _ in range(2):
        shares = Shares()
        loop = drive_agent(agent, gym.make(ENV_ID, n_layer=4, decisions=12, noise=0.1), [shares], seed=2)
        assert loop.finished and loop.decisions == 12
        seen.append(shares.seen)
    assert seen[0] == seen[1] and len(seen[0]) == 12


def test_settings_of_another_agent_are_refused() -> None:
    with pytest.raises(TypeError, match="'dqn' takes settings of the class DQNConfig, got NoSettings"):
        drive_agent("dqn", gym.make(ENV_ID), settings=NoSettings())
    with pytest.raises(TypeError, match="needs a TyingEnv, such as LayerTyingEnv, got CartPoleEnv"):
        drive_agent("random", gym.make("CartPole-v1"))


def test_the_bandit_learns_in_400_decisions_and_chance_does_not() -> None:
    ends = {}
    for name in (BANDIT, "random"):
        shares = Shares()
        env = gym.make(ENV_ID, n_layer=6, kind="independent", decisions=400)
        drive_agent(ARMS[name].agent, env, [shares], settings=ARMS[name].chosen, seed=1)
        ends[name] = float(np.mean(shares.seen[-100:]))
    assert ends[BANDIT] > 0.6
    assert abs(ends["random"]) < 0.2


def test_sb3s_dqn_learns_more_than_chance_knows() -> None:
    """Its schedules go by the decisions of the run; when they did not, it explored to the end."""
    shares = Shares()
    env = gym.make(ENV_ID, n_layer=4, kind="independent", decisions=300)
    drive_agent("sb3-dqn", env, [shares], settings=SB3Config(sb3_learning_rate=1e-3, sb3_gamma=0.5), seed=1)
    assert float(np.mean(shares.seen[-60:])) > 0.5


def test_it_needs_no_torch() -> None:
    code = (
        "import sys, gymnasium, tying_env; env = gymnasium.make('LayerTying-Synthetic-v0'); env.reset(seed=0); "
        "env.step(env.action_space.sample()); print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sb3s_agents_leave_nothing_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    drive_agent("ppo", gym.make(ENV_ID, n_layer=4, decisions=5), settings=SB3Config(sb3_n_steps=4), seed=0)
    assert list(tmp_path.iterdir()) == []


def test_the_epsilon_of_sb3s_agents_is_that_with_which_each_action_was_drawn() -> None:
    class Epsilons(Callback):
        def __init__(self) -> None:
            self.found: list[tuple[int, float | None]] = []

        def decision_made(self, loop: Loop, record: Record) -> None:
            self.found.append((record["episode"], record.get("epsilon")))

    for agent, expected in (("sb3-dqn", [1.0] * 5 + [0.05] * 13), ("ppo", [None] * 18)):
        told, env = Epsilons(), gym.make("LayerTying-Synthetic-v0", n_layer=4, decisions=9)
        drive_agent(agent, env, [told], episodes=2, seed=0)
        # All random until SB3's learning_starts, 5; its rate falls within a tenth of the decisions. The last of an
        # episode has its own, too.
        assert told.found == [(1 + i // 9, expected[i]) for i in range(18)]
