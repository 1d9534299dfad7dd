"""Making a run longer than it was begun: where its schedule, its agent and its wrappers do not go by its length."""

import copy
import dataclasses
from typing import Any

from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_env.runs.layouts import LAYOUT, modern

# Wrappers that go by the share of the run that is done.
_GO_BY_LENGTH = ("settle", "training-progress")

_TO_TRAIN_ON = (
    "To train its network on: layer-tying export RUN FOLDER --network final --dense, then layer-tying run "
    "--init-from FOLDER --total-steps ..."
)


class LengthIsFixed(ValueError):
    """A run cannot be made longer, or shorter; the message says why, and what can be done."""


def same_but_longer(saved: RunConfig, asked: RunConfig) -> RunConfig:
    """Return the settings of a longer run: its warm-up stays what it was, also where it was a share of the length.

    Args:
        saved: settings that the run has.
        asked: settings that it is to be resumed with; `total_steps` is another.

    Raises:
        LengthIsFixed: its settings go by its length.
    """
    before, now = saved.env, asked.env

    def refuse(why: str) -> LengthIsFixed:
        return LengthIsFixed(f"total_steps is {before.total_steps} there, {now.total_steps} here: {why}")

    if now.total_steps < before.total_steps:
        raise refuse("a run is not made shorter; Ctrl-C, or a callback, stops one")
    if before.schedule in ("cosine", "linear"):
        raise refuse(
            f"the {before.schedule} schedule has given every training step a learning rate that goes by the length, "
            "and a longer run would have had others; runs with --schedule constant, or wsd before it decays, can be "
            f"made longer. {_TO_TRAIN_ON}"
        )
    if saved.episodes > 1:
        raise refuse(f"its {saved.episodes} episodes are all of one length")
    if _goes_by_length(saved):
        raise refuse(f"the agent {saved.agent} goes by the length of the run. {_TO_TRAIN_ON}")
    if by_length := [name for name in saved.wrappers if name in _GO_BY_LENGTH]:
        raise refuse(f"the wrapper {by_length[0]} goes by the share of the run that is done. {_TO_TRAIN_ON}")
    env = dataclasses.replace(before, total_steps=now.total_steps, warmup_steps=before.warmup_length)
    return dataclasses.replace(saved, env=env)


def _goes_by_length(saved: RunConfig) -> bool:
    agent = find_agent(saved.agent)
    return agent.kind == "sb3" or agent.goes_by_length(saved.controller)


def lengthened(state: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return the state of a checkpoint as that of a longer run.

    Args:
        state: of a run of fewer training steps.
        config: settings of the longer run, from `same_but_longer`.

    Raises:
        LengthIsFixed: its learning rate had begun to fall, its last decision was cut short by its end, or its
            controller looked ahead, or would have.
        KeyError, TypeError: the state is damaged.
    """
    env, k = state["env"], config.env.k
    interval = env.get("interval", k)  # of the last decision; a state of before there were intervals has none
    before = dataclasses.replace(config.env, total_steps=env["config"]["total_steps"])
    done, under_way = env["train_step"], env["under_way"]
    if env.get("trials_asked", env.get("trial_steps", 0) > 0):
        raise LengthIsFixed(
            "its controller, or a wrapper, looks ahead as long as the run has training steps left to pay for that: in "
            f"a longer run it would have decided otherwise. {_TO_TRAIN_ON}"
        )
    falls_at = before.total_steps - before.wsd_decay_steps
    if before.schedule == "wsd" and done > falls_at:
        raise LengthIsFixed(
            f"the wsd schedule has lowered the learning rate since training step {falls_at}, and {done} are done; "
            f"a longer run would not have. {_TO_TRAIN_ON}"
        )
    steps = done - env["tied_at"] + (0 if under_way is None else under_way["steps_left"])
    ended = env["over"] or under_way is not None  # between two decisions the interval may be that of the next one
    if before.total_steps <= k or (ended and steps != interval):
        raise LengthIsFixed(
            f"its last decision was cut short by the end of the run, to {steps} of {interval} training steps. "
            f"{_TO_TRAIN_ON}"
        )
    changed = copy.copy(state)
    settings = {**env["config"], "total_steps": config.env.total_steps, "warmup_steps": config.env.warmup_steps}
    changed["env"] = {**env, "config": settings, "over": False}
    return changed


def about_longer(about: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return what config.json holds once a run is longer.

    Args:
        about: what it holds now.
        config: settings of the longer run.
    """
    env = {**about["env"], "total_steps": config.env.total_steps, "warmup_steps": config.env.warmup_steps}
    return {**modern(about), "layout": LAYOUT, "env": env}
