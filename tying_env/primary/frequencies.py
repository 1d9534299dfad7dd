"""The frequency baseline: what a network is worth that has learned how often each class comes, and nothing else."""

import numpy as np
import numpy.typing as npt

from tying_env.primary.evaluation import perplexity

Integers = npt.NDArray[np.integer]
_PIECE = 2**20  # tokens that are counted at once: NumPy makes 8 bytes of each


def log_frequencies(training: Integers, classes: int) -> npt.NDArray[np.float64]:
    """Return the logarithm of each class's frequency in the training split, shape (V,).

    Args:
        training: classes of the training split: tokens, or labels of images; any shape.
        classes: how many there are. Each count is raised by one, so that a class never seen is not impossible.
    """
    flat, counts = training.ravel(), np.ones(classes)
    for start in range(0, len(flat), _PIECE):
        counts += np.bincount(flat[start : start + _PIECE], minlength=classes)
    logarithms: npt.NDArray[np.float64] = np.log(counts) - np.log(counts.sum())
    return logarithms


def frequency_perplexity(known: npt.NDArray[np.float64], targets: Integers) -> float:
    """Return the perplexity of predicting every target by the frequencies of the classes.

    Args:
        known: their logarithms, shape (V,).
        targets: classes to predict; any shape.
    """
    return perplexity(float(-known[targets.ravel()].mean()))


def frequency_accuracy(training: Integers, targets: Integers) -> float:
    """Return the accuracy of naming the training split's most frequent class every time.

    Args:
        training: classes of the training split; any shape.
        targets: classes to name; any shape.
    """
    return float((targets == np.bincount(training.ravel()).argmax()).mean())
