"""Limits on changes of the tying: so many entries in a decision, and none any more after a share of the steps."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tying_agents.run_config import RunConfig, refuse_unread

from tests.command_line import called
from tests.conftest import Make
from tying_env import partition
from tying_env.env import LayerTyingEnv
from tying_env.episode import Stopped
from tying_env.wrappers import LimitChanges, SettleTying, wrap


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_entries_change_than_are_allowed_and_allowed_changes_are_made(make: Make, most: int) -> None:
    env, counts = LimitChanges(make(), max_changes=most), set()
    for before in partition.all_tyings(4):
        env.reset(seed=0, options={"tying": before})
        for asked in partition.all_tyings(4):
            got = env.action(asked)
            assert partition.is_tying(got)
            changed, wanted = int((got != before).sum()), int((asked != before).sum())
            assert changed <= most
            if wanted <= most:
                np.testing.assert_array_equal(got, asked)
            counts.add(changed)
    assert counts == set(range(most + 1))


def test_the_tying_in_force_is_observed_and_no_change_to_keep_is_left_out(make: Make) -> None:
    env = LimitChanges(make(total_steps=60), max_changes=2)
    before, _ = env.reset(seed=0, options={"tying": [0, 1, 2, 3]})
    rng = np.random.default_rng(0)
    for _ in range(20):
        asked = partition.canonicalise(partition.uniform_random_action(4, rng))
        after = env.step(asked)[0]
        np.testing.assert_array_equal(after, env.unwrapped.tying)  # type: ignore[attr-defined]
        for layer in np.flatnonzero(after != asked):  # one more would have been one too many
            more = after.copy()
            more[layer] = asked[layer]
            more = partition.canonicalise(more)
            assert np.array_equal(more, after) or (more != before).sum() > 2
        before = after


def test_every_layer_gets_its_turn_and_seeds_tell_choices_apart(make: Make) -> None:
    def kept(seed: int, reset_seed: int) -> list[int]:
        env, layers = LimitChanges(make(total_steps=80), max_changes=1, seed=seed), []
        before, _ = env.reset(seed=reset_seed, options={"tying": [0, 0, 0, 0]})
        for _ in range(30):
            # Everybody is asked to change: out of layer 0's group, or back.
            after = env.step(np.where(before == 0, np.arange(4), 0))[0]
            layers.append(int(np.flatnonzero(after != before)[0]))
            before = after
        return layers

    first = kept(0, 0)
    assert set(first) == {1, 2, 3}
    assert kept(0, 0) == first
    assert kept(1, 0) != first
    assert kept(0, 1) != first


@pytest.mark.parametrize(("after", "settled"), [(0.0, 0), (0.1, 0), (0.2, 1), (0.25, 2), (0.3, 2), (1.0, 9)])
def test_the_tying_settles_with_the_first_decision_at_the_share(make: Make, after: float, settled: int) -> None:
    env = SettleTying(make(), after=after)  # decisions are applied after 2, 4, ..., 18 of 20 training steps
    env.reset(seed=0)
    asked = [np.array([0, 1, 1, 3]), np.array([0, 0, 2, 2])] * 5
    got, over, n = [], False, 0
    while not over:
        assert env.settled == (n >= settled)
        observation, _, _, over, _ = env.step(asked[n])
        got.append(observation)
        n += 1
    assert n == 9
    for n, observation in enumerate(got):
        expected = asked[n] if n < settled else asked[settled - 1] if settled else np.zeros(4)
        np.testing.assert_array_equal(observation, expected)


def test_a_share_that_is_a_whole_number_of_steps_is_met(make: Make) -> None:
    env = SettleTying(make(total_steps=100, k=7), after=0.07)  # 0.07 x 100 is a little more than 7
    env.reset(seed=0)
    assert env.settled


@pytest.mark.parametrize("name", ["limit-changes", "settle"])
def test_a_step_that_was_stopped_continues_with_the_same_action(make: Make, name: str) -> None:
    settings = {"settle": {"after": 0.25}}
    whole, env = wrap(make(k=3), [name], settings), wrap(make(k=3), [name], settings)
    base = env.unwrapped
    assert isinstance(base, LayerTyingEnv)
    questions = 0

    def should_stop() -> bool:
        nonlocal questions
        questions += 1
        return questions % 2 == 0

    base.should_stop = should_stop
    expected = whole.reset(seed=0), *(whole.step(action) for action in ([0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 1, 0]))
    seen: list[Any] = [env.reset(seed=0)]
    stops = 0
    for action in ([0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 1, 0]):
        while True:
            try:
                seen.append(env.step(action))
                break
            except Stopped:
                stops += 1
    assert stops > 6
    np.testing.assert_equal(tuple(seen), expected)


@pytest.mark.parametrize("name", ["limit-changes", "settle"])
def test_a_bad_action_is_refused_and_the_episode_continues(make: Make, name: str) -> None:
    settings = {"settle": {"after": 0.0}}
    env, undisturbed = wrap(make(), [name], settings), wrap(make(), [name], settings)
    for one in (env, undisturbed):
        one.reset(seed=0)
    with pytest.raises(ValueError, match=r"action\[1\] is 2"):
        env.step([0, 2, 0, 0])
    np.testing.assert_equal(env.step([0, 1, 1, 3]), undisturbed.step([0, 1, 1, 3]))


@pytest.mark.parametrize("name", ["limit-changes", "settle"])
def test_limits_need_an_episode_and_whole_vectors_below(make: Make, name: str) -> None:
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        wrap(make(), [name]).step([0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"needs the actions MultiDiscrete.*, got Discrete"):
        wrap(make(), ["single-layer", name])


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("limit-changes", {"max_changes": 0}, "max_changes must be a whole number of at least 1, got 0"),
        ("limit-changes", {"max_changes": 1.5}, "max_changes must be a whole number of at least 1, got 1.5"),
        ("limit-changes", {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ("settle", {"after": 1.5}, "after must be a share of the training steps, from 0 to 1, got 1.5"),
        ("settle", {"after": -0.1}, "from 0 to 1, got -0.1"),
        ("settle", {"after": float("nan")}, "after must be a finite number, got nan"),
    ],
)
def test_bad_settings_of_limits_are_refused(make: Make, name: str, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(make(), [name], {name: setting})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--max-changes", "2"], "max_changes applies only to --wrappers limit-changes"),
        (
            ["run", "--settle-after", "0.5", "--wrappers", "limit-changes"],
            "settle_after applies only to --wrappers settle",
        ),
        (["run", "--intervals", "1", "3"], "intervals applies only to --wrappers choose-interval"),
        (["run", "--longest-interval", "2"], "longest_interval applies only to --wrappers interval-doubling"),
        (["run", "--parameter-penalty", "3"], "parameter_penalty applies only to --rewards parameter-penalty"),
        (["run", "--max-bytes", "9", "--rewards", "clipped"], "max_bytes applies only to --rewards max-bytes"),
        (["compare", "--agents", "dqn", "random", "--max-bytes-bits", "4"], "max_bytes_bits applies only to --rewards"),
        (
            ["compare", "--agents", "dqn+parameter-penalty", "--arms", "a: --agent random --max-changes 2"],
            "max_changes applies only to --wrappers limit-changes: name that, too, or leave it out, got 2",
        ),
        (["tune", "--search", "settle-after: 0.1..0.5"], "settle_after applies only to --wrappers settle"),
    ],
)
def test_an_option_of_a_wrapper_that_is_not_there_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    out = ["--run-dir" if words[0] == "run" else "--out", str(tmp_path / "out")]
    done = called(*words, *out)
    assert done.returncode != 0 and said in " ".join((done.stdout + done.stderr).split())
    assert not (tmp_path / "out").exists()


def test_of_several_arms_one_that_has_the_wrapper_is_enough() -> None:
    settings = RunConfig(max_changes=2, max_bytes=9)
    refuse_unread([settings, dataclasses.replace(settings, wrappers=("limit-changes",), rewards=("max-bytes",))])
