"""How the network is trained, and what is measured meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tying_env.config.checks import check_above_zero, check_at_least
from tying_env.config.network import CLASSIFIERS

if TYPE_CHECKING:
    from tying_env.config import EnvConfig

OptimizerName = Literal["adamw", "sgd", "muon", "custom"]
ScheduleName = Literal["constant", "linear", "cosine", "wsd"]


@dataclass(frozen=True)
class TrainingSettings:
    """The training recipe."""

    batch_size: int = 4
    """Sequences, or images, in a training step."""
    learning_rate: float = 1e-3
    """Learning rate, the highest one where a schedule changes it. An agent that never changes the tying may have
    another default than others: a tying that stays bears a higher one (docs/tuning.md)."""
    schedule: ScheduleName = field(default="cosine", metadata={"before": "constant"})
    """After the warm-up the learning rate is constant; or falls to the end, linear or along half a cosine; or is
    constant until its last share of the run, where it falls (wsd: warm-up-stable-decay)."""
    warmup_steps: int | None = field(default=None, metadata={"before": 0})
    """Training steps, from the first one on, over which the learning rate rises from almost 0; 0: no warm-up. The
    default is a tenth of the run, BERT's half of it: without one the frozen start stalls training (docs/recipe.md)."""
    change_warmup_steps: int = 0
    """Training steps over which the learning rate of a group rises again after a change gave it other layers or new
    weights; 0: none."""
    min_lr_ratio: float = 0.1
    """What a falling learning rate falls to, as a share of the highest one."""
    wsd_decay_share: float = 0.2
    """Of schedule "wsd": the share of the run, at its end, in which the learning rate falls."""
    optimizer: OptimizerName = "adamw"
    """AdamW; SGD with momentum; Muon for the matrices of the blocks, with AdamW for the rest; or your own in Python."""
    beta1: float = 0.9
    """AdamW: share of the old mean of gradients in the new one."""
    beta2: float = 0.999
    """AdamW: share of the old mean of squared gradients in the new one."""
    eps: float = 1e-8
    """AdamW: added to the root that an update is divided by."""
    momentum: float = 0.95
    """SGD and Muon: share of the old momentum in the new one; the default is torch's for Muon."""
    weight_decay: float = 0.01
    """Weight decay. The paper leaves it open; this is torch's default for AdamW, which its published code uses."""
    decayed_parameters: Literal["all", "matrices"] = "all"
    """What weight decay is for: all parameters (torch's default), or matrices alone, embeddings among them, and no
    biases or norms (the field's convention)."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm. The paper leaves it open; its published code uses 1.0."""
    total_steps: int = 600
    """Training steps in an episode (K of Algorithm 1)."""

    @property
    def wsd_decay_steps(self) -> int:
        """Training steps in which schedule "wsd" lowers the learning rate, at least 1."""
        return max(1, round(self.wsd_decay_share * self.total_steps))


@dataclass(frozen=True)
class MeasuringSettings:
    """What is measured while the network trains."""

    reward: Literal["perplexity", "accuracy"] = "perplexity"
    """Minus the perplexity, exp(mean loss); or, where there are classes, the share classified correctly."""
    reward_batches: int = 1
    """Fresh random training batches on which the reward is measured."""
    reward_timing: Literal["after_training", "after_tying"] = "after_training"
    """Measure the reward after the k steps, or right after tying as Algorithm 1 lines 20-21 do."""
    validate_every: int = 50
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
    _check_optimizer(config)
    _check_schedule(config)


# Settings that only some optimizers have.
_ONLY: dict[str, tuple[OptimizerName, ...]] = {
    **dict.fromkeys(("beta1", "beta2", "eps"), ("adamw", "muon")),
    "momentum": ("sgd", "muon"),
}


def _check_optimizer(config: EnvConfig) -> None:
    check_above_zero(eps=config.eps)
    for name in ("beta1", "beta2", "momentum"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {getattr(config, name)!r}")
    for name, optimizers in _ONLY.items():
        if config.optimizer not in optimizers:
            _check_applies(config, name, f"the optimizers {' and '.join(optimizers)}")


def _check_schedule(config: EnvConfig) -> None:
    check_at_least(0, warmup_steps=config.warmup_length, change_warmup_steps=config.change_warmup_steps)
    if not 0 <= config.min_lr_ratio <= 1:
        raise ValueError(f"min_lr_ratio must be from 0 to 1, got {config.min_lr_ratio!r}")
    if not 0 < config.wsd_decay_share <= 1:
        raise ValueError(f"wsd_decay_share must be above 0 and at most 1, got {config.wsd_decay_share!r}")
    decays = config.wsd_decay_steps if config.schedule == "wsd" else 1  # the full rate holds for one step at least
    if config.warmup_length + decays > config.total_steps:
        raise ValueError(
            f"warmup_steps must be at most {config.total_steps - decays}, so that {decays} of "
            f"total_steps={config.total_steps} remain, got {config.warmup_length}"
        )
    if config.schedule == "constant":
        _check_applies(config, "min_lr_ratio", "a schedule that falls")
    if config.schedule != "wsd":
        _check_applies(config, "wsd_decay_share", "schedule='wsd'")


def _check_applies(config: EnvConfig, name: str, to: str) -> None:
    if getattr(config, name) != getattr(TrainingSettings, name):
        raise ValueError(f"{name} applies only to {to}: leave it out, got {getattr(config, name)!r}")


def check_measuring(config: EnvConfig) -> None:
    """Check what is measured.

    Raises:
        ValueError: a setting is outside its range, or cannot be measured of this network.
    """
    check_at_least(1, reward_batches=config.reward_batches)
    check_at_least(0, validate_every=config.validate_every, validation_windows=config.validation_windows)
    if config.reward == "accuracy" and config.model not in CLASSIFIERS:
        known = " or ".join(map(repr, CLASSIFIERS))
        raise ValueError(f"reward='accuracy' needs a network that classifies: the model {known}, got {config.model!r}")
