"""Where and how a training step is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tying_env.config.network import TEXT

if TYPE_CHECKING:
    from tying_env.config import EnvConfig

# These change where and how a network is computed, not what it learns: a state fits whatever they are. Bits may change,
# and with compile_blocks or another device dropout's masks: a resume says so.
PLACE_SETTINGS = frozenset({"device", "cache_dir", "compile_blocks", "checkpoint_blocks", "frozen_weights", "prefetch"})


@dataclass(frozen=True)
class ComputingSettings:
    """Device, precision and memory."""

    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Type of weights, gradients and optimizer state."""
    compile_blocks: bool = False
    """Compile each block with torch.compile; a change of the tying compiles nothing again. Masks of dropout change."""
    checkpoint_blocks: bool = False
    """Keep only the inputs of each block for the backward pass, and compute the rest again there."""
    frozen_weights: Literal["held", "redrawn"] = "held"
    """Hold the layers that the start freezes; or draw their initial values again whenever they compute (same bits; with
    compile_blocks up to rounding)."""
    autocast: bool = False
    """Compute matrix products in bfloat16; weights, gradients and optimizer state stay in dtype."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other; divides batch_size. Memory for fewer sequences."""
    prefetch: bool = False
    """Draw the next batch, and copy it to the GPU, while the present one is computed."""


def check_computing(config: EnvConfig) -> None:
    """Check how steps are computed.

    Raises:
        ValueError: a setting is outside its range, or excludes another.
    """
    if config.accumulate < 1 or config.batch_size % config.accumulate:
        raise ValueError(
            f"accumulate must divide batch_size, got accumulate={config.accumulate} and batch_size={config.batch_size}"
        )
    _check_blocks(config)
    if config.frozen_weights == "redrawn":
        _check_redrawn(config)
    for name, plain in (("step_embedding", "none"), ("adaptive_halting", False)):
        if config.compile_blocks and getattr(config, name) != plain:
            raise ValueError(
                f"compile_blocks needs {name}={plain!r}, got {getattr(config, name)!r}: blocks are compiled as if "
                "they were alike, and here each is a step of its own"
            )


def _check_blocks(config: EnvConfig) -> None:
    """Check that there are blocks where they are to be computed in another way."""
    for name in ("checkpoint_blocks", "compile_blocks"):
        if getattr(config, name) and config.units == "own":
            raise ValueError(
                f"{name} is about blocks, and with units='own' the network names other modules in their place: leave "
                "it out"
            )


def _check_redrawn(config: EnvConfig) -> None:
    """Check that initial values can be drawn again: only those of random matrices that this package draws."""
    if config.replication != "tied":
        raise ValueError(
            "frozen_weights must be 'held' where the layers of the start train later, "
            f"got 'redrawn' with replication={config.replication!r}"
        )
    if config.model not in (*TEXT, "speech"):
        raise ValueError(
            "frozen_weights must be 'held' where initial values are drawn until they fit, or not by this package: "
            f"got 'redrawn' with the model {config.model!r}"
        )
    if config.compile_blocks and config.units != "block":  # a fork's masks of dropout would be others
        raise ValueError(
            "frozen_weights must be 'held' where compiled blocks have parts of their own, got 'redrawn' with "
            f"compile_blocks=True and units={config.units!r}"
        )
    for name, plain in (("init_from", None), ("delta_rank", 0), ("first_tying", "leader"), ("tied_parameters", "all")):
        if getattr(config, name) != plain:
            raise ValueError(
                "frozen_weights must be 'held' where a start is more than random matrices, "
                f"got 'redrawn' with {name}={getattr(config, name)!r}"
            )
