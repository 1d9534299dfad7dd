"""N primary networks under training, each with a tying of its own, as one batched computation.

Every layer of every network has a slot for weights and for AdamW's state, used where the layer is a leader: a small
network pays for that with memory and gains one computation for all. (A single environment holds leaders only.)

Shapes: N networks, L layers, P weights in a block, O weights outside the blocks.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.primary.building import build_network
from tying_env.seeding import torch_stream
from tying_env.vector.batched_gpt2 import (
    BLOCK_NAMES,
    OUTSIDE_NAMES,
    Block,
    Dropout,
    Outside,
    dropout_from,
    keep_all,
    losses,
)

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults for AdamW

Mask = npt.NDArray[np.bool_]


class Weights:
    """Flat weights with AdamW's state: one row for each thing that trains or not, (..., size)."""

    def __init__(self, rows: tuple[int, ...], size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.values, self.mean, self.square, self.gradient = (
            torch.zeros(*rows, size, dtype=dtype, device=device) for _ in range(4)
        )
        # A count and corrections close to 1: bfloat16 knows neither 257 nor 0.999.
        self.steps = torch.zeros(rows, dtype=torch.promote_types(dtype, torch.float32), device=device)

    def step(self, trains: Tensor, lr: Tensor, weight_decay: float) -> None:
        """Take a step of AdamW in the rows that train; `trains` and `lr` have the shape of the rows."""
        self.steps += trains
        steps, on = self.steps.clamp(min=1)[..., None], trains.to(self.values.dtype)[..., None]
        self.mean.lerp_(self.gradient, on * (1 - BETA_1))
        self.square.lerp_(self.gradient.square(), on * (1 - BETA_2))
        rate, root = on * lr[..., None], (self.square.sqrt() / (1 - BETA_2**steps).sqrt()).add_(EPSILON)
        kept = self.values * (1 - rate * weight_decay)
        self.values.copy_(kept.addcdiv_(self.mean * (-rate / (1 - BETA_1**steps)), root))  # rounded once, as torch does


class TrainingBatch:
    """N networks under training.

    Args:
        config: the settings of all of them.
        vocab_size: V.
        n: N.
        device: where they are.
    """

    def __init__(self, config: EnvConfig, vocab_size: int, n: int, device: torch.device) -> None:
        self._config, self._device = config, device
        self._sizes = {"vocab_size": vocab_size}
        dtype = getattr(torch, config.dtype)
        d = config.n_embd
        self._block_shapes = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,)]
        self._block_shapes += [(d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
        self._outside_shapes = [(vocab_size, d), (config.seq_len, d), (d,), (d,)]
        sizes = [sum(math.prod(shape) for shape in shapes) for shapes in (self._block_shapes, self._outside_shapes)]
        self.blocks = Weights((n, config.n_units), sizes[0], dtype, device)
        self.outside = Weights((n,), sizes[1], dtype, device)
        self.tying = np.zeros((n, config.n_units), dtype=np.int64)
        self.frozen = np.ones(n, dtype=bool)
        self._generators = [torch_stream(0, "dropout", device) for _ in range(n)]

    def begin(self, n: int, seed: int) -> None:
        """Give network n fresh weights from a seed, the frozen start, and no optimizer state."""
        network = build_network(self._config, self._sizes, self._device, torch_stream(seed, "weights"))
        values = dict(network.model.named_parameters())
        for i, block in enumerate(network.block_names):
            own = [values[f"{block}.{name}"].detach().flatten() for name in BLOCK_NAMES]
            self.blocks.values[n, i] = torch.cat(own)
        self.outside.values[n] = torch.cat([values[name].detach().flatten() for name in OUTSIDE_NAMES])
        for weights in (self.blocks, self.outside):
            for state in (weights.mean, weights.square, weights.steps):
                state[n] = 0
        self.tying[n], self.frozen[n] = 0, True
        self._generators[n] = torch_stream(seed, "dropout", self._device)

    def change(self, n: int, action: npt.ArrayLike) -> partition.TyingEvents:
        """Put a tying in force in network n: the rule of `tying_env.tied_blocks`."""
        after, before = partition.canonicalise(partition.validate_action(action, self._config.n_units)), self.tying[n]
        events = partition.events(before, after)
        inherit = self._config.optimizer_state == "inherit"
        for leader in partition.leaders(after):
            former = int(before[leader])
            if former != leader and not self.frozen[n]:  # else it goes on with its own, initial values or trained ones
                self.blocks.values[n, leader] = self.blocks.values[n, former]
                for state in (self.blocks.mean, self.blocks.square, self.blocks.steps):
                    state[n, leader] = state[n, former] if inherit else 0
        self.tying[n], self.frozen[n] = after, False
        return events

    def train(self, batch: Tensor, active: Mask) -> Tensor:
        """Take one training step in the active networks on their windows (N, B, T + 1).

        Returns:
            Mean loss in nats and gradient norm before clipping, shape (2, N). Where one of them is not finite, nothing
            was changed in that network.
        """
        config = self._config
        generators = [own if on else None for own, on in zip(self._generators, active.tolist(), strict=True)]
        loss = self._losses(batch, dropout_from(generators, config.dropout), learning=True)
        trained = self._trained()  # (N, L)
        self.blocks.gradient = torch.bmm(self._members(trained), self.blocks.gradient)
        squares = self.blocks.gradient.square().sum((1, 2)) + self.outside.gradient.square().sum(1)
        norm = squares.sqrt()
        sound = torch.isfinite(loss) & torch.isfinite(norm)
        on = torch.from_numpy(active).to(self._device) & sound
        factor = (config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for weights in (self.blocks, self.outside):
            factors = factor.view(-1, *[1] * (weights.gradient.dim() - 1))
            weights.gradient = torch.where(on.view_as(factors), weights.gradient * factors, 0.0)
        lr = torch.full_like(self.outside.steps, config.learning_rate)
        self.outside.step(on, lr, config.weight_decay)
        self.blocks.step(on[:, None] & trained, self._rates(), config.weight_decay)
        return torch.stack([loss, norm])

    @torch.no_grad()
    def evaluate(self, windows: Tensor, batch_size: int) -> Tensor:
        """Return each network's mean loss in nats, without dropout, shape (N,), on its windows (N, W, T + 1)."""
        total = torch.zeros(len(windows), dtype=torch.float64, device=self._device)
        for part in windows.split(batch_size, dim=1):
            total += self._losses(part, keep_all, learning=False).double() * part.shape[1]
        return total / windows.shape[1]

    def finite(self) -> Mask:
        """Tell for each network whether its weights and optimizer state are finite, shape (N,)."""
        trained = self._trained()
        sums = [getattr(self.outside, part).sum(1) for part in ("values", "mean", "square")]
        sums += [
            torch.where(trained, getattr(self.blocks, part).sum(2), 0).sum(1) for part in ("values", "mean", "square")
        ]
        result: Mask = torch.stack(sums).isfinite().all(0).cpu().numpy()
        return result

    def count_trainable(self, n: int) -> int:
        """Return the number of trainable parameters of network n."""
        leaders = 1 if self.frozen[n] else len(partition.leaders(self.tying[n]))
        return self.outside.values.shape[-1] + leaders * self.blocks.values.shape[-1]

    def _losses(self, batch: Tensor, dropout: Dropout, learning: bool) -> Tensor:
        """Return the losses, (N,); when learning, leave the gradient of every layer and of what is outside."""
        layers = self._sources()
        rows = torch.arange(len(layers), device=self._device)[:, None]
        used = self.blocks.values[rows, layers]  # (N, L, P), what each layer computes with
        n_layer = self._config.n_layer
        blocks = [_leaves(used[:, i], self._block_shapes, learning) for i in range(n_layer)]
        outside = _leaves(self.outside.values, self._outside_shapes, learning)
        named = [Block(*leaves) for leaves in blocks]
        result = losses(batch, Outside(*outside), named, self._config.n_head, dropout)
        if learning:
            gradients = torch.autograd.grad(result.sum(), [*outside, *(leaf for leaves in blocks for leaf in leaves)])
            rows_of = [gradient.flatten(1) for gradient in gradients]
            self.outside.gradient = torch.cat(rows_of[: len(outside)], 1)
            self.blocks.gradient = torch.cat(rows_of[len(outside) :], 1).view_as(used)
        return result.detach()

    def _sources(self) -> Tensor:
        own = np.arange(self._config.n_units)
        return torch.from_numpy(np.where(self.frozen[:, None], own, self.tying)).to(self._device)

    def _trained(self) -> Tensor:
        own = np.arange(self._config.n_units)
        return torch.from_numpy(np.where(self.frozen[:, None], own == 0, self.tying == own)).to(self._device)

    def _members(self, trained: Tensor) -> Tensor:
        """Return which layers' gradients add up to that of each layer, (N, L, L) of 0 and 1."""
        eye = torch.eye(trained.shape[1], dtype=self.blocks.values.dtype, device=self._device)
        if self._config.gradient == "leader":
            return eye * trained[:, :, None]
        return eye[self._sources()].transpose(1, 2) * trained[:, :, None]

    def _rates(self) -> Tensor:
        """Return the learning rate of each layer's group, (N, L)."""
        sizes = np.stack([np.bincount(tying, minlength=len(tying)) for tying in self.tying])
        sizes = np.where(self.frozen[:, None], 1, np.maximum(sizes, 1))
        divisor = {"none": np.ones_like(sizes), "sqrt": np.sqrt(sizes), "linear": sizes}[self._config.group_lr]
        return torch.from_numpy(self._config.learning_rate / divisor).to(self.blocks.steps)


def _leaves(flat: Tensor, shapes: Sequence[tuple[int, ...]], learning: bool) -> list[Tensor]:
    """Return the tensors of these shapes that lie in flat weights (N, size) one after the other."""
    parts = flat.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape).requires_grad_(learning) for part, shape in zip(parts, shapes, strict=True)]
