"""An environment in which a tying has a score and nothing is trained, to try controllers in no time. No torch.

A subclass says what a tying is worth. What stays is what every controller and wrapper relies on: spaces, Eq. 1, seeds,
forks, states.
"""

import copy
import math
from abc import abstractmethod
from typing import Any, Self

import gymnasium as gym
import numpy as np

from tying_env import partition
from tying_env.differences import listed
from tying_env.environment import TyingEnv, check_keys, check_whole, tying_space
from tying_env.render import replication_map_image, replication_map_text
from tying_env.seeding import capture_numpy, check_seed, restore_numpy

_STATE_KEYS = {"settings", "np_random", "seed", "tying", "decisions"}


class ScoredEnv(TyingEnv):
    """LayerTyingEnv's actions, observations and first tying, with rewards by `outcome`.

    A step applies the action (Eq. 1), asks `outcome` for the reward of the tying, and counts a decision. The first
    tying is all zeros, unless `reset(options={"tying": vector})` gives another. The episode is truncated after
    `decisions` decisions and never terminated.

    `info` always has the same keys: `tying`, `perplexity` (what the reward stands for: `exp(-reward)` unless the
    subclass says otherwise, so that a search, which goes by the log-perplexity, goes by the reward),
    `independent_layers`, `tied_events`, `untied_events` (of this step), `train_step` (the decisions made), `diverged`
    (never), and what the subclass adds. After `reset` the perplexity is infinity, as before any measurement.

    Args:
        n_units: L.
        decisions: of an episode.
        render_mode: `"ansi"` or `"rgb_array"`: the replication map (paper, Fig. 1).

    Raises:
        ValueError: one of them is out of its range; the message names it.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, n_units: int, decisions: int, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be one of {self.metadata['render_modes']}, got {render_mode!r}")
        self.render_mode = render_mode
        self._n_units = check_whole("n_layer", n_units, 2)
        self._per_episode = check_whole("decisions", decisions, 1)
        self.action_space, self.observation_space = tying_space(self.kinds), tying_space(self.kinds)
        self._tying: partition.IntVector | None = None
        self._decisions = 0
        self._seed = 0

    @abstractmethod
    def outcome(self, tying: partition.IntVector) -> tuple[float, dict[str, Any]]:
        """Return the reward of a tying at this decision, and what `info` has besides.

        It may depend on `seed` and `decisions`, and on nothing else that changes: then forks and restored
        environments see what this one would have seen.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what a state of another environment must agree in, ready for JSON."""

    @property
    def n_units(self) -> int:
        """L, the length of an action and of the tying."""
        return self._n_units

    @property
    def seed(self) -> int:
        """Seed of the running episode."""
        return self._seed

    @property
    def tying(self) -> partition.IntVector:
        """The tying in force, shape (L,)."""
        return self._running().copy()

    @property
    def decisions(self) -> int:
        """Decisions made in this episode."""
        return self._decisions

    @property
    def decisions_per_episode(self) -> int:
        """Decisions in a whole episode."""
        return self._per_episode

    @property
    def steps_per_decision(self) -> int:
        """One: nothing is trained."""
        return 1

    @property
    def train_step(self) -> int:
        """Decisions made in this episode."""
        return self._decisions

    @property
    def total_steps(self) -> int:
        """Decisions in a whole episode."""
        return self._per_episode

    @property
    def ties_at(self) -> int:
        """Decisions made in this episode: the next action is applied at once."""
        return self._decisions

    @property
    def over(self) -> bool:
        """Whether the episode has ended, so that the next call must be reset()."""
        self._running()
        return self._decisions >= self._per_episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[partition.IntVector, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: without one, the next is drawn from the generator that the last seed started.
            options: `{"tying": vector}`, shape (L,), begins with this tying.

        Raises:
            TypeError, ValueError: an unknown option or a wrong tying; the running episode is kept.
        """
        seed = None if seed is None else check_seed(seed)
        if options is not None and not isinstance(options, dict):
            raise ValueError(f"options must be a dictionary, got {options!r}")
        if unknown := [name for name in options or {} if name != "tying"]:
            raise ValueError(f"unknown reset option {unknown[0]!r}; known: 'tying'")
        given = (options or {}).get("tying")
        start = np.zeros(self._n_units, dtype=np.int64)
        if given is not None:
            start = partition.canonicalise(self.permitted(given))
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._tying, self._decisions = start, 0
        info = self._info(self.outcome(start)[1], partition.TyingEvents(0, 0))
        return self.tying, info | {"perplexity": math.inf}

    def step(self, action: partition.IntVector) -> tuple[partition.IntVector, float, bool, bool, dict[str, Any]]:
        """Apply a tying and return what it is worth.

        Raises:
            TypeError, ValueError: not a valid action; nothing is changed.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        if self.over:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        before, self._tying = self._running(), partition.canonicalise(self.permitted(action))
        reward, more = self.outcome(self._tying)
        self._decisions += 1
        info = self._info({"perplexity": math.exp(min(-reward, 700.0))} | more, partition.events(before, self._tying))
        return self.tying, reward, False, self.over, info

    def fork(self) -> Self:
        """Return an independent environment in the same state: a counterfactual to try a tying in."""
        twin = copy.copy(self)  # what a subclass knows of its tyings never changes
        twin.action_space, twin.observation_space = tying_space(self.kinds), tying_space(self.kinds)
        twin._np_random = copy.deepcopy(self._np_random)
        return twin

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, ready for JSON: a restored environment continues with the same bits."""
        return {
            "settings": self.settings(),
            "np_random": capture_numpy(self.np_random),
            "seed": self._seed,
            "tying": self._running().tolist(),
            "decisions": self._decisions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave, of an environment with the same settings.

        Raises:
            ValueError: the state does not fit, and in what; this environment is as before then.
        """
        check_keys(state, _STATE_KEYS)
        if differ := listed(state["settings"], self.settings()):
            raise ValueError(f"the state is of an environment with other settings: {'; '.join(differ)}")
        if not partition.is_tying(state["tying"]) or len(state["tying"]) != self._n_units:
            raise ValueError(f"the state's tying must be one of {self._n_units} layers, got {state['tying']!r}")
        decisions, generator = check_whole("the state's decisions", state["decisions"], 0), np.random.default_rng(0)
        if decisions > self._per_episode:
            raise ValueError(f"the state's decisions must be at most {self._per_episode}, got {decisions}")
        seed = check_seed(state["seed"])
        restore_numpy(generator, state["np_random"])
        self._np_random, self._seed, self._decisions = generator, seed, decisions
        self._tying = np.array(state["tying"], dtype=np.int64)

    def render(self) -> Any:
        """Return the replication map: text for `"ansi"`, pixels (height, width, 3) for `"rgb_array"`."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render_mode: gym.make(..., render_mode="ansi" or "rgb_array")')
            return None
        if self.render_mode == "ansi":
            return replication_map_text(self._running())
        return replication_map_image(self._running(), f"Replication map at decision {self._decisions}")

    def _info(self, more: dict[str, Any], events: partition.TyingEvents) -> dict[str, Any]:
        tying = self.tying
        return {
            "tying": tying,
            "independent_layers": len(partition.leaders(tying)),
            "tied_events": events.tied,
            "untied_events": events.untied,
            "train_step": self._decisions,
            "diverged": False,
            **more,
        }

    def _running(self) -> partition.IntVector:
        if self._tying is None:
            raise gym.error.ResetNeeded("no episode has begun: call reset() first")
        return self._tying
