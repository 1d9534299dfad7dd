"""The paper's controller: Q-learning over tying vectors with a Q that is a sum over layers.

Source: Hay & Wolf, ICLR 2024, Sec. 3 (Eq. 2-4), Sec. 4 (the network and its settings), Algorithm 1 lines 20-27.
The options that the paper does not have are off by default; docs/dqn_options.md shows what each of them changed.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tying_agents.controllers.base import Context, Controller, Transition, random_action
from tying_agents.controllers.q_network import QNetwork
from tying_agents.controllers.replay import ReplayBuffer, RewardNormaliser, Transitions
from tying_agents.settings import DQNConfig
from tying_env.differences import listed
from tying_env.kinds import Kinds
from tying_env.named_tensors import check_tensors
from tying_env.partition import IntVector
from tying_env.seeding import capture_numpy, restore_numpy, torch_randomness_from


class FactorizedDQN(Controller):
    """Q(s, a) = sum over layers i = 1..L-1 of Q(s)[i, a[i]] (Eq. 3).

    Because Q is a sum, the best of the L! actions is every layer's best choice. One draw against epsilon decides for
    the whole vector (Eq. 2). Each decision does one update on the one transition, without replay or target network.

    Where an action has an interval besides (`tying_env.wrappers.ChooseInterval`), Q has one more summand for it, and
    the next state's value is discounted by training steps: gamma^(n / k) after a decision of n.

    Options, all off by default:
    - `replay_size`: each update is on `replay_batch` transitions drawn uniformly, with repetition, from the newest
      ones (Lin, Machine Learning 1992; Mnih et al., Nature 2015), from the first decision on. Their rewards are kept
      as they came. They are drawn from a stream of their own, so exploration does not depend on this option.
    - `replay_updates`: so many updates after each decision, each on a sample of its own.
    - `exploration_share`: epsilon falls in a straight line over that share of the run's decisions, as in Mnih et al.
    - `target_every`: a target network values the next state, a copy made after every so many updates (Mnih et al.).
    - `double_q`: the network chooses the next action, the target network values it (van Hasselt et al., AAAI 2016).
      Because Q is a sum, that is done layer by layer.
    - `dueling`, `state_scale` and `q_head`: see `tying_agents.controllers.q_network`.
    - `reward_scale`: see `tying_agents.controllers.replay.RewardNormaliser`. A diverged run ends with a reward of
      -e^20; a controller that learns over another run has that in its mean and deviation for good.

    Args:
        kinds: of the units; at least one has a choice.
        config: the settings.
        rng: draws exploration; the stream of replay is spawned from it.
        weights: draws the network's initial weights.
        intervals: what the last entry of an action chooses from, in units of k; none: an action is a tying alone.
        decisions: how many there will be, for `exploration_share`; None where nobody can tell.

    Raises:
        ValueError: no layer has a choice: there would be nothing to decide; or `exploration_share` of who knows.
    """

    Settings = DQNConfig
    chooses_intervals = True
    reads_tying = True

    @classmethod
    def goes_by_length(cls, settings: Any) -> bool:
        """Return whether epsilon falls over a share of the run."""
        return bool(settings.exploration_share)

    @classmethod
    def create(cls, settings: DQNConfig, context: Context) -> Self:
        """Return a new controller whose exploration and initial weights come from the run's streams."""
        intervals = [steps / (context.k or 1) for steps in context.intervals]
        return cls(context.kinds, settings, context.rng(), context.torch_generator(), intervals, context.decisions)

    def __init__(
        self,
        kinds: Kinds,
        config: DQNConfig,
        rng: np.random.Generator,
        weights: torch.Generator,
        intervals: Sequence[float] = (),
        decisions: int | None = None,
    ) -> None:
        if not len(kinds.open):
            raise ValueError(f"a controller needs at least 2 layers to have a choice, got {kinds.n_units}")
        if config.exploration_share and decisions is None:
            raise ValueError(
                "exploration_share is one of all decisions, and nobody can tell how many there will be, "
                f"got {config.exploration_share!r}: use epsilon_decay"
            )
        self._falls = 0.0  # by how much epsilon falls at each decision, where it does not decay
        if config.exploration_share and decisions is not None:
            falls = max(0.0, config.epsilon_start - config.epsilon_floor)
            self._falls = falls / max(1.0, config.exploration_share * decisions)
        self.kinds, self.n_units = kinds, kinds.n_units
        self.config = config
        self.intervals = list(intervals)
        self.epsilon = config.epsilon_start
        self._rng = rng
        self._explored = False
        self._loss: float | None = None
        self._updates = 0
        with torch_randomness_from(weights):
            rank = None if config.q_head == "full" else config.q_rank
            self.network = QNetwork(
                kinds.choices, config.hidden_units, config.dueling, config.state_scale, len(intervals), rank
            )
        self._valid = self.network.valid
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.q_learning_rate)
        self._target = copy.deepcopy(self.network) if config.target_every else None
        self._replay = self._new_replay(rng.spawn(1)[0]) if config.replay_size else None
        self._rewards = RewardNormaliser() if config.reward_scale == "running" else None

    def values(self, observation: IntVector) -> Tensor:
        """Return Q(s), shape (L-1, L): row i-1 has the values of layer i's choices, then -infinity.

        With m intervals the shape is (L, max(L, m)), and the last row has theirs.
        """
        return self.network.table(observation)

    def act(self, observation: IntVector) -> IntVector:
        """Return a random action with probability epsilon, else every layer's best choice (Eq. 2)."""
        self._explored = bool(self._rng.random() < self.epsilon)
        if self._explored:
            return random_action(self.kinds, len(self.intervals), self._rng)
        with torch.no_grad():
            best = self.values(observation).argmax(dim=1)  # (L-1,), or (L,) with intervals
        return np.concatenate([[0], best.numpy()])

    def update(self, transition: Transition) -> None:
        """Learn from a decision, in one step (Algorithm 1, lines 22-25) or several; epsilon falls (line 27)."""
        self._note(transition)
        for _ in range(self.config.replay_updates):
            self._learn(self._batch(transition))
        decayed = self.epsilon - self._falls if self._falls else self.epsilon * self.config.epsilon_decay
        self.epsilon = max(decayed, self.config.epsilon_floor)

    def _learn(self, batch: Transitions) -> None:
        """Take one Adam step on the squared error against r + gamma * max Q(s')."""
        chosen = torch.from_numpy(batch.action[..., 1:, None])  # (..., L-1, 1), or (..., L, 1) with intervals
        rewards = batch.reward if self._rewards is None else self._rewards.normalise(batch.reward)
        reward, terminated = torch.as_tensor(rewards, dtype=torch.float32), torch.as_tensor(batch.terminated)
        with torch.no_grad():
            future = self._future(batch.next_observation).masked_fill(terminated, 0.0)
            target = reward + self._discount(batch.action) * future  # (...)
        predicted = self.values(batch.observation).gather(-1, chosen).sum((-2, -1))  # (...)
        loss = nn.functional.mse_loss(predicted, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._loss = loss.item()
        self._updates += 1
        if self._target is not None and self._updates % self.config.target_every == 0:
            self._target.load_state_dict(self.network.state_dict())

    def _note(self, transition: Transition) -> None:
        """Take note of a transition."""
        if self._rewards is not None:
            self._rewards.add(transition.reward)
        if self._replay is not None:
            self._replay.add(transition)

    def _batch(self, transition: Transition) -> Transitions:
        """Return what to learn from now: a sample, or the newest transition alone."""
        if self._replay is None:
            # Not a batch of one: matrix products may round otherwise than products with a single vector.
            return Transitions.single(transition)
        return self._replay.sample(self.config.replay_batch)

    def _discount(self, action: IntVector) -> float | Tensor:
        """Return the discount of the next state's value after actions of shape (..., L + 1), shape (...)."""
        if not self.intervals:
            return self.config.gamma
        lengths = np.asarray(self.intervals)[action[..., -1]]
        return torch.as_tensor(self.config.gamma**lengths, dtype=torch.float32)

    def _new_replay(self, rng: np.random.Generator) -> ReplayBuffer:
        return ReplayBuffer(self.n_units, self.config.replay_size, rng, len(self.intervals))

    def _future(self, observation: IntVector) -> Tensor:
        """Return the value of the best action in states of shape (..., L), shape (...)."""
        network = self.network if self._target is None else self._target
        table = network.table(observation)  # (..., L-1, L)
        if not self.config.double_q:
            return table.amax(-1).sum(-1)
        best = self.values(observation).argmax(-1, keepdim=True)
        return table.gather(-1, best).sum((-2, -1))

    def metrics(self) -> dict[str, float]:
        """Return epsilon (for the next decision), whether the last action was random, and the last loss of Q."""
        metrics = {"epsilon": self.epsilon, "explored": float(self._explored)}
        return metrics if self._loss is None else metrics | {"q_loss": self._loss}

    def state_dict(self) -> dict[str, Any]:
        """Return copies of networks, optimizer, epsilon, generator and what the options keep.

        Tensors are under `network`, `optimizer`, `target` and `replay.transitions`; the rest is ready for JSON.
        """
        state: dict[str, Any] = {
            "options": self._options,
            "network": _copies(self.network.state_dict()),
            "optimizer": {
                name: _copies(self.optimizer.state[parameter])
                for name, parameter in self.network.named_parameters()
                if parameter in self.optimizer.state
            },
            "epsilon": self.epsilon,
            "updates": self._updates,
            "explored": self._explored,
            "rng": capture_numpy(self._rng),
        }
        if self._target is not None:
            state["target"] = _copies(self._target.state_dict())
        if self._replay is not None:
            state["replay"] = self._replay.state_dict()
        if self._rewards is not None:
            state["rewards"] = self._rewards.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            ValueError: it is of a network of another size, of other options, or damaged; nothing is changed then.
        """
        # 1. Check; build new copies of what is only checked while it is loaded.
        self._check(state)
        restore_numpy(copy.deepcopy(self._rng), state["rng"])
        replay, rewards = self._replay, self._rewards
        if replay is not None:
            replay = self._new_replay(copy.deepcopy(self._rng))
            replay.load_state_dict(state["replay"])
        if rewards is not None:
            rewards = RewardNormaliser()
            rewards.load_state_dict(state["rewards"])
        # 2. Change.
        restore_numpy(self._rng, state["rng"])
        self._replay, self._rewards = replay, rewards
        self._updates, self.epsilon, self._explored = state["updates"], state["epsilon"], state["explored"]
        self.network.load_state_dict(state["network"])
        if self._target is not None:
            self._target.load_state_dict(state["target"])
        self.optimizer.state.clear()
        for name, parameter in self.network.named_parameters():
            if name in state["optimizer"]:
                self.optimizer.state[parameter] = _copies(state["optimizer"][name])

    @property
    def _options(self) -> dict[str, Any]:
        """What a state must agree in."""
        return self.config.options | ({"intervals": self.intervals} if self.intervals else {})

    def _check(self, state: dict[str, Any]) -> None:
        _check_keys(state, {"options", "network", "optimizer", "epsilon", "updates", "explored", "rng"})
        if differ := listed(state["options"], self._options):
            raise ValueError(f"the state is of a DQN with other options: {'; '.join(differ)}")
        kept = {"target": self._target, "replay": self._replay, "rewards": self._rewards}
        _check_keys(state, {name for name, part in kept.items() if part is not None})
        shapes = {name: tuple(p.shape) for name, p in self.network.named_parameters()}
        check_tensors(state["network"], shapes, "the Q-network's state")
        if self._target is not None:
            check_tensors(state["target"], shapes, "the target network's state")
        if saved := state["optimizer"]:  # nothing before the first update, everything after it
            _check_keys(saved, set(shapes))
            for name, shape in shapes.items():
                moments = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
                check_tensors(saved[name], moments, f"the Q-optimizer's state of {name}")
        if not (isinstance(state["updates"], int) and state["updates"] >= 0 and 0 <= state["epsilon"] <= 1):
            raise ValueError(f"updates and epsilon cannot be {state['updates']!r} and {state['epsilon']!r}")


def _check_keys(state: dict[str, Any], needed: set[str]) -> None:
    if missing := sorted(needed - set(state)):
        raise ValueError(f"the state of a DQN lacks {', '.join(missing)}")


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
