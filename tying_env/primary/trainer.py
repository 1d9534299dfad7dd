"""Trains one primary network whose blocks are tied; a training step reads here as a few numbered stages."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.data import Batches
from tying_env.data.batches import count_examples
from tying_env.primary import trainer_state
from tying_env.primary.accounting import MemoryBytes, all_finite, count_memory
from tying_env.primary.feeding import Feed
from tying_env.primary.gradients import Gradients
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.optimizers import StateLayouts, choose_optimizer, make_groups
from tying_env.primary.own_optimizer import MakeOptimizer
from tying_env.primary.owned import owned_parameters, owned_tensors
from tying_env.primary.relaxation import change_fitted
from tying_env.primary.residual import ResidualScales
from tying_env.primary.reuse import reuse_as
from tying_env.primary.schedule import LearningRates, Schedule
from tying_env.primary.tasks import Task
from tying_env.seeding import GlobalStreams
from tying_env.tied_blocks import TiedBlocks


class TrainResult(NamedTuple):
    """What some training steps gave."""

    losses: list[float]  # nats per token, of every finished step; all finite
    diverged: bool
    stopped: bool  # before the last of the steps, because it was asked to

    @property
    def mean_loss(self) -> float:
        """Mean over the finished steps, in nats per token; infinity when no step was finished."""
        return float(np.mean(self.losses)) if self.losses else math.inf


def never() -> bool:
    """Return False: do not stop."""
    return False


class Trainer:
    """One primary network under training.

    Args:
        network: the model and its blocks; `tied` ties the same blocks.
        tied: who shares with whom.
        task: turns a batch into a loss.
        batches: the training batches.
        config: the training recipe, and how a step is computed.
        dropout: the generator that dropout draws from; on the device of the network.
        streams: what a network, batches or an optimizer of the user's draw from, where they use the generators of
            Python, NumPy and torch's CPU.
        seed: what every random stream began with.
        device: where the network is.
        make_optimizer: makes the optimizer; by default that of the settings.
    """

    def __init__(
        self,
        network: PrimaryNetwork,
        tied: TiedBlocks,
        task: Task,
        batches: Batches,
        config: EnvConfig,
        *,
        dropout: torch.Generator,
        streams: GlobalStreams,
        seed: int,
        device: torch.device,
        make_optimizer: MakeOptimizer | None = None,
    ) -> None:
        self.network = network
        self.tied = tied
        self.device = device
        self.streams = streams
        self.seed = seed
        self.feed = Feed(batches, device, config.prefetch)
        self.gradients = Gradients(network.model, task, config, device, dropout)
        self.tokens = 0  # trained on so far
        self.memory_in_training = MemoryBytes(0, 0, 0)  # when gradients and optimizer state were last there together
        self.norms = (0.0, 0)  # of the gradients since the last change of the tying: their sum, and how many
        self._config = config
        self._has_been_searched = False  # for references that came with its first forward pass
        in_blocks = {id(p) for layer in range(tied.n_units) for p in tied.weights(layer).values()}
        outside = [p for p in network.model.parameters() if id(p) not in in_blocks and p.requires_grad]
        make = make_optimizer or choose_optimizer(config)
        self.layouts = StateLayouts(make)
        self.optimizer = make(make_groups(config, outside, tied))
        self.rates = LearningRates(self.optimizer, Schedule.of(config))
        self.residual = ResidualScales(network, tied, config)
        self._reuse_attention()
        if network.original is not None:
            tied.left_behind.watch_original(network.original)

    def tie(self, tying: npt.ArrayLike) -> partition.TyingEvents:
        """Put a tying in force, shape (L,), all or nothing, as `TiedBlocks.change` does; the optimizer follows."""
        if self.task.foreign and self.rates.steps and not self._has_been_searched:
            self.tied.check_reached(self.network.model)
            self._has_been_searched = True
        change = change_fitted if self._config.delta_init == "svd" else TiedBlocks.change
        events = change(self.tied, tying, self.optimizer)
        self._follow_the_tying()
        self._reuse_attention()
        self.norms = (0.0, 0)
        return events

    def _follow_the_tying(self) -> None:
        self.rates.refresh()
        self.residual.aim()

    def _reuse_attention(self) -> None:
        if self._config.attention == "reused":
            reuse_as(self.network, self.tied.sources().tolist())

    def train(self, n_steps: int, should_stop: Callable[[], bool] = never) -> TrainResult:
        """Run up to `n_steps` training steps; stop before a step whose loss or gradient is not finite is applied.

        Args:
            n_steps: how many.
            should_stop: asked before every step; whoever stops calls again later for the other steps.
        """
        losses: list[float] = []
        diverged = stopped = False
        self._follow_the_tying()
        own = self.task.foreign or self._config.optimizer == "custom"
        with self.streams.lent() if own else contextlib.nullcontext():
            for step in range(n_steps):
                if stopped := should_stop():
                    break
                # 1. A batch, and its gradients.
                batch, whole = self.feed.next()
                outcome = self.compute_gradients(batch, whole)
                # 2. The next batch, while a GPU computes.
                if step + 1 < n_steps:
                    self.feed.fetch_ahead()
                # 3. One pair of numbers to wait for, that of a finite step or the last one.
                loss, norm = outcome.tolist()
                if diverged := not (math.isfinite(loss) and math.isfinite(norm)):
                    break
                # 4. Weights move, then what goes by training steps.
                self.optimizer.step()
                self.rates.step()
                self.residual.step()
                # 5. Count.
                losses.append(loss)
                self.norms = (self.norms[0] + norm, self.norms[1] + 1)
                self.tokens += self.task.count_tokens(batch) * whole // count_examples(batch)
                if len(losses) == n_steps:
                    self.memory_in_training = self.memory()
                self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.zero_grad(set_to_none=True)
        return TrainResult(losses, diverged or not self.is_finite(), stopped)

    def compute_gradients(self, batch: Any, whole: int | None = None) -> Tensor:
        """Leave the clipped gradients of a batch, on the device, in the Parameters.

        Args:
            batch: this process's share.
            whole: examples of the batch in all processes together; None where this one is alone.

        Returns:
            Mean loss in nats and the gradient's norm before clipping, shape (2,), float64, on the device.
        """
        trained = self.trainable_parameters()
        with self.tied.left_behind.untouched():
            mean = self.gradients.compute(batch, whole or count_examples(batch), trained)
        norm = nn.utils.clip_grad_norm_(trained, self._config.max_grad_norm)
        return torch.stack([mean, norm.double()])

    @property
    def task(self) -> Task:
        """What turns a batch into a loss."""
        return self.gradients.task

    @property
    def batches(self) -> Batches:
        """The training batches; every process draws all of them."""
        return self.feed.batches

    @property
    def learning_rate(self) -> float:
        """The learning rate in the last training step, of what is outside the blocks."""
        return self._config.learning_rate * self.rates.last_share

    @property
    def gradient_norm(self) -> float:
        """Norm of the gradient before clipping: mean over the training steps since the last change of the tying.

        Infinity when there was none.
        """
        total, count = self.norms
        return total / count if count else math.inf

    @property
    def bytes_exchanged(self) -> int:
        """Bytes of gradients that this process gave into the average in the last step; 0 for a process alone."""
        return self.gradients.bytes_exchanged

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every weight once under the name of the layer that owns it."""
        return owned_parameters(self.network, self.tied)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return what a file has to hold of the network: `named_parameters` and buffers such as running means."""
        return owned_tensors(self.network, self.tied)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return every Parameter that trains, once."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def count_trainable(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.trainable_parameters())

    def count_conventional(self) -> int:
        """Return the number of parameters that conventional training has: every layer its own."""
        layers = [dict.fromkeys(self.tied.weights(i).values()) for i in range(self.tied.n_units)]
        outside: int = sum(p.numel() for g in self.optimizer.param_groups if "leader" not in g for p in g["params"])
        return outside + sum(p.numel() for weights in layers for p in weights)

    def count_tied(self, tying: npt.ArrayLike) -> int:
        """Return the number of parameters that train where layers are tied so, shape (L,)."""
        leaders = set(partition.leaders(tying))
        followers = [dict.fromkeys(self.tied.weights(i).values()) for i in range(self.tied.n_units) if i not in leaders]
        return self.count_conventional() - sum(p.numel() for weights in followers for p in weights)

    def groups(self) -> dict[nn.Parameter, dict[str, Any]]:
        """Return every Parameter that trains, with its group in the optimizer."""
        return {p: group for group in self.optimizer.param_groups for p in group["params"]}

    def count_conventional_bytes(self) -> int:
        """Return the bytes of weights, gradients and optimizer state that conventional training would hold."""
        groups, tied = self.groups(), self.tied
        held = [p for p, group in groups.items() if "leader" not in group]
        for kind in tied.kinds.tolist():  # the lowest layer of a kind trains at all times
            held += dict.fromkeys(tied.weights(kind).values())
        return sum(2 * p.nbytes + self.layouts.bytes_of(groups[p], p) for p in held)

    def is_finite(self) -> bool:
        """Tell whether every trainable weight and all optimizer state are finite."""
        return all_finite(self.trainable_parameters(), self.optimizer)

    def memory(self) -> MemoryBytes:
        """Count the bytes of weights, gradients and optimizer state that are held now."""
        return count_memory(self.network.model, self.optimizer)

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return everything that training depends on: tensors by name, the rest ready for JSON.

        Args:
            copy: whether the tensors are copies. Without, they are the live ones: write them down at once.
        """
        return trainer_state.capture(self, copy)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave; this trainer must have the same network and tying already.

        Raises:
            ValueError: names, shapes or the tying do not fit; the message says which. Nothing is changed then.
        """
        trainer_state.restore(self, state)
