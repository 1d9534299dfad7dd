"""What a ViT trains on: images and their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.config import EnvConfig
from tying_env.data import Batch, ImageSet, load_images
from tying_env.data.corpus import SPLITS, Split
from tying_env.data.examples import augment_images
from tying_env.primary.classified import Classified
from tying_env.primary.models import Sizes
from tying_env.primary.tasks import ImageClassification


class Images(Classified):
    """A ViT that names the class of an image: examples are `pixel_values` (N, C, H, W) uint8, `labels` (N,)."""

    def __init__(self, config: EnvConfig, trained: Sizes | None = None) -> None:
        self.config = config
        self.data: ImageSet = load_images(config.dataset)
        channels, height, width = self.data.shape
        side = config.patch_size
        if side < 1 or height % side or width % side:
            raise ValueError(f"patch_size must divide the images' {height} x {width} pixels, got {side}")
        self.task = ImageClassification(height // side * (width // side))
        # (C, 1, 1) each
        about, self._mean, self._deviation = self._about(self.data.classes, self.data.scale(), trained)
        self.sizes = {"channels": channels, "height": height, "width": width, **about}

    def describe(self) -> dict[str, Any]:
        """Return the hash of images and labels, their number, size and classes, and what pixels are scaled by."""
        return {
            "content_key": self._content_key(),
            **{split: len(self.data.labels[split]) for split in SPLITS},
            "shape": list(self.data.shape),
            "classes": list(self.data.classes),
            "pixel_mean": self._mean.ravel().tolist(),  # (C,)
            "pixel_deviation": self._deviation.ravel().tolist(),  # (C,)
        }

    def _everything(self, split: Split) -> dict[str, npt.NDArray[Any]]:
        return {"pixel_values": self.data.images[split], "labels": self.data.labels[split]}

    def _prepared(self, batch: Batch) -> Batch:
        """Return a batch whose training pixels would have mean 0 and standard deviation 1 in every channel."""
        return {**batch, "pixel_values": (batch["pixel_values"].astype(np.float32) - self._mean) / self._deviation}

    def _augmented(self, batch: Batch, rng: np.random.Generator) -> Batch:
        prepared = self._prepared(batch)
        augment = self.config.augment
        return prepared if augment == "none" else augment_images(prepared, rng, flip=augment == "crop-flip")
