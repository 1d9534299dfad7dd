"""Actions that decide about one layer: for agents such as DQN, which take a `Discrete` space and no vector.

Both wrappers replace one entry of the tying in force and hand the result to the environment as its action. So Eq. 1
decides about the others: the followers of a leader that ties elsewhere move with it, and when a follower becomes
independent, the rest of its group stays. A target that is itself a follower stands for its leader. Where units are of
several kinds, targets are counted within the layer's kind, and only units that have a choice are decided about.

The first decision ends the frozen start, whose tying is all zeros: every layer but the one decided on ties to layer 0.
`reset(options={"tying": ...})` begins elsewhere.
"""

import bisect
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from tying_env.partition import IntVector
from tying_env.wrappers.base import AnyEnv, Step, check_vector_actions, tying_env_below


class SingleLayerAction(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Decide about one layer of the agent's choice: `Discrete((L + 2)(L - 1) / 2)`, every (layer, target) pair.

    Layer runs over 1..L-1 and target over 0..layer, in the order (1, 0), (1, 1), (2, 0), ...: the order of the
    outputs of the paper's Q-network.

    Example (4 layers):
        >>> env = SingleLayerAction(make())
        >>> env.action_space
        Discrete(9)
        >>> env.pair(4), env.index(2, 2)
        ((2, 2), 4)
        >>> observation, info = env.reset(seed=0, options={"tying": [0, 1, 1, 1]})
        >>> env.step(env.index(1, 0))[0]  # layers 2 and 3 follow layer 1 to layer 0
        array([0, 0, 0, 0])

    Args:
        env: a TyingEnv, wrapped or not, whose actions are vectors.

    Raises:
        TypeError: it is not a TyingEnv.
        ValueError: its actions are no vectors, or it has fewer than 2 layers.
    """

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        kinds = check_vector_actions(type(self).__name__, env)
        self._layers: list[int] = kinds.open.tolist()  # those that have a choice
        self._choices: list[int] = kinds.choices.tolist()
        self._first: list[int] = np.cumsum([0, *(self._choices[layer] for layer in self._layers)]).tolist()
        self.action_space = gym.spaces.Discrete(self._first[-1])

    def action(self, action: int | np.integer[Any]) -> IntVector:
        """Return the action that replaces one entry of the tying in force, shape (L,).

        Raises:
            ValueError: not an index of the action space.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        layer, target = self.pair(action)
        return _with_entry(self, layer, target)

    def pair(self, index: int | np.integer[Any]) -> tuple[int, int]:
        """Return the (layer, target) that an index stands for.

        Raises:
            ValueError: not an index of the action space.
        """
        number = _check_index(self.action_space, index)
        place = bisect.bisect_right(self._first, number) - 1
        return self._layers[place], number - self._first[place]

    def index(self, layer: int, target: int) -> int:
        """Return the index of a (layer, target) pair.

        Raises:
            ValueError: not 1 <= layer < L, or not 0 <= target <= layer.
        """
        if layer not in self._layers:
            raise ValueError(f"layer must be one that has a choice, in 1..{len(self._choices) - 1}, got {layer!r}")
        if target not in range(self._choices[layer]):
            raise ValueError(f"target of layer {layer} must be in 0..{self._choices[layer] - 1}, got {target!r}")
        return self._first[self._layers.index(layer)] + target


class LayerSweepAction(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Decide about the layers in turn, one a step, as the published code does: `Discrete(L)`, the target.

    Step t = 0, 1, ... of an episode asks for layer 1 + t mod (L - 1). The observation has that layer as one more
    entry at its end, so that a policy knows what it is asked.

    A target above the layer is taken as the layer itself, which makes it independent; every action of the space is
    valid then. But uniform draws from the whole space favour independence: layer i gets it with probability
    (L - i) / L and not 1 / (i + 1). To compare with chance, draw only from `action_masks()`, as MaskablePPO of
    sb3-contrib does by itself.

    Example (4 layers):
        >>> env = LayerSweepAction(make())
        >>> env.observation_space
        MultiDiscrete([1 2 3 4 4])
        >>> env.reset(seed=0)[0], env.action_masks()
        (array([0, 0, 0, 0, 1]), array([ True,  True, False, False]))
        >>> env.step(1)[0]
        array([0, 1, 0, 0, 2])

    Args:
        env: a TyingEnv, wrapped or not, whose actions are vectors and whose observations are `MultiDiscrete`.

    Raises:
        TypeError: it is not a TyingEnv.
        ValueError: it has other spaces, or fewer than 2 layers.
    """

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        kinds = check_vector_actions(type(self).__name__, env)
        self._layers: list[int] = kinds.open.tolist()
        self._choices, n_units = kinds.choices, kinds.n_units
        if not isinstance(env.observation_space, gym.spaces.MultiDiscrete):
            raise ValueError(
                f"LayerSweepAction adds an entry to MultiDiscrete observations, got {env.observation_space}: "
                "put wrappers of the observation around it"
            )
        self.action_space = gym.spaces.Discrete(int(self._choices.max()))
        self.observation_space = gym.spaces.MultiDiscrete([*env.observation_space.nvec.tolist(), n_units])

    @property
    def layer(self) -> int:
        """The layer that the next step decides about."""
        env = tying_env_below(self)
        decisions = env.decisions  # not counted here: right after load_state_dict, too
        return self._layers[decisions % len(self._layers)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntVector, dict[str, Any]]:
        """Begin an episode, and the sweep at layer 1."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation), info

    def step(self, action: int | np.integer[Any]) -> Step:
        """Tie the layer whose turn it is to `action`, and turn to the next layer.

        Raises:
            ValueError: not a layer 0..L-1; nothing is changed.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        target = min(_check_index(self.action_space, action), int(self._choices[self.layer]) - 1)
        observation, reward, terminated, truncated, info = self.env.step(_with_entry(self, self.layer, target))
        return self._observation(observation), float(reward), terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Tell for each target whether it is one of the layer's own, 0..layer; shape (L,)."""
        masks: npt.NDArray[np.bool_] = np.arange(self._choices.max()) < self._choices[self.layer]
        return masks

    def _observation(self, observation: IntVector) -> IntVector:
        return np.append(observation, self.layer)  # (L + 1,)


def _check_index(space: gym.Space[Any], index: int | np.integer[Any]) -> int:
    assert isinstance(space, gym.spaces.Discrete)
    if not space.contains(index):
        raise ValueError(f"action must be a whole number in 0..{space.n - 1}, got {index!r}")
    return int(index)


def _with_entry(env: AnyEnv, layer: int, target: int) -> IntVector:
    """Return the action that replaces one entry of the tying in force."""
    below = tying_env_below(env)
    vector = below.kinds.action_for(below.tying)  # not remembered here: right after load_state_dict, too
    vector[layer] = target
    return vector
