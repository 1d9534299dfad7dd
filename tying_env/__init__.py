"""Dynamic Layer Tying as a Gymnasium environment (Hay & Wolf, ICLR 2024, arXiv 2401.12819).

    import gymnasium as gym, tying_env
    env = gym.make("LayerTying-GPT2-v0")

Importing this package registers the environments and stays light: torch and transformers are imported when an
environment is made.
"""

import importlib
from typing import Any

from gymnasium.envs.registration import register, registry

from tying_env.config import PAPER, PRESETS, EnvConfig

__version__ = "0.1.0"
__all__ = ["PAPER", "PRESETS", "EnvConfig", "OwnNetwork"]

_ENTRY_POINT = "tying_env.env:LayerTyingEnv"
_VECTOR_ENTRY_POINT = "tying_env.vector:VectorTyingEnv"
_SYNTHETIC = "LayerTying-Synthetic-v0"
_TABLE = "LayerTying-Table-v0"

_NAMES = {"gpt2": "GPT2", "llama": "Llama", "bert": "BERT", "vit": "ViT", "speech": "Speech"}
_SIZES = {"small": "", "paper": "Paper-", "135m": "135M-"}

for (_model, _size), _settings in PRESETS.items():
    _vector = _VECTOR_ENTRY_POINT if _model == "gpt2" else None
    for _units, _part in (("block", ""), ("sublayers", "Sublayers-")):
        _name = f"LayerTying-{_NAMES[_model]}-{_part}{_SIZES[_size]}v0"
        if _name not in registry:  # the package may be imported again, by a reload or as `tying_env:LayerTying-...`
            _kwargs = _settings if _units == "block" else {**_settings, "units": _units}
            register(id=_name, entry_point=_ENTRY_POINT, vector_entry_point=_vector, kwargs=_kwargs)

if _SYNTHETIC not in registry:  # nothing is trained in it: the positive control of controllers
    register(id=_SYNTHETIC, entry_point="tying_env.synthetic:SyntheticTyingEnv")

if _TABLE not in registry:  # every tying of six layers, trained before
    register(
        id=_TABLE,
        entry_point="tying_env.table.env:TableTyingEnv",
        vector_entry_point="tying_env.table.vector:TableVectorEnv",
    )

# What needs torch is imported when it is asked for.
_LATE = {"OwnNetwork": "tying_env.primary.custom"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
