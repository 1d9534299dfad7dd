"""N primary networks under training, each with a tying of its own, as one batched computation.

Every layer of every network has a row for weights and for AdamW's state, used where the layer is a leader: a small
network pays for that with memory and gains one computation for all. (A single environment holds leaders only.)

What a tying does to the rows is `tying_env.rule`'s to say, the life of each run is `tying_env.episode`'s, and rows are
trained by torch's AdamW as a `Trainer`'s Parameters are. Written a second time is only the arithmetic between: the
network (`batched_gpt2` says why), the sum of a group's gradients, and the clipping of N norms at once. A `Trainer`
cannot be shared: it computes one network with one generator, and N of them called in turn reach 56 to 69 training steps
a second where this reaches 84, 182 and 226 (N = 1, 8, 32 networks of 6 x 32 on 4 x 32 bytes, one thread).

Shapes: N networks, L units, P weights in a unit, O weights outside the blocks.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tying_env import partition, rule
from tying_env.config import EnvConfig
from tying_env.primary.building import build_network
from tying_env.primary.evaluation import Measurement
from tying_env.primary.schedule import Schedule
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
from tying_env.vector.measuring import Look, measure_all

Mask = npt.NDArray[np.bool_]


class Rows:
    """Flat weights in rows, each with AdamW's state: (*rows, size)."""

    def __init__(self, rows: tuple[int, ...], size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.values, self.mean, self.square, self.gradient = (
            torch.zeros(*rows, size, dtype=dtype, device=device) for _ in range(4)
        )
        self.steps = torch.zeros(rows, device=device)  # float32 as in torch's fused AdamW: bfloat16 cannot count to 257

    @property
    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        """AdamW's state of all rows: step counts, first and second moments."""
        return self.steps, self.mean, self.square


class Row(NamedTuple):
    """A row that trains, as views of its `Rows`."""

    rows: Rows
    network: int
    at: tuple[int, ...]
    values: Tensor


class Part(NamedTuple):
    """The units of one kind, in all networks.

    Attributes:
        rows: their weights (N, units of this kind, P).
        units: their numbers among all.
        names: of a unit's weights, inside its block.
        shapes: of these.
    """

    rows: Rows
    units: partition.IntVector
    names: tuple[str, ...]
    shapes: list[tuple[int, ...]]


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
        shapes: list[tuple[int, ...]] = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,)]
        shapes += [(d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
        self._outside_shapes: list[tuple[int, ...]] = [(vocab_size, d), (config.seq_len, d), (d,), (d,)]
        self.kinds = kinds = config.kinds
        self.parts: list[Part] = []
        each = len(shapes) // len(kinds.members)  # attention has the first half of a block's weights
        for i, units in enumerate(kinds.members):
            own = slice(i * each, (i + 1) * each)
            rows = Rows((n, len(units)), _size(shapes[own]), dtype, device)
            self.parts.append(Part(rows, units, BLOCK_NAMES[own], shapes[own]))
        self._part_of = {int(unit): part for part in self.parts for unit in part.units}
        self.outside = Rows((n,), _size(self._outside_shapes), dtype, device)
        self.tying = np.tile(kinds.lowest, (n, 1))
        self.frozen = np.ones(n, dtype=bool)
        self._sources = np.zeros((n, config.n_units), dtype=np.int64)  # with whose weights each layer computes
        self._groups: list[dict[int, list[int]]] = [{}] * n  # of each network, what `rule.trained` says
        self._rows: list[Row] = []  # those that train, in the order of the optimizer's groups
        self._optimizer: torch.optim.AdamW | None = None  # on these rows; None: they, or their rates, are others now
        self._schedule = Schedule.of(config)
        self._steps = np.zeros(n, dtype=np.int64)  # training steps of each network
        self._generators = [torch_stream(0, "dropout", device) for _ in range(n)]
        for network in range(n):
            self._put(network, self.tying[network], frozen=True)

    def begin(self, n: int, seed: int) -> None:
        """Give network n fresh weights from a seed, the frozen start, and no optimizer state."""
        network = build_network(self._config, self._sizes, self._device, torch_stream(seed, "weights"))
        values = dict(network.model.named_parameters())
        for part in self.parts:
            for i, block in enumerate(network.block_names):
                own = [values[f"{block}.{name}"].detach().flatten() for name in part.names]
                part.rows.values[n, i] = torch.cat(own)
        self.outside.values[n] = torch.cat([values[name].detach().flatten() for name in OUTSIDE_NAMES])
        for rows in (*(part.rows for part in self.parts), self.outside):
            for state in rows.state:
                state[n] = 0
        self._steps[n] = 0
        self._put(n, self.kinds.lowest, frozen=True)
        self._generators[n] = torch_stream(seed, "dropout", self._device)

    def change(self, n: int, tying: npt.ArrayLike) -> partition.TyingEvents:
        """Put a tying within kinds in force in network n, as `tying_env.rule` says."""
        before = self.tying[n].copy()
        after = partition.canonicalise(tying)
        inherit = self._config.optimizer_state == "inherit"
        for leader, former in rule.origins(before, bool(self.frozen[n]), after).items():
            if former != leader:
                rows = self._part_of[leader].rows
                place, source = self.kinds.position[[leader, former]].tolist()
                rows.values[n, place] = rows.values[n, source]
                for state in rows.state:
                    state[n, place] = state[n, source] if inherit else 0
        self._put(n, after, frozen=False)
        return partition.events(before, after)

    def train(self, batch: Tensor, active: Mask) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Take one training step in the active networks on their windows (N, B, T + 1).

        Returns:
            Mean loss in nats and gradient norm before clipping, (N,) each. Where one of them is not finite, nothing
            was changed in that network.
        """
        config = self._config
        generators = [own if on else None for own, on in zip(self._generators, active.tolist(), strict=True)]
        result = self._losses(batch, dropout_from(generators, config.dropout), learning=True)
        for part, members in zip(self.parts, self._members(), strict=True):
            part.rows.gradient = torch.bmm(members, part.rows.gradient)
        squares = sum(part.rows.gradient.square().sum((1, 2)) for part in self.parts)
        squares = squares + self.outside.gradient.square().sum(1)
        norms = squares.sqrt()
        factor = (config.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)  # as in torch's clip_grad_norm_
        for part in self.parts:
            part.rows.gradient *= factor[:, None, None]
        self.outside.gradient *= factor[:, None]
        loss, norm = torch.stack([result, norms]).double().cpu().numpy()
        self._step(active & np.isfinite(loss) & np.isfinite(norm))
        return loss, norm

    def evaluate(self, windows: Tensor, batch_size: int, *, dependence: bool = False) -> list[Measurement]:
        """Measure each network without dropout on its windows, (N, W, T + 1); see `measure_all`."""

        def losses_of(part: Tensor, look: Look | None) -> Tensor:
            return self._losses(part, keep_all, learning=False, look=look)

        return measure_all(losses_of, windows, batch_size, dependence=dependence)

    def finite(self) -> Mask:
        """Tell for each network whether its weights and optimizer state are finite, shape (N,)."""
        trained, kept = self._trained(), ("values", "mean", "square")
        sums = [getattr(self.outside, name).sum(1) for name in kept]
        for part in self.parts:
            own = trained[:, part.units]
            sums += [torch.where(own, getattr(part.rows, name).sum(2), 0).sum(1) for name in kept]
        result: Mask = torch.stack(sums).isfinite().all(0).cpu().numpy()
        return result

    def count_trainable(self, n: int) -> int:
        """Return the number of trainable parameters of network n."""
        leaders = (self._part_of[leader].rows.values for leader in self._groups[n])
        return self.outside.values.shape[-1] + sum(values.shape[-1] for values in leaders)

    def _put(self, n: int, tying: partition.IntVector, frozen: bool) -> None:
        self.tying[n], self.frozen[n] = tying, frozen
        self._sources[n] = rule.sources(tying, frozen)
        self._groups[n] = rule.trained(tying, frozen, self.kinds.lowest)
        self._optimizer = None

    def _step(self, on: Mask) -> None:
        """Take a step of AdamW in the rows that train of these networks, (N,)."""
        optimizer = self._optimizer = self._optimizer or self._new_optimizer()
        for row in self._rows:
            row.values.grad = row.rows.gradient[row.at] if on[row.network] else None
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._schedule.share(int(self._steps[group["network"]]))
        optimizer.step()
        together = {(step, step + moved) for step, moved in zip(self._steps.tolist(), on.tolist(), strict=True)}
        self._steps += on
        if len(together) > len({step for step, _ in together}):  # networks that were at the same step part
            self._optimizer = None

    def _new_optimizer(self) -> torch.optim.AdamW:
        """Return an optimizer of the rows that train, which has their state, with a group for each learning rate.

        That is the same for rows whose groups divide it by the same number, in networks at the same training step.
        """
        by_rate: dict[tuple[float, int], list[Row]] = {}
        for n, groups in enumerate(self._groups):
            done = int(self._steps[n])
            by_rate.setdefault((1.0, done), []).append(Row(self.outside, n, (n,), self.outside.values[n]))
            for leader, layers in groups.items():
                rows, place = self._part_of[leader].rows, int(self.kinds.position[leader])
                row = Row(rows, n, (n, place), rows.values[n, place])
                by_rate.setdefault((rule.lr_divisor(self._config.group_lr, len(layers)), done), []).append(row)
        config, rate = self._config, self._config.learning_rate
        groups_of = [
            {"params": [row.values for row in rows], "initial_lr": rate / divisor, "network": rows[0].network}
            for (divisor, _), rows in by_rate.items()
        ]
        betas, decay = (config.beta1, config.beta2), config.weight_decay
        optimizer = torch.optim.AdamW(groups_of, lr=rate, betas=betas, eps=config.eps, weight_decay=decay, fused=True)
        self._rows = [row for rows in by_rate.values() for row in rows]
        for rows, _, at, values in self._rows:
            state = {"step": rows.steps[at], "exp_avg": rows.mean[at], "exp_avg_sq": rows.square[at]}
            optimizer.state[values] = state
        return optimizer

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; the optimizer works on views, which a pickle would tear off their tensors."""
        return self.__dict__ | {"_rows": [], "_optimizer": None}

    def _losses(self, batch: Tensor, dropout: Dropout, learning: bool, look: Look | None = None) -> Tensor:
        """Return the losses, (N,); when learning, leave the gradient of every layer and of what is outside."""
        rows, n_layer = torch.arange(len(self._sources), device=self._device)[:, None], self._config.n_layer
        leaves: list[list[list[Tensor]]] = []  # of each kind, of each unit
        for part in self.parts:
            places = torch.from_numpy(self.kinds.position[self._sources[:, part.units]]).to(self._device)
            used = part.rows.values[rows, places]  # (N, units, P), what each unit computes with
            leaves.append([_leaves(used[:, i], part.shapes, learning) for i in range(n_layer)])
        outside = _leaves(self.outside.values, self._outside_shapes, learning)
        named = [Block(*(leaf for of_kind in leaves for leaf in of_kind[i])) for i in range(n_layer)]
        result = losses(batch, Outside(*outside), named, self._config.n_head, dropout, look)
        if learning:
            inside = [leaf for of_kind in leaves for of_unit in of_kind for leaf in of_unit]
            flat = [gradient.flatten(1) for gradient in torch.autograd.grad(result.sum(), [*outside, *inside])]
            self.outside.gradient, done = torch.cat(flat[: len(outside)], 1), len(outside)
            for part in self.parts:
                count = n_layer * len(part.shapes)
                part.rows.gradient = torch.cat(flat[done : done + count], 1).view_as(part.rows.values)
                done += count
        return result.detach()

    def _trained(self) -> Tensor:
        """Return whether each layer has weights that train, (N, L)."""
        trained = np.zeros_like(self.tying, dtype=bool)
        for own, groups in zip(trained, self._groups, strict=True):
            own[list(groups)] = True
        return torch.from_numpy(trained).to(self._device)

    def _members(self) -> list[Tensor]:
        """Return which units' gradients add up to that of each unit, of each kind (N, units, units) of 0 and 1."""
        found = []
        for part in self.parts:
            trained = self._trained()[:, part.units]
            sources = torch.from_numpy(self.kinds.position[self._sources[:, part.units]]).to(self._device)
            eye = torch.eye(len(part.units), dtype=part.rows.values.dtype, device=self._device)
            if self._config.gradient == "leader":
                found.append(eye * trained[:, :, None])
            else:
                found.append(eye[sources].transpose(1, 2) * trained[:, :, None])
        return found


def _size(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _leaves(flat: Tensor, shapes: Sequence[tuple[int, ...]], learning: bool) -> list[Tensor]:
    """Return the tensors of these shapes that lie in flat weights (N, size) one after the other."""
    parts = flat.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape).requires_grad_(learning) for part, shape in zip(parts, shapes, strict=True)]
