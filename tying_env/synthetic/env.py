"""SyntheticTyingEnv: a task with a known best tying as an environment. No torch."""

import math
from typing import Any

import numpy as np

from tying_env import partition
from tying_env.scored import ScoredEnv
from tying_env.seeding import check_seed, numpy_stream
from tying_env.synthetic.tasks import KINDS, Kind, make_task


class SyntheticTyingEnv(ScoredEnv):
    """Find the best tying, which is known: the positive control of controllers.

    ## Description
    Nothing is trained. A tying is worth what the task says (`tying_env.synthetic.tasks`), and a controller that cannot
    find a good one here has little hope where a network trains. A decision takes microseconds.

    ## Action Space
    LayerTyingEnv's: `MultiDiscrete([1, 2, ..., L])`, entry i is the layer that layer i copies, or i.

    ## Observation Space
    The same space: the tying in force, in canonical form.

    ## Rewards
    What the tying of the action is worth, plus normal noise. The noise depends on the seed of `reset`, the number of
    the decision and the tying: a fork that tries the same tying sees the same reward, another tying gets noise of its
    own. Two actions with one tying are worth the same.

    ## Starting State
    All zeros, or `reset(options={"tying": vector})`.

    ## Episode End
    Truncated after `decisions` decisions.

    ## Info
    That of `ScoredEnv`, and `value` (the reward without noise), `best` and `chance` (what the best tying and a
    uniformly random action are worth), `share` (of what lies between them: 0 is chance, 1 the best).

    ## Arguments
    `gym.make("LayerTying-Synthetic-v0", n_layer=12, kind="pairwise", noise=0.1, decisions=400, instance=3)`

    ## Version History
    - v0: the first version.

    Args:
        n_layer: L, at least 2.
        kind: "independent", "additive" or "pairwise"; see `make_task`.
        noise: standard deviation of the reward's noise, in units of what lies between chance and the best.
        decisions: of an episode; 59 is what 300 training steps with k = 5 have.
        instance: seed of the task, apart from that of `reset`.
        render_mode: `"ansi"` or `"rgb_array"`.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        *,
        n_layer: int = 12,
        kind: Kind = "additive",
        noise: float = 0.0,
        decisions: int = 59,
        instance: int = 0,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(n_layer, decisions, render_mode)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        if isinstance(noise, bool) or not isinstance(noise, (int, float, np.number)) or not 0 <= noise < math.inf:
            raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")
        try:
            self._instance = check_seed(instance)
        except ValueError as error:
            raise ValueError(f"instance must be a whole number of at least 0, got {instance!r}") from error
        self._kind: Kind = kind
        self._noise = float(noise)
        self.task = make_task(kind, self.n_units, self._instance)

    def settings(self) -> dict[str, Any]:
        """Return the arguments, but for the render mode."""
        return {
            "n_layer": self.n_units,
            "kind": self._kind,
            "noise": self._noise,
            "decisions": self.decisions_per_episode,
            "instance": self._instance,
        }

    def outcome(self, tying: partition.IntVector) -> tuple[float, dict[str, Any]]:
        """Return the reward of a tying at this decision, and what is known of it."""
        task = self.task
        value, reward = task.value(tying), 0.0
        if self._noise:
            name = f"noise {self.decisions} {tying.tolist()}"
            reward = self._noise * (task.best - task.chance) * float(numpy_stream(self.seed, name).standard_normal())
        known = {"value": value, "best": task.best, "chance": task.chance, "share": task.share(value)}
        return value + reward, known
