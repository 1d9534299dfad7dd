"""Trains and evaluates one primary network whose blocks are tied, and can save and restore all of it."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tying_env.data import Batches
from tying_env.data.batches import count_examples, cut, take
from tying_env.distributed import DataParallel, world
from tying_env.named_tensors import check_dtypes, check_tensors
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.owned import owned_parameters, owned_tensors
from tying_env.primary.tasks import Task, to_device
from tying_env.seeding import restored_torch, stream_of, torch_randomness_from
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


class MemoryBytes(NamedTuple):
    """Bytes held by what is trained: each storage counted once, AdamW's step counters left out."""

    weights: int
    gradients: int
    optimizer_state: int

    @property
    def total(self) -> int:
        """All three together."""
        return sum(self)


def never() -> bool:
    """Return False: do not stop."""
    return False


class Trainer:
    """One primary network under training with AdamW.

    Args:
        network: the model and its blocks; `tied` ties the same blocks.
        tied: who shares with whom.
        task: turns a batch into a loss.
        batches: the training batches.
        dropout: the generator that dropout draws from; on the device of the network.
        device: where the network is.
        learning_rate, weight_decay: of AdamW; weight decay is applied to every parameter, as torch does by default.
        max_grad_norm: the gradient's global norm is clipped to this.
        accumulate: parts in which a batch is computed, one after the other; their gradients add up to the batch's.
        autocast: whether training computes matrix products in bfloat16.
        prefetch: whether the next batch is drawn, and copied to the device, while the present one is computed.
    """

    def __init__(
        self,
        network: PrimaryNetwork,
        tied: TiedBlocks,
        task: Task,
        batches: Batches,
        *,
        dropout: torch.Generator,
        device: torch.device,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        accumulate: int = 1,
        autocast: bool = False,
        prefetch: bool = False,
    ) -> None:
        self.network = network
        self.tied = tied
        self.task = task
        self.batches = batches
        self.device = device
        self.max_grad_norm = max_grad_norm
        self.tokens = 0  # trained on so far
        self.memory_in_training = MemoryBytes(0, 0, 0)  # when gradients and optimizer state were last there together
        self._dropout = dropout
        self._parallel = None if world().size == 1 else DataParallel(network.model, self._loss)
        self._accumulate, self._autocast, self._prefetch = accumulate, autocast, prefetch
        self._fetched: tuple[dict[str, Any], tuple[Any, int]] | None = None  # the position before a batch, and that
        in_blocks = {id(p) for layer in range(tied.n_units) for p in tied.weights(layer).values()}
        outside = [p for p in network.model.parameters() if id(p) not in in_blocks and p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [{"params": outside}, *tied.parameter_groups(learning_rate)],
            lr=learning_rate,
            weight_decay=weight_decay,
            fused=True,  # one pass over weights, gradients and state instead of a dozen
        )

    def train(self, n_steps: int, should_stop: Callable[[], bool] = never) -> TrainResult:
        """Run up to `n_steps` training steps; stop before a step whose loss or gradient is not finite is applied.

        Args:
            n_steps: how many.
            should_stop: asked before every step; whoever stops continues later with another call for the other steps.
        """
        losses: list[float] = []
        diverged = stopped = False
        for step in range(n_steps):
            if stopped := should_stop():
                break
            batch, whole = self._next_batch()
            with torch_randomness_from(stream_of(world().rank, world().size, self._dropout)):
                outcome = self.compute_gradients(batch, whole)
            if self._prefetch and step + 1 < n_steps:
                self._fetched = self.batches.state_dict(), self._draw()
            # One number to wait for: it is finite only if loss and gradient are.
            value, norm = outcome.tolist()
            if not (math.isfinite(value) and math.isfinite(norm)):
                diverged = True
                break
            self.optimizer.step()
            losses.append(value)
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
        model, trained, losses = self.network.model.train(), self.trainable_parameters(), []
        count = count_examples(batch)
        parts = list(cut(batch, -(-count // self._accumulate)))
        for i, part in enumerate(parts):
            # The parts add up; of processes the average is taken.
            weight, last = world().size * count_examples(part) / (whole or count), i + 1 == len(parts)
            if self._parallel is None:
                loss = weight * self._loss(model, part)
                loss.backward()
            else:
                loss = weight * self._parallel.loss(part, trained, last=last)
                self._parallel.backward(loss, last=last)
            losses.append(loss.detach().double())
        mean = torch.stack(losses).sum()
        norm = nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
        return torch.stack([mean if self._parallel is None else self._parallel.mean(mean), norm.double()])

    @property
    def bytes_exchanged(self) -> int:
        """Bytes of gradients that this process gave into the average in the last step; 0 for a process alone."""
        return 0 if self._parallel is None else self._parallel.bytes_per_step

    def _loss(self, model: nn.Module, part: Any) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            return self.task.loss(model, part)

    def _next_batch(self) -> tuple[Any, int]:
        if self._fetched is None:
            return self._draw()
        (_, drawn), self._fetched = self._fetched, None
        return drawn

    def _draw(self) -> tuple[Any, int]:
        """Return this process's share of the next batch, all of which every process draws, and the examples of all."""
        batch = self.batches.next_batch()
        if (whole := count_examples(batch)) < world().size:
            raise ValueError(f"a batch must have an example for each of {world().size} processes, got {whole}")
        return to_device(take(batch, world().share(whole)), self.device), whole

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

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Tell whether every trainable weight and all optimizer state are finite.

        The optimizer's infinity does not show in the weights: an infinite second moment makes every update zero.

        A sum is not finite if any term is not: the cheapest pass over the numbers that cannot miss one. (It also says
        no when finite numbers add up to more than the largest float, 3e38: training is lost by then as well.)
        """
        state = [value for entries in self.optimizer.state.values() for value in entries.values()]
        return all(
            bool(torch.stack([t.sum() for t in tensors]).isfinite().all())
            for tensors in (self.trainable_parameters(), state)
            if tensors
        )

    def memory(self) -> MemoryBytes:
        """Count the bytes of weights, gradients and optimizer state that are held now."""
        parameters = [p for p in self.network.model.parameters() if not p.is_meta]  # values that are not held
        state = [
            value
            for entries in self.optimizer.state.values()
            for key, value in entries.items()
            if isinstance(value, Tensor) and key != "step"
        ]
        gradients = [p.grad for p in parameters if p.grad is not None]
        return MemoryBytes(_bytes(parameters), _bytes(gradients), _bytes(state))

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return everything that training depends on: tensors by name, the rest ready for JSON.

        Args:
            copy: whether the tensors are copies. Without, they are the live ones: write them down at once.
        """
        names = {id(p): name for name, p in self.network.model.named_parameters()}
        return {
            "tying": self.tied.tying.tolist(),
            "frozen": self.tied.frozen,
            "sources": self.tied.sources().tolist(),
            "tokens": self.tokens,
            "memory_in_training": list(self.memory_in_training),
            "batches": self.batches.state_dict() if self._fetched is None else self._fetched[0],
            "dropout": self._dropout.get_state(),
            "weights": {name: t.clone() if copy else t for name, t in self.named_tensors().items()},
            "optimizer": {
                names[id(p)]: {key: value.clone() if copy else value for key, value in entries.items()}
                for p, entries in self.optimizer.state.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave; this trainer must have the same network and tying already.

        Raises:
            ValueError: names, shapes or the tying do not fit; the message says which. Nothing is changed then.
        """
        for key, own_value in (("tying", self.tied.tying.tolist()), ("sources", self.tied.sources().tolist())):
            if state[key] != own_value:
                raise ValueError(f"the state is of the {key} {state[key]}, this network has {own_value}")
        own = self.named_tensors()
        check_tensors(state["weights"], {name: tuple(t.shape) for name, t in own.items()})
        check_dtypes(state["weights"], {name: t.dtype for name, t in own.items()})
        trained = {name: p for name, p in self.network.model.named_parameters() if p.requires_grad}
        for name, entries in state["optimizer"].items():
            if name not in trained:
                raise ValueError(f"the optimizer state names {name!r}, which this network does not train")
            shape = tuple(trained[name].shape)
            where, dtype = f"optimizer state of {name!r}", trained[name].dtype
            check_tensors(entries, {"step": (), "exp_avg": shape, "exp_avg_sq": shape}, where)
            check_dtypes(entries, {"step": torch.float32, "exp_avg": dtype, "exp_avg_sq": dtype}, where)
        counts = [state["tokens"], *state["memory_in_training"]]
        if len(counts) != 4 or any(type(count) is not int or not 0 <= count <= 2**63 for count in counts):
            raise ValueError(f"the state's tokens and bytes must be four whole numbers, got {counts}")
        restored_torch(self._dropout, state["dropout"])
        self.batches.load_state_dict(state["batches"])  # checks, then changes
        self._fetched = None
        self._dropout.set_state(state["dropout"])
        self.tokens, self.memory_in_training = state["tokens"], MemoryBytes(*state["memory_in_training"])
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state["weights"][name])
        self.optimizer.state.clear()
        for name, entries in state["optimizer"].items():
            # torch keeps a fused optimizer's step counter beside its Parameter
            self.optimizer.state[trained[name]] = {k: v.clone().to(self.device) for k, v in entries.items()}


def _bytes(tensors: list[Any]) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
