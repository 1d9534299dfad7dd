"""Learning rates: schedules by hand-computed values, groups that come later, resumed and forked in the middle."""

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import own
from tying_env import partition
from tying_env.config import PRESETS, EnvConfig, with_later_settings
from tying_env.env import LayerTyingEnv
from tying_env.episode import Stopped
from tying_env.primary.schedule import LearningRates, Schedule

COSINE: dict[str, Any] = {"schedule": "cosine", "warmup_steps": 5, "min_lr_ratio": 0.0}


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Schedule("constant", 4), [1, 1, 1, 1, 1]),
        (Schedule("constant", 5, warmup_steps=3), [1 / 4, 2 / 4, 3 / 4, 1, 1]),
        (Schedule("linear", 4), [1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
        (Schedule("linear", 6, warmup_steps=2, min_ratio=0.2), [1 / 3, 2 / 3, 1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        (Schedule("cosine", 4, min_ratio=0.5), [1, 0.5 + 0.25 * (1 + 0.5**0.5), 0.75, 0.75 - 0.25 * 0.5**0.5, 0.5]),
        (Schedule("wsd", 8, warmup_steps=1, decay_steps=4, min_ratio=0.2), [0.5, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        (Schedule("wsd", 2, decay_steps=2), [1, 0.5, 0]),
    ],
)
def test_the_shares_are_those_computed_by_hand(schedule: Schedule, shares: list[float]) -> None:
    assert [schedule.share(step) for step in range(len(shares))] == pytest.approx(shares, abs=1e-12)


def test_the_rates_are_those_of_torchs_own_scheduler() -> None:
    schedule = Schedule("cosine", 12, warmup_steps=3, min_ratio=0.1)
    pair = []
    for make in (LearningRates, lambda opt, s: torch.optim.lr_scheduler.LambdaLR(opt, s.share)):
        groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in (0.1, 0.03)]
        optimizer = torch.optim.AdamW(groups)
        scheduler: Any = make(optimizer, schedule)  # type: ignore[operator]
        seen = []
        for _ in range(13):
            seen.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        pair.append(seen)
    assert pair[0] == pair[1]


def rates(env: LayerTyingEnv) -> dict[Any, float]:
    return {group.get("leader"): group["lr"] for group in env.trainer.optimizer.param_groups}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_schedule_counts_training_steps_and_frozen_ones_too(tiny: dict[str, Any], accumulate: int) -> None:
    env = LayerTyingEnv(**tiny | COSINE | {"accumulate": accumulate})
    env.reset(seed=0)
    assert env.trainer.learning_rate == pytest.approx(1e-3 / 6)
    env.step(np.array([0, 1, 0, 1]))  # two frozen steps and two more
    assert env.trainer.learning_rate == pytest.approx(1e-3 * 4 / 6)  # in the last of them
    assert rates(env)[None] == pytest.approx(1e-3 * 5 / 6)  # in the next one
    assert rates(env) == dict.fromkeys([None, 0, 1], rates(env)[None])


def test_groups_that_appear_in_the_middle_have_the_present_share_of_their_own_rate(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | COSINE | {"group_lr": "sqrt"})
    env.reset(seed=0, options={"tying": [0, 0, 0, 0]})
    env.trainer.train(8)
    now = 1e-3 * env.trainer.rates.schedule.share(8)
    assert 0 < now < 1e-3
    env.trainer.tie([0, 0, 2, 0])
    assert rates(env) == pytest.approx({None: now, 0: now / 3**0.5, 2: now})
    env.trainer.tied.change([0, 1, 1, 1], env.trainer.optimizer)  # past the trainer: right by the next step
    env.trainer.train(0)
    assert rates(env) == pytest.approx({None: now, 0: now, 1: now / 3**0.5})


def test_groups_that_a_change_touched_are_warmed_up_again(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"schedule": "constant", "warmup_steps": 0, "change_warmup_steps": 3})
    env.reset(seed=0, options={"tying": [0, 1, 0, 3]})
    assert rates(env) == dict.fromkeys([None, 0, 1, 3], 1e-3)  # the start is none of it
    env.trainer.train(1)
    env.trainer.tie([0, 1, 0, 1])  # group 1 gains a layer
    assert rates(env) == pytest.approx({None: 1e-3, 0: 1e-3, 1: 1e-3 / 4})
    env.trainer.train(2)
    env.trainer.tie([0, 1, 2, 1])  # layer 2 leaves group 0
    assert rates(env) == pytest.approx({None: 1e-3, 0: 1e-3 / 4, 1: 1e-3 * 3 / 4, 2: 1e-3 / 4})
    fork = env.fork()
    for twin in (env, fork):
        twin.trainer.train(2)
        assert rates(twin) == pytest.approx({None: 1e-3, 0: 1e-3 * 3 / 4, 1: 1e-3, 2: 1e-3 * 3 / 4})
    assert rates(env) == rates(fork)


def test_at_the_end_of_the_frozen_start_new_leaders_are_warmed_up(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"schedule": "constant", "warmup_steps": 0, "change_warmup_steps": 3})
    env.reset(seed=0)
    env.trainer.train(2)
    env.trainer.tie([0, 1, 1, 1])
    assert rates(env) == pytest.approx({None: 1e-3, 0: 1e-3, 1: 1e-3 / 4})


def test_the_rate_is_what_weights_move_by(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"warmup_steps": 9, "weight_decay": 0.0})
    env.reset(seed=0)
    before = env.trainer.network.model.get_parameter("transformer.ln_f.bias").detach().clone()
    env.trainer.train(1)
    moved = (env.trainer.network.model.get_parameter("transformer.ln_f.bias") - before).abs().max().item()
    assert moved == pytest.approx(1e-3 / 10, rel=1e-2)  # AdamW's first step is the rate itself


@pytest.mark.parametrize(
    "choice",
    [COSINE, {"schedule": "wsd", "warmup_steps": 3, "group_lr": "linear"}, {"change_warmup_steps": 5}],
)
def test_a_run_stopped_in_warm_up_or_decay_ends_with_the_same_bits(tiny: dict[str, Any], choice: Any) -> None:
    def actions() -> list[Any]:
        rng = np.random.default_rng(0)
        return [partition.uniform_random_action(4, rng) for _ in range(9)]

    whole, cut = LayerTyingEnv(**tiny | choice), LayerTyingEnv(**tiny | choice)
    whole.reset(seed=0)
    cut.reset(seed=0)
    for action in actions():
        expected = whole.step(action)
        answers = itertools.chain([False, True], itertools.repeat(False))  # after each step of training
        while True:
            cut.should_stop = lambda answers=answers: next(answers)  # type: ignore[misc]
            try:
                result = cut.step(action)
                break
            except Stopped:
                state = copy.deepcopy(cut.state_dict())
                cut = LayerTyingEnv(**tiny | choice)
                cut.load_state_dict(state)
        np.testing.assert_equal(result, expected)
        fork = cut.fork()
        for name in ("learning_rate", "gradient_norm"):
            values = {getattr(env.trainer, name) for env in (whole, cut, fork)}
            assert len(values) == 1, name
        assert rates(whole) == rates(cut) == rates(fork)
    ends = [dict(env.trainer.named_parameters()) for env in (whole, cut)]
    assert all(torch.equal(p, ends[1][name]) for name, p in ends[0].items())


def test_a_network_of_ones_own_has_the_schedule() -> None:
    env = own(**COSINE)
    env.reset(seed=0)
    env.step(np.array([0, 0, 2]))
    assert env.trainer.learning_rate == pytest.approx(env.config.learning_rate * 4 / 6)


def test_the_gradient_norm_is_the_mean_since_the_last_change(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny)
    env.reset(seed=0)
    assert env.trainer.gradient_norm == float("inf")
    norms = []
    plain = env.trainer.compute_gradients

    def noted(*arguments: Any) -> torch.Tensor:
        outcome = plain(*arguments)
        norms.append(outcome[1].item())
        return outcome

    env.trainer.compute_gradients = noted  # type: ignore[method-assign]
    env.step(np.array([0, 1, 0, 1]))
    assert len(norms) == 4
    assert env.trainer.gradient_norm == pytest.approx(np.mean(norms[2:]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"warmup_steps": 300}, "warmup_steps must be at most 299, so that 1 of total_steps=300 remain, got 300"),
        ({"warmup_steps": 241, "schedule": "wsd"}, "warmup_steps must be at most 240, so that 60 of total_steps=300"),
        ({"schedule": "exponential"}, "schedule must be one of 'constant', 'linear', 'cosine', 'wsd', got 'exp"),
        ({"schedule": "cosine", "min_lr_ratio": -0.1}, "min_lr_ratio must be from 0 to 1, got -0.1"),
        ({"schedule": "cosine", "min_lr_ratio": 1.5}, "min_lr_ratio must be from 0 to 1, got 1.5"),
        (
            {"schedule": "constant", "min_lr_ratio": 0.5},
            "min_lr_ratio applies only to a schedule that falls: leave it out, got 0.5",
        ),
        ({"schedule": "wsd", "wsd_decay_share": 0.0}, "wsd_decay_share must be above 0 and at most 1, got 0.0"),
        ({"wsd_decay_share": 0.5}, "wsd_decay_share applies only to schedule='wsd': leave it out, got 0.5"),
        ({"k": 301}, "k must be at most total_steps=300, got 301"),
    ],
)
def test_schedules_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig(**{"total_steps": 300} | settings)


def test_damaged_counts_are_refused(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny)
    env.reset(seed=0)
    env.step(np.array([0, 1, 0, 1]))
    for damage, message in (
        ({"steps": -1}, "steps, tokens and bytes must be five whole numbers"),
        ({"steps": 2.0}, "steps, tokens and bytes must be five whole numbers"),
        ({"ages": {}}, "ages must be whole numbers, or none, for all leaders"),
        ({"ages": {"0": -1, "1": 2}}, "ages must be whole numbers, or none, for all leaders"),
        ({"norms": [1.0]}, "gradient norms must be a sum and a count"),
        ({"norms": [float("nan"), 1]}, "gradient norms must be a sum and a count"),
    ):
        state = copy.deepcopy(env.state_dict())
        state["trainer"] |= damage
        with pytest.raises(ValueError, match=message):
            LayerTyingEnv(**tiny).load_state_dict(state)


def test_by_default_the_rate_rises_over_a_tenth_of_the_run_and_falls() -> None:
    assert EnvConfig().schedule == "cosine"
    assert EnvConfig(total_steps=250).warmup_length == 25
    assert EnvConfig(total_steps=9).warmup_length == 0
    assert EnvConfig(model="bert", total_steps=9).warmup_length == 4
    assert EnvConfig(warmup_steps=0).warmup_length == 0


def test_the_papers_presets_have_a_constant_rate_from_the_first_step_on() -> None:
    for (_, size), preset in PRESETS.items():
        if size == "paper":
            config = EnvConfig(**preset)
            assert config.schedule == "constant"
            assert config.warmup_length == 0


def test_runs_of_before_there_were_schedules_had_a_constant_rate() -> None:
    saved = with_later_settings({"total_steps": 300})
    assert saved["schedule"] == "constant"
    assert saved["warmup_steps"] == 0
