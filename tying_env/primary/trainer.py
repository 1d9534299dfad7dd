"""Trains and evaluates one primary network whose blocks are tied, and can save and restore all of it."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tying_env.data import Batches
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.tasks import Task, to_device
from tying_env.seeding import torch_randomness_from
from tying_env.tied_blocks import TiedBlocks


class TrainResult(NamedTuple):
    """What some training steps gave."""

    steps: int  # finished, all of them with finite loss, gradient and weights
    mean_loss: float  # nats per token; infinity when no step was finished
    diverged: bool


class MemoryBytes(NamedTuple):
    """Bytes held by what is trained: each storage counted once, AdamW's step counters left out."""

    weights: int
    gradients: int
    optimizer_state: int

    @property
    def total(self) -> int:
        """All three together."""
        return sum(self)


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
        in_blocks = {id(p) for block in network.blocks for p in block.parameters()}
        outside = [p for p in network.model.parameters() if id(p) not in in_blocks]
        self.optimizer = torch.optim.AdamW(
            [{"params": outside}, *tied.parameter_groups(learning_rate)],
            lr=learning_rate,
            weight_decay=weight_decay,
            fused=True,  # one pass over weights, gradients and state instead of a dozen
        )

    def train(self, n_steps: int) -> TrainResult:
        """Run up to `n_steps` training steps; stop before a step whose loss or gradient is not finite is applied."""
        model = self.network.model.train()
        losses: list[float] = []
        diverged = False
        with torch_randomness_from(self._dropout):
            for _ in range(n_steps):
                batch = to_device(self.batches.next_batch(), self.device)
                loss = self.task.loss(model, batch)
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self.trainable_parameters(), self.max_grad_norm)
                # One number to wait for: it is finite only if loss and gradient are.
                value, total = torch.stack([loss.detach().double(), norm.double()]).tolist()
                if not (math.isfinite(value) and math.isfinite(total)):
                    diverged = True
                    break
                self.optimizer.step()
                losses.append(value)
                self.tokens += self.task.count_tokens(batch)
                if len(losses) == n_steps:
                    self.memory_in_training = self.memory()
                self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.zero_grad(set_to_none=True)
        diverged = diverged or not self.weights_are_finite()
        return TrainResult(len(losses), float(np.mean(losses)) if losses else math.inf, diverged)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every weight once under the name of the layer that owns it."""
        return owned_parameters(self.network, self.tied)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return every Parameter that trains, once."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def count_trainable(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.trainable_parameters())

    def count_conventional(self) -> int:
        """Return the number of parameters that conventional training has: every layer its own."""
        layers = [dict.fromkeys(self.tied.weights(i).values()) for i in range(self.tied.n_layer)]
        outside: int = sum(p.numel() for g in self.optimizer.param_groups if "leader" not in g for p in g["params"])
        return outside + sum(p.numel() for weights in layers for p in weights)

    @torch.no_grad()
    def weights_are_finite(self) -> bool:
        """Tell whether every trainable weight is finite.

        A sum is not finite if any term is not: the cheapest pass over the weights that cannot miss one. (It also says
        no when finite weights add up to more than the largest float, 3e38: training is lost by then as well.)
        """
        return bool(torch.stack([p.sum() for p in self.trainable_parameters()]).isfinite().all())

    def memory(self) -> MemoryBytes:
        """Count the bytes of weights, gradients and optimizer state that are held now."""
        parameters = list(self.network.model.parameters())
        state = [
            value
            for entries in self.optimizer.state.values()
            for key, value in entries.items()
            if isinstance(value, Tensor) and key != "step"
        ]
        gradients = [p.grad for p in parameters if p.grad is not None]
        return MemoryBytes(_bytes(parameters), _bytes(gradients), _bytes(state))

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything that training depends on: tensors by name, the rest ready for JSON."""
        names = {id(p): name for name, p in self.network.model.named_parameters()}
        return {
            "tying": self.tied.tying.tolist(),
            "frozen": self.tied.frozen,
            "sources": self.tied.sources().tolist(),
            "tokens": self.tokens,
            "batches": self.batches.state_dict(),
            "dropout": self._dropout.get_state(),
            "weights": {name: p.detach().clone() for name, p in self.named_parameters()},
            "optimizer": {
                names[id(p)]: {key: value.clone() for key, value in entries.items()}
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
        own = dict(self.named_parameters())
        check_tensors(state["weights"], {name: tuple(p.shape) for name, p in own.items()})
        trained = {name: p for name, p in self.network.model.named_parameters() if p.requires_grad}
        for name, entries in state["optimizer"].items():
            if name not in trained:
                raise ValueError(f"the optimizer state names {name!r}, which this network does not train")
            shape = tuple(trained[name].shape)
            check_tensors(entries, {"step": (), "exp_avg": shape, "exp_avg_sq": shape}, f"optimizer state of {name!r}")
        self.batches.load_state_dict(state["batches"])  # checks, then changes
        self._dropout.set_state(state["dropout"])
        self.tokens = state["tokens"]
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.state.clear()
        for name, entries in state["optimizer"].items():
            # torch keeps a fused optimizer's step counter beside its Parameter
            self.optimizer.state[trained[name]] = {k: v.clone().to(self.device) for k, v in entries.items()}


def owned_parameters(network: PrimaryNetwork, tied: TiedBlocks) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every weight of a tied network once under the name of the layer that owns it: what a file has to hold."""
    owners = set(tied.owners())
    borrowed = tuple(f"{name}." for i, name in enumerate(network.block_names) if i not in owners)
    for name, parameter in network.model.named_parameters():
        if not name.startswith(borrowed):
            yield name, parameter


def check_tensors(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], where: str = "the state") -> None:
    """Check that exactly the tensors of `shapes` are there.

    Raises:
        ValueError: one is missing, unexpected or of another shape; the message names it.
    """
    for name in [*shapes, *tensors]:
        if name not in tensors:
            raise ValueError(f"{where} lacks the tensor {name!r}")
        if name not in shapes:
            raise ValueError(f"{where} has an unexpected tensor {name!r}")
        if tuple(tensors[name].shape) != shapes[name]:
            raise ValueError(f"{where} has {name!r} of shape {tuple(tensors[name].shape)}, expected {shapes[name]}")


def _bytes(tensors: list[Any]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
