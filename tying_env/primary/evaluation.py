"""How well a network predicts: mean loss, perplexity, bits per byte, accuracy."""

import contextlib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env.data.batches import Batch, count_examples, cut
from tying_env.primary.dependence import Spread, input_dependence, merged, spread_of
from tying_env.primary.tasks import Task, to_device
from tying_env.seeding import all_randomness_from, torch_stream

# exp of a larger mean loss says nothing more, and soon it overflows. e^20 is 4.9e8; a uniform guess among GPT-2's
# 50,257 tokens is e^10.8.
MAX_MEAN_LOSS = 20.0
# Positions that input dependence is measured on: a batch's, and those of more batches where it has fewer.
ENOUGH_POSITIONS = 32


class Evaluation(NamedTuple):
    """How well a network predicts a split of its data."""

    mean_loss: float  # nats per prediction: token, hidden token, image or utterance; infinity if not finite
    perplexity: float  # per prediction
    bits_per_byte: float | None  # of UTF-8 text; compares across tokenizers; None where it cannot be had
    tokens: int  # predictions made
    accuracy: float | None = None  # share of the images or utterances classified correctly
    input_dependence: float | None = None  # see tying_env.primary.dependence; None where it cannot be had


class Measurement(NamedTuple):
    """Means over batches."""

    mean_loss: float  # nats per prediction; infinity if not finite
    accuracy: float | None = None  # None where nothing is classified
    input_dependence: float | None = None  # None where it was not asked for, or cannot be had
    predictions: int = 0  # that the loss is the mean of


UNMEASURED = Measurement(math.inf)


def perplexity(mean_loss: float) -> float:
    """Return exp(mean loss in nats), at most e^20 for a finite loss; infinity for any other."""
    return math.exp(min(mean_loss, MAX_MEAN_LOSS)) if math.isfinite(mean_loss) else math.inf


@torch.no_grad()
def measure(
    model: nn.Module, task: Task, batches: Iterable[Batch], device: torch.device, *, dependence: bool = False
) -> Measurement:
    """Return the means over all predictions and examples, without dropout; if asked for, input dependence on the first.

    Where examples are classified it is measured on all of them, since they may be sorted by class. A network that draws
    numbers without dropout, too, draws the same ones in every measurement.
    """
    model.eval()
    total, correct, predictions, examples = 0.0, 0.0, 0, 0
    classified = True
    spread: Spread | None = None
    stream = all_randomness_from(torch_stream(0, "measuring", device)) if task.foreign else contextlib.nullcontext()
    with stream:
        for batch in batches:
            there = to_device(batch, device)
            measured, count = task.measure(model, there, logits=dependence), task.count(model, there)
            total += measured.loss.item() * count if count else 0.0  # the mean of nothing is no number
            predictions += count
            classified = classified and measured.correct is not None
            correct += 0.0 if measured.correct is None else measured.correct.item()
            examples += count_examples(batch)
            if measured.logits is not None:
                spread = merged(spread, spread_of(measured.logits))
                dependence = classified or spread.positions < ENOUGH_POSITIONS
    mean, accuracy = total / predictions if predictions else math.inf, correct / examples if classified else None
    return Measurement(mean if math.isfinite(mean) else math.inf, accuracy, input_dependence(spread), predictions)


def mean_loss(model: nn.Module, task: Task, examples: Batch, batch_size: int, device: torch.device) -> float:
    """Return the mean loss in nats per prediction over examples, without dropout; infinity if not finite."""
    return measure(model, task, cut(examples, batch_size), device).mean_loss


def evaluate(
    model: nn.Module,
    task: Task,
    windows: npt.NDArray[np.integer[Any]],
    batch_size: int,
    device: torch.device,
    byte_lengths: npt.NDArray[np.int64] | None,
) -> Evaluation:
    """Measure a language model on windows (N, T + 1); the tokens 1..T of each are predicted.

    Args:
        model: the network, on `device`.
        task: its task.
        windows: token windows.
        batch_size: windows computed at once.
        device: where the network is.
        byte_lengths: UTF-8 bytes of every token of the vocabulary, shape (V,). A separator counts 0 bytes, but its
            loss counts: a model has to predict where a text ends, too. None where they are not known.
    """
    measured = measure(model, task, cut(windows, batch_size), device, dependence=True)
    loss, shares = measured.mean_loss, (measured.accuracy, measured.input_dependence)
    predicted = windows[:, 1:]
    if byte_lengths is None:
        return Evaluation(loss, perplexity(loss), None, predicted.size, *shares)
    n_bytes = int(byte_lengths[predicted].sum())
    bits = loss * predicted.size / math.log(2)
    bits_per_byte = bits / n_bytes if n_bytes else math.inf
    return Evaluation(loss, perplexity(loss), bits_per_byte, predicted.size, *shares)
