"""The settings that the vector environment takes; whatever is not listed here must be left at its default.

So a setting that is added to `EnvConfig` is refused until the batched computation honours it and it is listed here:
none is ever ignored.
"""

import dataclasses
from typing import Any

from tying_env.config import EnvConfig

# Settings whose every valid value is honoured: numbers and places.
ANY_VALUE = frozenset(
    {
        *("dataset", "cache_dir", "device"),
        *("n_layer", "n_embd", "n_head", "seq_len", "dropout"),
        *("batch_size", "learning_rate", "weight_decay", "max_grad_norm", "total_steps", "k", "freeze_at_start"),
        *("warmup_steps", "min_lr_ratio", "wsd_decay_share", "beta1", "beta2", "eps"),
        *("reward_batches", "validate_every", "validation_windows"),
    }
)

# Choices: the values that are honoured, so that a choice added later is not ignored either.
THESE_VALUES: dict[str, tuple[Any, ...]] = {
    "units": ("block", "sublayers"),
    "tokenizer": ("gpt2", "bytes"),
    "gradient": ("shared", "leader"),
    "optimizer_state": ("inherit", "reset"),
    "group_lr": ("none", "sqrt", "linear"),
    "schedule": ("constant", "linear", "cosine", "wsd"),
    "reward_timing": ("after_training", "after_tying"),
    "dtype": ("float32", "float64", "bfloat16"),
}


def check_supported(config: EnvConfig) -> None:
    """Check that the vector environment honours every setting.

    Raises:
        ValueError: it does not; the message names the setting, its value and what is expected.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values = THESE_VALUES.get(field.name, (field.default,))
        if field.name not in ANY_VALUE and value not in values:
            expected = " or ".join(map(repr, values))
            raise ValueError(f"{field.name} must be {expected} in the vector environment, got {value!r}")
