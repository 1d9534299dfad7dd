"""Learning rates over a training: the one place that decides them.

Every parameter group has a rate of its own, `initial_lr`; a schedule multiplies all of them by the same factor in each
training step. So a group that appears while training runs (`TiedBlocks.change` makes some) has the present factor, and
the rule of `group_lr` holds throughout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch.optim.lr_scheduler import LRScheduler

from tying_env.config import EnvConfig
from tying_env.config.training import ScheduleName


@dataclass(frozen=True)
class Schedule:
    """The share of the learning rate in each training step.

    Warm-up: in step t of the first `warmup_steps`, counted from 0, the share is (t + 1) / (warmup_steps + 1). After it
    the share is 1 ("constant"); or it falls to `min_ratio`, which it would reach in the step after the last one: in a
    straight line ("linear"), along half a cosine ("cosine"; Loshchilov & Hutter, 2017), or in a straight line over the
    last `decay_steps` alone ("wsd", warm-up-stable-decay; Hu et al., MiniCPM, arXiv 2404.06395).

    A group that a change of the tying has touched, which has other layers or new Parameters since, is warmed up again
    over `change_warmup_steps`, as a factor beside that share.
    """

    name: ScheduleName
    total_steps: int
    warmup_steps: int = 0
    min_ratio: float = 0.0
    decay_steps: int = 0
    change_warmup_steps: int = 0

    @classmethod
    def of(cls, config: EnvConfig) -> Self:
        """Return the schedule that the settings describe."""
        return cls(
            config.schedule,
            config.total_steps,
            config.warmup_length,
            config.min_lr_ratio,
            config.wsd_decay_steps,
            config.change_warmup_steps,
        )

    def share(self, step: int) -> float:
        """Return the share of the learning rate in a training step, counted from 0."""
        if step < self.warmup_steps:
            return _rising(step, self.warmup_steps)
        if self.name == "constant":
            return 1.0
        begins = self.total_steps - self.decay_steps if self.name == "wsd" else self.warmup_steps
        progress = min(max(0.0, (step - begins) / max(self.total_steps - begins, 1)), 1.0)
        left = (1 + math.cos(math.pi * progress)) / 2 if self.name == "cosine" else 1 - progress
        return self.min_ratio + (1 - self.min_ratio) * left

    def share_since_change(self, age: int | None) -> float:
        """Return the factor of a group that a change touched `age` training steps ago; None: none has."""
        return 1.0 if age is None else _rising(age, self.change_warmup_steps)


def _rising(step: int, steps: int) -> float:
    return min((step + 1) / (steps + 1), 1.0)


class LearningRates(LRScheduler):
    """Sets the learning rate of every group of an optimizer, as torch's schedulers do: `step` after a training step.

    Unlike torch's `LambdaLR` it reads the groups again each time, for they come and go.

    Args:
        optimizer: its groups' rates are multiples of their `initial_lr`, which is what they begin with.
        schedule: the share of them in each training step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self.schedule = schedule
        super().__init__(optimizer)

    @property
    def steps(self) -> int:
        """Training steps done."""
        return self.last_epoch

    @property
    def last_share(self) -> float:
        """The share of the learning rate in the last training step; before the first one, in that."""
        return self.schedule.share(max(self.steps - 1, 0))

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of every group in the next training step."""
        share = self.schedule.share(self.steps)
        return [
            group["initial_lr"] * share * self.schedule.share_since_change(group.get("age"))
            for group in self.optimizer.param_groups
        ]

    def step(self, epoch: int | None = None) -> None:
        """Count a training step, and give all groups their rate for the next one.

        Args:
            epoch: training steps done; by default one more than before, and for the groups' ages as well.
        """
        if epoch is None:
            for group in self.optimizer.param_groups:
                if group.get("age") is not None:
                    group["age"] += 1
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self.refresh()

    @property
    def ages(self) -> dict[str, int | None]:
        """Training steps since a change touched a leader's groups, by leader; None where none has."""
        groups = self.optimizer.param_groups
        return {str(group["leader"]): group.get("age") for group in groups if "leader" in group}

    def end_at(self, total_steps: int) -> None:
        """Let the schedule end at this training step, from the next step on."""
        self.schedule = replace(self.schedule, total_steps=total_steps)
        self.refresh()

    def restore(self, steps: int, ages: Mapping[str, int | None]) -> None:
        """Continue after so many training steps, with `ages` as they were."""
        for group in self.optimizer.param_groups:
            if "leader" in group:
                group["age"] = ages[str(group["leader"])]
        self.step(steps)

    def refresh(self) -> None:
        """Give all groups their rate for the next training step, also those that are new."""
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
