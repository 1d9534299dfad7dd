"""Downstream tasks (paper, Appendix C): a trained network with its tying kept, and a new classification head."""

from tying_env.downstream.classifier import Classifier, Method, make_classifier
from tying_env.downstream.tuning import OnStep, Tuned, TuningConfig, predict, tune

__all__ = [
    "Classifier",
    "Method",
    "OnStep",
    "Tuned",
    "TuningConfig",
    "make_classifier",
    "predict",
    "tune",
]
