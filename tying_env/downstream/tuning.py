"""Trains a classifier on a task, and measures it."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env.data import ShuffledExamples
from tying_env.data.batches import Batch, count_examples, cut
from tying_env.downstream.classifier import Classifier, classification_loss
from tying_env.downstream.settings import TuningConfig
from tying_env.primary.schedule import LearningRates, Schedule
from tying_env.primary.tasks import to_device
from tying_env.seeding import all_randomness_from, numpy_stream, torch_stream


class Tuned(NamedTuple):
    """What training came to."""

    trainable_parameters: int
    seconds: float
    mean_loss: float  # over the last tenth of the training steps, nats


# Is told how a training goes: (steps done, steps in all).
OnStep = Callable[[int, int], None]


def tune(
    classifier: Classifier, examples: Batch, config: TuningConfig, seed: int, on_step: OnStep | None = None
) -> Tuned:
    """Train a classifier where it is; tied layers stay tied, for they share their Parameters.

    Args:
        classifier: what trains is what takes a gradient.
        examples: `input_ids` and `attention_mask` (N, T), `labels` (N,).
        config: how.
        seed: of the order of the examples, and of dropout.
        on_step: is told of every training step.

    Raises:
        ValueError: the warm-up is as long as the training.
        FloatingPointError: training diverged: a loss, gradient or weight is not finite.
    """
    device = next(classifier.parameters()).device
    trained = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.rate(classifier.method), weight_decay=config.weight_decay, fused=True
    )
    steps = config.steps(count_examples(examples))
    decay_steps = config.decay_steps(steps)
    schedule = Schedule(config.schedule, steps, config.warmup_steps, config.min_lr_ratio, decay_steps)
    rates = LearningRates(optimizer, schedule)
    stream = ShuffledExamples(examples, config.batch_size, numpy_stream(seed, "downstream batches"))
    classifier.train()
    losses: list[float] = []
    started = time.perf_counter()
    with all_randomness_from(torch_stream(seed, "downstream dropout", device)):
        for step in range(steps):
            loss = classification_loss(classifier, to_device(stream.next_batch(), device))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            losses.append(loss.item())
            if not (math.isfinite(losses[-1]) and norm.isfinite()):
                raise FloatingPointError(f"training diverged at step {step + 1} of {steps}: lower the learning rate")
            optimizer.step()
            rates.step()
            optimizer.zero_grad(set_to_none=True)
            if on_step is not None:
                on_step(step + 1, steps)
    if not all(p.isfinite().all() for p in trained):
        raise FloatingPointError(f"training diverged at the last of {steps} steps: lower the learning rate")
    seconds = time.perf_counter() - started
    return Tuned(sum(p.numel() for p in trained), seconds, float(np.mean(losses[-max(1, steps // 10) :])))


@torch.no_grad()
def predict(classifier: nn.Module, examples: Batch, batch_size: int = 64) -> npt.NDArray[np.int64]:
    """Return the class that a classifier gives to each example, (N,).

    Raises:
        FloatingPointError: its scores are not finite.
    """
    classifier.eval()
    device = next(classifier.parameters()).device
    guesses: list[Any] = []
    for batch in cut(examples, batch_size):
        on_device = to_device(batch, device)
        scores = classifier(on_device["input_ids"], on_device["attention_mask"])  # (B, classes)
        if not scores.isfinite().all():
            raise FloatingPointError("training diverged: the scores of the classifier are not finite")
        guesses.append(scores.argmax(-1).cpu().numpy())
    return np.concatenate(guesses)
