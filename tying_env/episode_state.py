"""The state of an episode beside its network, as plain data, and back."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from tying_env.budget import Budget
from tying_env.config import EnvConfig
from tying_env.decision import Decision, check_count, check_share

if TYPE_CHECKING:
    from tying_env.episode import Episode

_COUNTERS = ("decisions", "tied_at", "train_step", "frozen_steps_left")


def capture(episode: Episode) -> dict[str, Any]:
    """Return what of an episode is beside its network, ready for JSON."""
    validation = episode.validation_perplexity
    return {
        "reward_batches": episode.reward_batches.state_dict(),
        **{name: getattr(episode, name) for name in _COUNTERS},
        "interval": episode.interval,
        "trial_steps": episode.trial_steps,
        "trial_steps_paid": episode.trial_steps if episode.is_trial else episode.budget.trials,
        "trials_asked": episode.budget.asked,
        "validation_perplexity": validation if math.isfinite(validation) else None,
        "validation_accuracy": episode.validation_accuracy,
        "input_dependence": episode.input_dependence,
        "over": episode.over,
        "under_way": None if episode.under_way is None else dataclasses.asdict(episode.under_way),
    }


def restore(episode: Episode, state: dict[str, Any], config: EnvConfig) -> None:
    """Fill a new episode from a state.

    Args:
        episode: the new one.
        state: what `capture` gave.
        config: the settings of the environment.

    Raises:
        ValueError: the state does not fit; throw the episode away then.
    """
    most = {name: config.total_steps for name in _COUNTERS} | {"frozen_steps_left": config.k}
    for name in _COUNTERS:
        setattr(episode, name, check_count(name, state[name], most[name]))
    # A state of before there were intervals, or trials, has none.
    episode.interval = check_count("interval", state.get("interval", config.k), least=1)
    left = config.total_steps - episode.train_step
    episode.trial_steps = check_count("trial_steps", state.get("trial_steps", 0), left)
    paid = check_count("trial_steps_paid", state.get("trial_steps_paid", 0), left)
    asked = state.get("trials_asked", paid > 0)
    if type(asked) is not bool:
        raise ValueError(f"the state's trials_asked must be true or false, got {asked!r}")
    if not episode.is_trial:
        episode.budget = Budget(config.total_steps, episode.train_step, paid, asked=asked)
    validation = state["validation_perplexity"]
    if not (validation is None or (isinstance(validation, float) and math.isfinite(validation))):
        raise ValueError(f"the state's validation_perplexity must be a number or none, got {validation!r}")
    accuracy = check_share("validation_accuracy", state["validation_accuracy"])
    dependence = state.get("input_dependence")  # a state of an earlier version does not have it
    if dependence is not None:
        check_share("input_dependence", dependence)
    if type(state["over"]) is not bool:
        raise ValueError(f"the state's over must be true or false, got {state['over']!r}")
    try:
        under_way = None if state["under_way"] is None else Decision(**state["under_way"])
    except TypeError as error:
        raise ValueError(f"the state's decision under way does not fit: {error}") from error
    if under_way is not None:
        check_count("steps_left", under_way.steps_left, min(episode.interval, episode.ends_at - episode.train_step))
    episode.reward_batches.load_state_dict(state["reward_batches"])
    episode.validation_perplexity = math.inf if validation is None else validation
    episode.validation_accuracy, episode.input_dependence = accuracy, dependence
    episode.over, episode.under_way = state["over"], under_way
