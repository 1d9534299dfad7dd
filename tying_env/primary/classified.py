"""What a network that names the class of an example trains on, whatever the example is."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.data import Batch, Batches, RandomExamples, ShuffledExamples
from tying_env.data.batches import sample
from tying_env.data.corpus import SPLITS, Split
from tying_env.primary.frequencies import frequency_accuracy, frequency_perplexity, log_frequencies
from tying_env.primary.models import Sizes
from tying_env.primary.workloads import Workload, check_split
from tying_env.seeding import numpy_stream

Scale = npt.NDArray[np.float32]


class Classified(Workload):
    """Examples with `labels`.

    `sizes` has, beside numbers, the names of the classes in their order, and what inputs are scaled by: both are of the
    data that the network was trained on, also when it is measured on others.
    """

    classifies = True

    def _about(
        self, classes: Sequence[str], scale: tuple[Scale, Scale], trained: Sizes | None
    ) -> tuple[dict[str, Any], Scale, Scale]:
        """Return what `sizes` has of classes and scale, and mean and standard deviation that inputs are scaled by.

        Args:
            classes: the names of these data.
            scale: mean and deviation of these data, of equal shape.
            trained: `sizes` of a network that is there already; None for a new one.

        Raises:
            ValueError: mean and deviation in `trained` are not as many finite numbers, or a deviation is not above 0.
        """
        mean, deviation = scale
        if trained is not None and "input_mean" in trained:  # files of earlier versions have none
            names = ("input_mean", "input_deviation")
            mean, deviation = (_numbers(name, trained.get(name), mean.shape) for name in names)
            if not (deviation > 0).all():
                raise ValueError(f"its input_deviation must be above 0, got {trained['input_deviation']!r:.200}")
        numbers = {"input_mean": mean.ravel().tolist(), "input_deviation": deviation.ravel().tolist()}
        return {"classes": len(classes), "class_names": list(classes), **numbers}, mean, deviation

    def training_batches(self, seed: int) -> Batches:
        """Return the training examples in random order, augmented as the settings say; epoch after epoch."""
        stream = numpy_stream(seed, "training batches")
        return ShuffledExamples(self._everything("train"), self.config.batch_size, stream, self._augmented)

    def reward_batches(self, seed: int) -> Batches:
        """Return random training examples, as they are."""
        stream = numpy_stream(seed, "reward batches")
        return RandomExamples(self._everything("train"), self.config.batch_size, stream, self._plain)

    def examples(self, split: Split, most: int) -> Batch:
        """Return examples as they are stored, `labels` (N,) among their arrays."""
        check_split(split)
        everything = self._everything(split)
        places = sample(len(everything["labels"]), most)
        return {name: part[places] for name, part in everything.items()}

    def frequency_perplexity(self, split: Split, most: int) -> float | None:
        """Return that of the classes' frequencies."""
        known = log_frequencies(self._everything("train")["labels"], self.sizes["classes"])
        return frequency_perplexity(known, self.examples(split, most)["labels"])

    def frequency_accuracy(self, split: Split, most: int) -> float | None:
        """Return the share of the training split's most frequent class."""
        return frequency_accuracy(self._everything("train")["labels"], self.examples(split, most)["labels"])

    @abstractmethod
    def _everything(self, split: Split) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of a split."""

    def _content_key(self) -> str:
        """Return a hash of all arrays."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for part in self._everything(split).values():
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def _plain(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return self._prepared(batch)

    def _augmented(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return self._prepared(batch)


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> Scale:
    try:
        found = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its {name} must be numbers, got {values!r:.200}") from error
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"its {name} must be a list of finite numbers, got {values!r:.200}")
    # Of other data there may be more or fewer: `LoadedRun.open_workload` says so.
    return found.reshape(shape) if found.size == np.prod(shape) else found
