"""The life of an episode, without any network: what is due in which order, what is counted, where it may stop."""

import math
from typing import Any

import numpy as np
import pytest

from tests.controllers import vector
from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.decision import Measure, Outcome, Stage, Train
from tying_env.episode import Episode, Stopped, advance
from tying_env.primary.evaluation import Measurement
from tying_env.primary.trainer import TrainResult


class Numbers:
    """Batches that are nothing but counted."""

    def __init__(self) -> None:
        self.drawn = 0

    def next_batch(self) -> Any:
        self.drawn += 1
        return np.array([self.drawn])

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


class Pretended(Episode):
    """An episode without a network: its tying is a vector."""

    def __init__(self, **settings: Any) -> None:
        config = EnvConfig(n_layer=3, **{"k": 2, "total_steps": 7, "validate_every": 4} | settings)
        super().__init__(Numbers(), config, frozen_start=True)
        self.in_force = vector(0, 0, 0)

    @property
    def network_tying(self) -> partition.IntVector:
        return self.in_force

    @property
    def tokens(self) -> int:
        return self.train_step

    def count_trainable(self) -> int:
        return 0

    def change(self, action: partition.IntVector) -> partition.TyingEvents:
        before, self.in_force = self.in_force, partition.canonicalise(action)
        return partition.events(before, self.in_force)


def carry_out(episode: Episode, action: partition.IntVector, **wrong: Any) -> tuple[list[Any], Outcome]:
    """Carry out a decision with a loss of 1 everywhere; return its stages, with the steps of those that train."""
    seen, deciding = [], episode.decide(action)
    while not isinstance(task := advance(deciding), Outcome):
        if isinstance(task, Train):
            seen.append((task.stage, task.steps))
            task.result = TrainResult([1.0] * task.steps, wrong.get("diverges_at") == task.stage, stopped=False)
        else:
            seen.append(task.stage)
            task.result = Measurement(math.inf if wrong.get("diverges_at") == task.stage else 1.0)
    return seen, task


FROZEN, TRAINING = Stage.FROZEN_START, Stage.TRAINING


def test_what_is_due_comes_in_order_and_the_last_decision_ends_the_episode() -> None:
    episode = Pretended()
    assert episode.ties_at == 2
    first, outcome = carry_out(episode, vector(0, 1, 1))
    assert first == [(FROZEN, 2), (TRAINING, 2), Stage.REWARD, Stage.VALIDATION]
    assert outcome.events == (1, 1)
    assert (episode.train_step, episode.tied_at, episode.ties_at, episode.over) == (4, 2, 4, False)
    assert carry_out(episode, vector(0, 0, 2))[0] == [(FROZEN, 0), (TRAINING, 2), Stage.REWARD]
    assert carry_out(episode, vector(0, 0, 0))[0] == [(FROZEN, 0), (TRAINING, 1), Stage.REWARD, Stage.VALIDATION]
    assert (episode.train_step, episode.decisions, episode.over) == (7, 3, True)


def test_an_early_reward_is_measured_after_the_tie_and_before_training() -> None:
    episode = Pretended(reward_timing="after_tying", validate_every=0)
    assert carry_out(episode, vector(0, 1, 2))[0] == [(FROZEN, 2), Stage.EARLY_REWARD, (TRAINING, 2)]


@pytest.mark.parametrize(
    ("stage", "seen"),
    [
        (Stage.FROZEN_START, [(FROZEN, 2), (TRAINING, 0)]),
        (Stage.TRAINING, [(FROZEN, 2), (TRAINING, 2)]),
        (Stage.REWARD, [(FROZEN, 2), (TRAINING, 2), Stage.REWARD]),
        (Stage.VALIDATION, [(FROZEN, 2), (TRAINING, 2), Stage.REWARD, Stage.VALIDATION]),
    ],
)
def test_after_divergence_nothing_more_is_trained_or_measured(stage: Stage, seen: list[Any]) -> None:
    episode = Pretended()
    stages, outcome = carry_out(episode, vector(0, 1, 2), diverges_at=stage)
    assert stages == seen
    assert outcome.diverged
    assert episode.over


def test_a_decision_that_was_stopped_continues_with_what_is_left_and_only_with_its_action() -> None:
    episode = Pretended(k=3, validate_every=0)
    deciding = episode.decide(vector(0, 1, 2))
    for steps, stopped in ((3, False), (1, True)):
        task = advance(deciding)
        assert isinstance(task, Train)
        task.result = TrainResult([2.0] * steps, diverged=False, stopped=stopped)
    with pytest.raises(Stopped):
        advance(deciding)
    assert episode.tying.tolist() == [0, 0, 0]  # the one it was decided on
    assert (episode.train_step, episode.tied_at, episode.ties_at, episode.decisions) == (4, 3, 3, 0)
    with pytest.raises(ValueError, match=r"call step\(\) with its action \[0, 1, 2\] to continue, or reset\(\); got"):
        advance(episode.decide(vector(0, 0, 0)))
    again = Pretended(k=3, validate_every=0)
    again.load_state_dict(episode.state_dict())
    seen, outcome = carry_out(again, vector(0, 1, 2))
    assert seen == [(TRAINING, 2), Stage.REWARD]
    assert outcome.train_loss == pytest.approx((2.0 + 1.0 + 1.0) / 3)


def test_reward_batches_are_drawn_by_who_measures_so_that_a_task_left_undone_has_drawn_none() -> None:
    episode = Pretended(reward_timing="after_tying", reward_batches=3)
    deciding = episode.decide(vector(0, 1, 2))
    frozen = advance(deciding)
    assert isinstance(frozen, Train)
    frozen.result = TrainResult([1.0, 1.0], diverged=False, stopped=False)
    assert isinstance(advance(deciding), Measure)
    assert episode.reward_batches.state_dict() == {"drawn": 0}
    assert len(episode.next_reward_batches()) == 3


def test_a_task_without_a_result_is_an_error() -> None:
    deciding = Pretended().decide(vector(0, 1, 2))
    advance(deciding)
    with pytest.raises(RuntimeError, match="before the last one had its result"):
        advance(deciding)
