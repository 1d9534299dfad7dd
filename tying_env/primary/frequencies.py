"""The frequency baseline: what a network is worth that has learned how often each class comes, and nothing else."""

import numpy as np
import numpy.typing as npt

from tying_env.primary.evaluation import perplexity

Integers = npt.NDArray[np.integer]


def frequency_perplexity(training: Integers, targets: Integers, classes: int) -> float:
    """Return the perplexity of predicting every target by the classes' frequencies in the training split.

    Args:
        training: classes of the training split: tokens, or labels of images; any shape.
        targets: classes to predict; any shape.
        classes: how many there are. Each count is raised by one, so that a class never seen is not impossible.
    """
    counts = np.bincount(training.ravel(), minlength=classes) + 1.0  # (V,)
    log_frequencies = np.log(counts) - np.log(counts.sum())
    return perplexity(float(-log_frequencies[targets.ravel()].mean()))


def frequency_accuracy(training: Integers, targets: Integers) -> float:
    """Return the accuracy of naming the training split's most frequent class every time.

    Args:
        training: classes of the training split; any shape.
        targets: classes to name; any shape.
    """
    return float((targets == np.bincount(training.ravel()).argmax()).mean())
