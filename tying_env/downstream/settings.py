"""How a classifier is trained. No torch here: command lines are made of it."""

from dataclasses import dataclass
from typing import Literal

from tying_env.config.checks import check_above_zero, check_at_least, check_type, declared_types
from tying_env.config.training import ScheduleName

# What of a classifier trains: all of it, low-rank updates and the head, or the head alone.
TuningMethod = Literal["full", "lora", "head"]

# A new head and low-rank updates start from nothing: they take larger steps than trained weights.
LEARNING_RATES: dict[TuningMethod, float] = {"full": 3e-4, "lora": 3e-3, "head": 1e-2}


@dataclass(frozen=True)
class TuningConfig:
    """How a classifier is trained.

    Raises:
        ValueError: a setting is outside its range.
    """

    epochs: float = 3.0
    """Times that the training examples are gone through."""
    batch_size: int = 32
    """Examples in a training step."""
    learning_rate: float | None = None
    """Learning rate of AdamW; by default 3e-4 where everything trains, 3e-3 for low-rank updates, 1e-2 for the head."""
    warmup_steps: int = 0
    """Training steps over which the learning rate rises."""
    schedule: ScheduleName = "linear"
    """The learning rate after that: constant; or falling to the end, linear or along half a cosine; or constant until
    its last share of the training, where it falls (wsd)."""
    min_lr_ratio: float = 0.0
    """What a falling learning rate falls to, as a share of the highest one."""
    wsd_decay_share: float = 0.2
    """Of schedule "wsd": the share of the run, at its end, in which the learning rate falls."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""

    def __post_init__(self) -> None:
        for name, kind in declared_types(type(self)).items():
            check_type(name, getattr(self, name), kind)
        check_above_zero(epochs=self.epochs, max_grad_norm=self.max_grad_norm)
        if self.learning_rate is not None:
            check_above_zero(learning_rate=self.learning_rate)
        check_at_least(1, batch_size=self.batch_size)
        check_at_least(0, warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)
        if not 0 <= self.min_lr_ratio <= 1:
            raise ValueError(f"min_lr_ratio must be from 0 to 1, got {self.min_lr_ratio!r}")
        if not 0 < self.wsd_decay_share <= 1:
            raise ValueError(f"wsd_decay_share must be above 0 and at most 1, got {self.wsd_decay_share!r}")
        if self.schedule == "constant" and self.min_lr_ratio:
            raise ValueError(
                f"min_lr_ratio applies only to a schedule that falls: leave it out, got {self.min_lr_ratio!r}"
            )
        if self.schedule != "wsd" and self.wsd_decay_share != TuningConfig.wsd_decay_share:
            raise ValueError(
                f"wsd_decay_share applies only to schedule='wsd': leave it out, got {self.wsd_decay_share!r}"
            )

    def rate(self, method: TuningMethod) -> float:
        """Return the learning rate for a method."""
        return LEARNING_RATES[method] if self.learning_rate is None else self.learning_rate

    def steps(self, examples: int) -> int:
        """Return the training steps for so many examples, at least 1.

        Raises:
            ValueError: they are not more than those of the warm-up, and of schedule "wsd" those in which it falls.
        """
        steps = max(1, round(self.epochs * examples / self.batch_size))
        most = steps - (self.decay_steps(steps) if self.schedule == "wsd" else 1)
        if self.warmup_steps > most:
            raise ValueError(
                f"warmup_steps must be at most {most}, for {examples} examples make {steps} training steps, got "
                f"{self.warmup_steps}"
            )
        return steps

    def decay_steps(self, steps: int) -> int:
        """Return the training steps, of so many, in which schedule "wsd" lowers the learning rate, at least 1."""
        return max(1, round(self.wsd_decay_share * steps))
