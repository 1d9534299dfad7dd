"""What a ViT trains on: images and their classes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.config import EnvConfig
from tying_env.data import Batch, Batches, ImageSet, RandomExamples, ShuffledExamples, load_images
from tying_env.data.batches import sample
from tying_env.data.corpus import SPLITS, Split
from tying_env.data.examples import augment_images
from tying_env.primary.frequencies import frequency_accuracy, frequency_perplexity
from tying_env.primary.tasks import ImageClassification
from tying_env.primary.workloads import Workload, check_split
from tying_env.seeding import numpy_stream


class Images(Workload):
    """A ViT that names the class of an image."""

    classifies = True

    def __init__(self, config: EnvConfig) -> None:
        self.config = config
        self.data: ImageSet = load_images(config.dataset)
        channels, height, width = self.data.shape
        side = config.patch_size
        if side < 1 or height % side or width % side:
            raise ValueError(f"patch_size must divide the images' {height} x {width} pixels, got {side}")
        self.task = ImageClassification(height // side * (width // side))
        self.sizes = {"channels": channels, "height": height, "width": width, "classes": len(self.data.classes)}
        self._mean, self._deviation = self.data.scale()  # (C, 1, 1) each

    def training_batches(self, seed: int) -> Batches:
        """Return the training images in random order, augmented as the settings say; epoch after epoch."""
        stream = numpy_stream(seed, "training batches")
        return ShuffledExamples(self._all("train"), self.config.batch_size, stream, self._augmented)

    def reward_batches(self, seed: int) -> Batches:
        """Return random training images, as they are."""
        stream = numpy_stream(seed, "reward batches")
        return RandomExamples(self._all("train"), self.config.batch_size, stream, self._plain)

    def examples(self, split: Split, most: int) -> Batch:
        """Return images as they are stored: `pixel_values` (N, C, H, W) uint8, `labels` (N,)."""
        everything = self._all(split)
        places = sample(len(everything["labels"]), most)
        return {name: part[places] for name, part in everything.items()}

    def frequency_perplexity(self, split: Split, most: int) -> float | None:
        """Return that of the classes' frequencies."""
        return frequency_perplexity(
            self.data.labels["train"], self.examples(split, most)["labels"], self.sizes["classes"]
        )

    def frequency_accuracy(self, split: Split, most: int) -> float | None:
        """Return the share of the training split's most frequent class."""
        return frequency_accuracy(self.data.labels["train"], self.examples(split, most)["labels"])

    def describe(self) -> dict[str, Any]:
        """Return the hash of images and labels, their number, size and classes, and what pixels are scaled by."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for part in (self.data.images[split], self.data.labels[split]):
                digest.update(np.ascontiguousarray(part).tobytes())
        return {
            "content_key": digest.hexdigest(),
            **{split: len(self.data.labels[split]) for split in SPLITS},
            "shape": list(self.data.shape),
            "classes": list(self.data.classes),
            "pixel_mean": self._mean.ravel().tolist(),  # (C,)
            "pixel_deviation": self._deviation.ravel().tolist(),  # (C,)
        }

    def _all(self, split: Split) -> dict[str, npt.NDArray[Any]]:
        check_split(split)
        return {"pixel_values": self.data.images[split], "labels": self.data.labels[split]}

    def _prepared(self, batch: Batch) -> Batch:
        """Return a batch whose training pixels would have mean 0 and standard deviation 1 in every channel."""
        return {**batch, "pixel_values": (batch["pixel_values"].astype(np.float32) - self._mean) / self._deviation}

    def _plain(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return self._prepared(batch)

    def _augmented(self, batch: Batch, rng: np.random.Generator) -> Batch:
        prepared = self._prepared(batch)
        augment = self.config.augment
        return prepared if augment == "none" else augment_images(prepared, rng, flip=augment == "crop-flip")
