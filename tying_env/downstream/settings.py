"""How a classifier is trained. No torch here: command lines are made of it."""

from dataclasses import dataclass
from typing import Literal, get_args

# What of a classifier trains: all of it, low-rank updates and the head, or the head alone.
TuningMethod = Literal["full", "lora", "head"]

# The recipe's schedules but for wsd (docs/recipe.md), which fall to 0 here.
TuningSchedule = Literal["constant", "linear", "cosine"]

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
    schedule: TuningSchedule = "linear"
    """The learning rate after that: as it is, or falling to 0 in a straight line or along half a cosine."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size!r}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {self.warmup_steps!r}")
        if self.schedule not in get_args(TuningSchedule):
            known = ", ".join(map(repr, get_args(TuningSchedule)))
            raise ValueError(f"schedule must be one of {known}, got {self.schedule!r}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay!r}")

    def rate(self, method: TuningMethod) -> float:
        """Return the learning rate for a method."""
        return LEARNING_RATES[method] if self.learning_rate is None else self.learning_rate

    def steps(self, examples: int) -> int:
        """Return the training steps for so many examples, at least 1.

        Raises:
            ValueError: they are not more than those of the warm-up.
        """
        steps = max(1, round(self.epochs * examples / self.batch_size))
        if self.warmup_steps >= steps:
            raise ValueError(
                f"warmup_steps must be at most {steps - 1}, for {examples} examples make {steps} training steps, got "
                f"{self.warmup_steps}"
            )
        return steps
