"""What is computed in a training step: from a batch to the gradients of what trains."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tying_env.config import EnvConfig
from tying_env.data.batches import count_examples, cut
from tying_env.distributed import DataParallel, summed, world
from tying_env.primary.kernels.first_order import gradients_once
from tying_env.primary.tasks import Task
from tying_env.seeding import stream_of, torch_randomness_from


class Gradients:
    """Computes gradients of one network, in parts and in several processes where the settings ask for it.

    Args:
        model: the network.
        task: turns a batch into a loss.
        config: `accumulate`, the parts in which a batch is computed, one after the other, and `autocast`.
        device: where the network is.
        dropout: the generator that dropout draws from, on the device.
    """

    def __init__(
        self, model: nn.Module, task: Task, config: EnvConfig, device: torch.device, dropout: torch.Generator
    ) -> None:
        self.task = task
        self.dropout = dropout
        self._model = model
        self._device = device
        self._accumulate, self._autocast = config.accumulate, config.autocast
        self._parallel = None if world().size == 1 else DataParallel(model, self.loss)

    def compute(self, batch: Any, whole: int, trained: Sequence[nn.Parameter]) -> Tensor:
        """Leave the gradients of a batch in the Parameters; of several processes, their average.

        Args:
            batch: this process's share, on the device.
            whole: examples of the batch in all processes together.
            trained: the Parameters that train.

        Returns:
            Mean loss in nats, a scalar in float64, on the device.
        """
        self._model.train()
        losses = []
        parts = list(cut(batch, -(-count_examples(batch) // self._accumulate)))
        counts = [self.task.count(self._model, part) for part in parts]
        if not self.task.even:
            whole = int(summed(sum(counts)))
        stream = torch_randomness_from(stream_of(world().rank, world().size, self.dropout))
        with stream, gradients_once(not self.task.foreign):
            for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
                if count == 0 < whole and self._parallel is None:  # the mean of nothing is no number
                    continue
                # The parts add up; of processes the average is taken.
                weight, last = world().size * count / max(whole, 1), i + 1 == len(parts)
                if self._parallel is None:
                    loss = weight * self.loss(self._model, part)
                    loss.backward()
                else:
                    loss = weight * self._parallel.loss(part, trained, last=last)
                    self._parallel.backward(loss, last=last)
                losses.append(loss.detach().double())
        mean = torch.stack(losses).sum()
        return mean if self._parallel is None else self._parallel.mean(mean)

    def loss(self, model: nn.Module, part: Any) -> Tensor:
        """Return the mean loss of a part of a batch in nats, a scalar."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            return self.task.loss(model, part)

    @property
    def bytes_exchanged(self) -> int:
        """Bytes of gradients that this process gave into the average in the last step; 0 for a process alone."""
        return 0 if self._parallel is None else self._parallel.bytes_per_step
