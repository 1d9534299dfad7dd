"""The one loop of decisions: a controller, an environment, and callbacks that are told.

drive(my_controller, gym.make("LayerTying-GPT2-v0"), [my_callback], seed=0)
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from tying_agents import foreign_wrappers
from tying_agents.callbacks import Callback, Callbacks, conduct
from tying_agents.controllers.base import Controller, Transition
from tying_agents.foreign import (
    checked_action,
    checked_metrics,
    checked_notes,
    checked_tying,
    give_what_it_needs,
    naming_the_controller,
)
from tying_agents.held import held
from tying_env.distributed import agreed_stop
from tying_env.partition import IntVector
from tying_env.wrappers.base import Step

if TYPE_CHECKING:
    from tying_agents.run_config import RunConfig

_COUNTERS = ("episode", "decision", "tokens")
# What a record has besides the environment's `info`, the controller's metrics and what the network holds.
_OWN = ("episode", "decision", "action", "reward")


class Loop:
    """The episodes of one environment, a decision at a time; callbacks are told of each.

    `reset` begins an episode; `step`, then `complete`, is a decision. `run` lets a controller make them all.

    Args:
        env: a LayerTyingEnv or another `tying_env.environment.TyingEnv`, in any wrappers.
        callbacks: are told how it goes, in their order.
        episodes: how many there will be.
        seed: of the first episode; those after it follow from it. None: drawn by the environment.

    Attributes:
        observation: what the next decision is made on.
        action: of the step that is being made; it outlives a stop. None before the next one is chosen.
        over: whether an episode is to begin.
        diverged: whether training diverged.
        episode: the running one, counted from 1.
        decisions: made in all episodes together.
        seconds: spent in `env.step`.
        stop_reason: why the run is to end before its time, if somebody called `stop`.
        config: the settings of a run that has any.
        directory: the run directory of a run that has one.
        learns_every: decisions between two updates of an SB3 agent; None of others.
    """

    config: RunConfig | None = None
    directory: Path | None = None
    learns_every: int | None = None

    def __init__(
        self,
        env: gym.Env[Any, Any],
        callbacks: Sequence[Callback] | Callbacks = (),
        *,
        episodes: int = 1,
        seed: int | None = None,
    ) -> None:
        self.env = env
        self.inner: Any = env.unwrapped
        self.callbacks = callbacks if isinstance(callbacks, Callbacks) else Callbacks(callbacks)
        self.episodes = episodes
        self.observation: Any = np.zeros(0, dtype=np.int64)
        self.action: Any = None
        self.over, self.diverged = True, False
        self.episode = self.decisions = 0
        self.seconds = 0.0
        self.stop_reason: str | None = None
        self._seed = seed
        self._earlier_tokens = 0  # of the episodes before this one
        self._validated = math.inf
        self._result: tuple[float, dict[str, Any]] | None = None  # of the last step, until it is completed

    @property
    def finished(self) -> bool:
        """Whether the last episode is over."""
        return self.over and self.episode >= self.episodes

    @property
    def total_steps(self) -> int:
        """Training steps in all episodes together, if none diverges."""
        return int(self.episodes * self.inner.total_steps)

    @property
    def decisions_in_all(self) -> int:
        """Decisions in all episodes together, if none diverges; the frozen start does not count.

        Where decisions choose their own intervals there are no more than these.
        """
        return int(self.episodes * self.env.get_wrapper_attr("decisions_per_episode"))

    @property
    def train_step(self) -> int:
        """Training steps done in all episodes together; earlier ones count in full."""
        return int((self.episode - 1) * self.inner.total_steps + self.inner.train_step) if self.episode else 0

    @property
    def steps_done(self) -> int:
        """Training steps done in all episodes together, those of the decision under way and of trials too."""
        if not self.episode or getattr(self.inner, "trainer", None) is None:
            return self.train_step
        here = self.inner.trainer.rates.steps + self.inner.trial_steps
        return int((self.episode - 1) * self.inner.total_steps + here)

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on, over the time spent in `env.step`; 0 before the first step."""
        tokens = self._earlier_tokens + self._tokens()
        return float(tokens / self.seconds) if self.seconds else 0.0

    def stop(self, reason: str) -> None:
        """End the run after the decision in progress.

        Args:
            reason: why, for the summary.
        """
        self.stop_reason = reason

    def reset(self, tying: IntVector | None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode, with this tying or (None) as the environment begins."""
        self.complete_if_open({})
        if self.episode:
            self._earlier_tokens += self._tokens()
        seed = self._seed if self.episode == 0 else None
        options = None if tying is None else {"tying": tying}
        self.observation, info = foreign_wrappers.reset(self.env, seed, options)
        self.episode += 1
        self.over, self._validated = False, math.inf
        self.callbacks.episode_begins(self, tying)
        return self.observation, info

    def step(self, action: Any) -> Step:
        """Step the environment, and measure how long it takes.

        Raises:
            tying_env.episode.Stopped: the environment was asked to stop; the same step continues later.
        """
        self.action = np.asarray(action)
        started = time.perf_counter()
        try:
            following, reward, terminated, truncated, info = foreign_wrappers.step(self.env, action)
        finally:
            self.seconds += time.perf_counter() - started
        self.decisions += 1
        self.over, self.diverged = terminated or truncated, bool(info.get("diverged", False))
        self._result = float(reward), dict(info)  # wrappers that come later add to it: SB3 the time that passed
        self.observation = following
        return following, float(reward), terminated, truncated, info

    def complete(self, metrics: dict[str, float]) -> None:
        """Tell the callbacks of the last step.

        Their record has `episode`, `decision`, `action`, `reward`, everything in `info`, what the controller says of
        itself, and what the network holds (`tying_agents.held`). There is no clock reading in it: equal seeds give
        equal records.

        Args:
            metrics: of the controller.
        """
        assert self._result is not None, "complete() follows step()"
        (reward, info), action = self._result, self.action
        self._result = self.action = None
        own = (self.episode, self.decisions, action, reward)
        record = {**dict(zip(_OWN, own, strict=True)), **info, **metrics, **held(self.inner)}
        measured = info.get("validation_perplexity", math.inf)
        fresh, self._validated = measured != self._validated and math.isfinite(measured), measured
        if fresh:
            self.callbacks.validation_measured(self, record)
        self.callbacks.decision_made(self, record)

    def complete_if_open(self, metrics: dict[str, float]) -> None:
        """Complete the last step, unless that has been done: who drives the environment may reset it first."""
        if self._result is not None:
            self.complete(metrics)

    def run(self, controller: Controller) -> None:
        """Let a controller decide until its episodes are over, or somebody has called `stop`.

        Raises:
            ValueError: the environment does not offer what the controller needs.
            tying_agents.foreign.WrongReturn: a controller's or wrapper's value is not valid. (A ForeignCodeError.)
            tying_env.plugins.ForeignCodeError: code of the user's own failed; its error is chained.
            tying_env.episode.Stopped: the environment was asked to stop; loop and controller can be saved then.
        """
        give_what_it_needs(controller, self.env)
        with naming_the_controller(controller, "notes"):
            notes = controller.notes()
        for text in checked_notes(notes, controller):
            self.callbacks.note(text)
        # A run that is stopped as it begins makes one decision: before that there is no network to keep.
        stopping = agreed_stop(lambda: self.stop_reason is not None and self.decisions > 0)
        while not self.finished and not stopping():
            if self.over:
                with naming_the_controller(controller, "begin"):
                    controller.begin()
                with naming_the_controller(controller, "initial_tying"):
                    initial = controller.initial_tying()
                self.reset(checked_tying(initial, self.env, controller))
            observation = self.observation
            # 1. Decide, tie, train, measure. (A step that was stopped has its action already.)
            if self.action is None:
                with naming_the_controller(controller, "act"):
                    action = controller.act(observation)
                self.action = checked_action(action, self.env, controller)
            action = self.action
            following, reward, terminated, _, info = self.step(action)
            # 2. Learn.
            with naming_the_controller(controller, "update"):
                controller.update(Transition(observation, action, reward, following, terminated))
            with naming_the_controller(controller, "metrics"):
                metrics = controller.metrics()
            # 3. Tell.
            self.complete(checked_metrics(metrics, (*_OWN, *info), controller))

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is, ready for JSON; environment, wrappers and controller have states of their own."""
        return {
            "episode": self.episode,
            "decision": self.decisions,
            "tokens": self._earlier_tokens,
            "seconds": self.seconds,
            "action": self.action,
            "validated": self._validated,  # null before the first measurement
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Check a state that `state_dict` gave.

        Raises:
            ValueError: it does not fit this loop.
        """
        # `decisions_in_all` is no bound: an episode that begins with a controller's own tying makes one decision more.
        for name, most in zip(_COUNTERS, (self.episodes, self.total_steps, 2**63), strict=True):
            if type(state[name]) is not int or not 0 <= state[name] <= most:
                raise ValueError(f"the recorder's {name} must be a whole number up to {most}, got {state[name]!r}")
        validated = state.get("validated")
        if not (type(state["seconds"]) is float and state["seconds"] >= 0) or type(validated) not in (float, NoneType):
            raise ValueError(f"the recorder's seconds and validated cannot be {state['seconds']!r}, {validated!r}")
        if state["action"] is not None and not self.env.action_space.contains(np.asarray(state["action"])):
            raise ValueError(f"the recorder's action {state['action']} is not in {self.env.action_space}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where a run was; the environment must have its state already.

        Raises:
            ValueError: the state does not fit; nothing is changed then.
        """
        self.check_state(state)
        self.episode, self.decisions, self._earlier_tokens = (state[name] for name in _COUNTERS)
        self.seconds, self.over = state["seconds"], self.inner.over
        self.action = None if state["action"] is None else np.asarray(state["action"])
        validated = state.get("validated")  # a checkpoint of an earlier version does not have it
        self._validated = math.inf if validated is None else validated

    def _tokens(self) -> int:
        trainer = getattr(self.inner, "trainer", None)
        return 0 if trainer is None else int(trainer.tokens)


def drive(
    controller: Controller,
    env: gym.Env[Any, Any],
    callbacks: Sequence[Callback] = (),
    *,
    episodes: int = 1,
    seed: int | None = None,
) -> Loop:
    """Let a controller decide in an environment until its episodes are over, or a callback stops it.

    Args:
        controller: chooses the tyings.
        env: a LayerTyingEnv or another `tying_env.environment.TyingEnv`, in any wrappers.
        callbacks: are told how it goes.
        episodes: training runs, one after the other, that the controller learns over.
        seed: of the first episode; those after it follow from it.

    Returns:
        The loop, as it stands at the end.

    Raises:
        ValueError, tying_env.plugins.ForeignCodeError: as `Loop.run`.
    """
    loop = Loop(env, callbacks, episodes=episodes, seed=seed)
    conduct(loop, lambda: loop.run(controller))
    return loop
