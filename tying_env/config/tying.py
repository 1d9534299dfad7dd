"""What a decision is, and what tying does to weights, gradients and optimizer state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tying_env.config.checks import check_at_least
from tying_env.config.network import CUSTOM, is_own

if TYPE_CHECKING:
    from tying_env.config import EnvConfig

# What of a network is a unit, which a tying moves as one.
Units = Literal["block", "sublayers", "own"]
# What becomes of blocks that cannot all be tied to each other.
UnequalBlocks = Literal["refuse", "within-kind"]


@dataclass(frozen=True)
class TyingSettings:
    """Decisions and their effect."""

    k: int = 5
    """Training steps between two decisions."""
    units: Units = "block"
    """What is tied: whole blocks; or sublayers, the attention and the feed-forward part of each block, 2 L units that
    are tied each kind within itself; or the own units that a network of your own names."""
    tied_parameters: Literal["all", "matrices"] = "all"
    """What of a layer is tied: all of it; or its matrices, while norms and biases stay every layer's own, and train
    throughout, also while the layer is frozen."""
    gradient: Literal["shared", "leader"] = "shared"
    """A group's gradient: the sum over its layers (the paper's text), or the leader's alone (its published code).
    Aliased layers have the leader's, whatever this says; copied ones have no group."""
    optimizer_state: Literal["inherit", "reset"] = "inherit"
    """The optimizer's state of a layer that is untied: a copy of its former leader's, or empty."""
    group_lr: Literal["none", "sqrt", "linear"] = "none"
    """Learning rate of a group of n layers: lr, lr/sqrt(n) or lr/n."""
    residual_scale: Literal["none", "sqrt", "linear", "depth-sqrt", "depth-linear"] = "none"
    """What residual branches are multiplied by: 1; n^-1/2 or n^-1 in a group of n layers; or the same of all L layers,
    whatever is tied."""
    residual_ramp: int = 20
    """Training steps over which the scale of a layer's branches moves when its group has changed; 0: at once."""
    replication: Literal["tied", "copied", "aliased"] = "tied"
    """Tie replicated layers; or only copy weights and train on alone (ablation v); or alias as the published code."""
    first_tying: Literal["leader", "mean"] = "leader"
    """What the first tying makes of the layers of a group: they take the leader's weights, or the mean of all."""
    later_tying: Literal["leader", "mean"] = "leader"
    """The same of later tyings, where layers that were of different groups join in one."""
    unequal_blocks: UnequalBlocks = "refuse"
    """Your own network, if its blocks differ: refuse it, or tie each kind of block within itself."""
    attention: Literal["own", "reused"] = "own"
    """Attention of a tied layer of GPT-2, BERT or ViT: its own scores, with the weights that it shares; or its leader's
    probabilities are reused, and it computes values and feed-forward alone. Each group holds batch x heads x T x T."""
    freeze_at_start: bool = True
    """Train only layer 0 until the first decision (Algorithm 1 line 2). Without: all layers train (ablation vi)."""


def check_tying(config: EnvConfig) -> None:
    """Check the settings of tying.

    Raises:
        ValueError: one is outside its range, or excludes another.
    """
    check_at_least(1, k=config.k)
    if config.k > config.total_steps:
        raise ValueError(
            f"k must be at most total_steps={config.total_steps}, got {config.k!r}: it is the training steps between "
            "two decisions, and there would be none; lower k, or raise total_steps"
        )
    check_at_least(0, residual_ramp=config.residual_ramp)
    if config.residual_scale not in ("sqrt", "linear") and config.residual_ramp != TyingSettings.residual_ramp:
        raise ValueError(
            "residual_ramp applies only to residual_scale 'sqrt' and 'linear': leave it out, "
            f"got {config.residual_ramp!r}"
        )
    if config.units == "own" and config.model != CUSTOM and not is_own(config.model):
        raise ValueError(f"units='own' are those that a network of your own names, got the model {config.model!r}")
    if config.units == "sublayers" and config.model == "vit" and config.residual_scale in ("sqrt", "linear"):
        raise ValueError(
            f"residual_scale={config.residual_scale!r} does not apply to a ViT's sublayers: both of a block's branches "
            "go through one module, which has one scale"
        )
    if config.attention == "reused":
        _check_reused(config)
    if config.gradient == "leader" and config.replication == "copied":
        raise ValueError("gradient='leader' does not apply to replication='copied': copied layers train on their own")
    for name in ("first_tying", "later_tying"):
        if getattr(config, name) == "mean" and config.replication != "tied":
            raise ValueError(f"{name}='mean' needs replication='tied', got {config.replication!r}")
    if config.first_tying == "mean" and not config.freeze_at_start:
        raise ValueError("first_tying='mean' needs freeze_at_start: without it all layers train before they are tied")


def _check_reused(config: EnvConfig) -> None:
    """Check that queries and keys of a follower are its leader's: they are not computed, and nothing must be lost."""
    for name, plain, why in (
        ("replication", "tied", "layers that are not tied would train queries and keys that nothing computes with"),
        ("tied_parameters", "all", "a follower would have biases of queries and keys that nothing computes with"),
        ("delta_rank", 0, "a follower would have deltas of queries and keys that nothing computes with"),
        ("compile_blocks", False, "blocks are compiled one by one, and here one takes numbers from another"),
    ):
        if getattr(config, name) != plain:
            raise ValueError(f"attention='reused' needs {name}={plain!r}, got {getattr(config, name)!r}: {why}")
