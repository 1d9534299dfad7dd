"""What settings add to a GPT-2 of transformers, which its own configuration does not know.

A network says what was added to it, so that an exported folder can, and whoever reads it adds the same.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from tying_env.config import EnvConfig
from tying_env.primary.factorised import factorise, merge_factors
from tying_env.primary.universal import add_halting, add_steps, merge_steps

_SETTINGS = ("embedding_dim", "step_embedding", "adaptive_halting")
# Those that can become a part of a plain network's weights.
MERGED = ("embedding_dim", "step_embedding")
_NAME = "_additions"


def additions_of(config: EnvConfig) -> dict[str, Any]:
    """Return the settings that add something, ready for JSON."""
    return {name: value for name in _SETTINGS if (value := getattr(config, name)) != getattr(EnvConfig, name)}


def additions_in(model: nn.Module) -> dict[str, Any]:
    """Return what was added to a network, as `additions_of`."""
    return dict(model.__dict__.get(_NAME, {}))


def add_to(model: Any, additions: Mapping[str, Any]) -> None:
    """Add to a new GPT-2 what settings ask for; weights come from torch's global generator.

    Args:
        model: transformers' `GPT2LMHeadModel`.
        additions: as `additions_of`.

    Raises:
        ValueError: there is no such setting or choice, or it is another network.
    """
    if not additions:
        return
    if unknown := [name for name in additions if name not in _SETTINGS]:
        raise ValueError(f"additions must be of {', '.join(_SETTINGS)}, got {unknown[0]!r}")
    if (kind := model.config.model_type) != "gpt2":
        raise ValueError(f"additions are for a GPT-2, got a {kind}")
    sizes = {name: getattr(model.config, name) for name in ("n_layer", "n_embd", "n_head")}
    config = EnvConfig(model="gpt2", **sizes, **additions)  # checks them
    trunk, blocks = model.transformer, list(model.transformer.h)
    if config.embedding_dim is not None:
        factorise(model, config.embedding_dim)
    if config.step_embedding != "none":
        add_steps(trunk, blocks, config.step_embedding, config.n_embd)
    if config.adaptive_halting:
        add_halting(trunk, blocks, config.n_embd)
    setattr(model, _NAME, dict(additions))


def merge_additions(model: nn.Module) -> None:
    """Make what was added, of `MERGED`, a part of the weights of a GPT-2 whose layers have their own; take it away."""
    if _NAME in model.__dict__:
        merge_factors(model)  # first: a step is added to positions of the network's width
        merge_steps(model)
        delattr(model, _NAME)
