"""Downstream tasks (paper, Appendix C): a trained network with its tying kept, and a new classification head."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tying_env.downstream.classifier import Classifier, make_classifier
    from tying_env.downstream.settings import TuningConfig, TuningMethod
    from tying_env.downstream.tuning import OnStep, Tuned, predict, tune

__all__ = [
    "Classifier",
    "OnStep",
    "Tuned",
    "TuningConfig",
    "TuningMethod",
    "make_classifier",
    "predict",
    "tune",
]

# Imported when they are asked for: settings need no torch.
_ROOMS = {
    **dict.fromkeys(("Classifier", "make_classifier"), "classifier"),
    **dict.fromkeys(("TuningMethod", "TuningConfig"), "settings"),
    **dict.fromkeys(("OnStep", "Tuned", "predict", "tune"), "tuning"),
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
