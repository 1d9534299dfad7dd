"""What a network that names the class of an example trains on, whatever the example is."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.data import Batch, Batches, RandomExamples, ShuffledExamples
from tying_env.data.batches import sample
from tying_env.data.corpus import SPLITS, Split
from tying_env.primary.frequencies import frequency_accuracy, frequency_perplexity, log_frequencies
from tying_env.primary.workloads import Workload, check_split
from tying_env.seeding import numpy_stream


class Classified(Workload):
    """Examples with `labels`."""

    classifies = True

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
