"""How the network is trained, and what is measured meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tying_env.config.checks import check_above_zero, check_at_least

if TYPE_CHECKING:
    from tying_env.config import EnvConfig


@dataclass(frozen=True)
class TrainingSettings:
    """The training recipe."""

    batch_size: int = 8
    """Sequences, or images, in a training step."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW, constant."""
    weight_decay: float = 0.01
    """Weight decay of AdamW. The paper leaves it open; this is torch's default, which its published code uses."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm. The paper leaves it open; its published code uses 1.0."""
    total_steps: int = 300
    """Training steps in an episode (K of Algorithm 1)."""


@dataclass(frozen=True)
class MeasuringSettings:
    """What is measured while the network trains."""

    reward: Literal["perplexity", "accuracy"] = "perplexity"
    """Minus the perplexity, exp(mean loss); or, where there are classes, the share classified correctly."""
    reward_batches: int = 1
    """Fresh random training batches on which the reward is measured."""
    reward_timing: Literal["after_training", "after_tying"] = "after_training"
    """Measure the reward after the k steps, or right after tying as Algorithm 1 lines 20-21 do."""
    validate_every: int = 25
    """Training steps between two measurements on the validation split; 0 for none."""
    validation_windows: int = 64
    """Sequences, spread evenly over the split, or images, drawn once for all; 0 for the whole split."""


def check_training(config: EnvConfig) -> None:
    """Check the training recipe.

    Raises:
        ValueError: a setting is outside its range.
    """
    check_at_least(1, batch_size=config.batch_size, total_steps=config.total_steps)
    check_at_least(0, weight_decay=config.weight_decay)
    check_above_zero(learning_rate=config.learning_rate, max_grad_norm=config.max_grad_norm)


def check_measuring(config: EnvConfig) -> None:
    """Check what is measured.

    Raises:
        ValueError: a setting is outside its range, or cannot be measured of this network.
    """
    check_at_least(1, reward_batches=config.reward_batches)
    check_at_least(0, validate_every=config.validate_every, validation_windows=config.validation_windows)
    if config.reward == "accuracy" and config.model != "vit":
        raise ValueError(f"reward='accuracy' needs a network that classifies: the model 'vit', got {config.model!r}")
