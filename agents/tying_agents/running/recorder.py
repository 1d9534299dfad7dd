"""Fills a run directory: a line for each decision, the trace, the best network, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tying_agents import foreign_wrappers
from tying_agents.callbacks import Callback, Record
from tying_agents.controllers import traces
from tying_agents.loop import Loop
from tying_env.partition import IntVector
from tying_env.runs import Checkpoints, RunDirectory, save_network
from tying_env.runs.run_directory import BEST, JOURNAL, METRICS
from tying_env.wrappers import load_wrapper_states
from tying_env.wrappers.interval import interval_wrapper

# Files that only grow; a checkpoint remembers how far they were.
LOGS = (METRICS, traces.TRACE, JOURNAL)


class Recorder(Callback):
    """Writes down what happens. Episodes follow each other in the same files; the networks are of the last one.

    Args:
        directory: where to write.

    Attributes:
        best: the lowest validation perplexity of the episode; infinity before the first measurement.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.best = math.inf

    def episode_begins(self, loop: Loop, tying: IntVector | None) -> None:
        """Begin a trace."""
        self.best = math.inf
        config, varied = loop.inner.config, interval_wrapper(loop.env) is not None
        tying = None if tying is None else loop.inner.permitted(tying)
        self.directory.append(traces.TRACE, traces.header(loop.inner.kinds, tying, config.freeze_at_start, varied))

    def validation_measured(self, loop: Loop, record: Record) -> None:
        """Keep the network if it is the best of the episode."""
        if record["validation_perplexity"] < self.best:
            self.best = record["validation_perplexity"]
            save(loop, self.directory, BEST)

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Write the decision's line and its tying."""
        self.directory.append(traces.TRACE, traces.line(loop.inner.tied_at, record["tying"]))
        if loop.over:
            self.directory.append(traces.TRACE, traces.end(loop.inner.train_step))
        with foreign_wrappers.naming_who_cannot_be_recorded(record, loop.env):
            self.directory.append_json(METRICS, dict(record))


class Checkpointer(Callback):
    """Writes a checkpoint every so many decisions, but none of a run that diverged or is about to be concluded.

    It comes behind the recorder and everybody else: what they did at a decision is in its checkpoint.

    Args:
        checkpoints: where they are kept.
        every: decisions between two of them; 0 for none but those asked for.
        recorder: knows the best network.
        agent_state: returns the state of who chooses.
    """

    def __init__(
        self, checkpoints: Checkpoints, every: int, recorder: Recorder, agent_state: Callable[[], dict[str, Any]]
    ) -> None:
        self._checkpoints = checkpoints
        self._every = every
        self._recorder = recorder
        self._agent_state = agent_state

    def episode_begins(self, loop: Loop, tying: IntVector | None) -> None:
        """Refuse what wrappers remember and a checkpoint could not hold, before there is anything to lose."""
        foreign_wrappers.states(loop.env)

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Write a checkpoint if it is time."""
        due = self._every and loop.decisions % self._every == 0
        if due and not (loop.diverged or loop.finished):
            self.write(loop)

    def write(self, loop: Loop, config: dict[str, Any] | None = None) -> None:
        """Write a checkpoint.

        Args:
            loop: the run.
            config: what config.json is going to hold, where it is about to be replaced.

        Raises:
            OSError: it cannot be written; the earlier ones are whole.
        """
        state: dict[str, Any] = {
            "env": loop.inner.state_dict(copy=False),
            "wrappers": foreign_wrappers.states(loop.env),
            "controller": self._agent_state(),
            "recorder": {**loop.state_dict(), "best": self._recorder.best},
        }
        self._checkpoints.write(state, state["env"]["validation_perplexity"], loop.episode, config)


def restore(state: dict[str, Any], loop: Loop, recorder: Recorder) -> None:
    """Bring environment, wrappers, loop and recorder to where a checkpoint was taken.

    Raises:
        ValueError: the state does not fit.
    """
    own = state["recorder"]
    best = math.inf if own["best"] is None else own["best"]
    if not (type(best) is float and best >= 0):
        raise ValueError(f"the recorder's best perplexity cannot be {best!r}")
    loop.check_state(own)
    loop.observation, _ = foreign_wrappers.reset(loop.env, None, {"state": state["env"]})
    with foreign_wrappers.naming_the_wrapper(loop.env):
        load_wrapper_states(loop.env, state["wrappers"])
    loop.load_state_dict(own)
    recorder.best = best


def save(loop: Loop, directory: RunDirectory, name: str) -> None:
    """Save the network as it is under this name."""
    env = loop.inner
    save_network(directory.path / name, env.trainer, env.config, env.workload.sizes)
