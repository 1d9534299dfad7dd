"""What a speech encoder trains on: utterances and their classes."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from tying_env.config import EnvConfig
from tying_env.data import Batch, SpeechSet, load_speech
from tying_env.data.corpus import SPLITS, Split
from tying_env.primary.classified import Classified
from tying_env.primary.models import Sizes
from tying_env.primary.tasks import SpeechClassification


class Speech(Classified):
    """An encoder that names the class of an utterance: examples are `frames` (N, T, F), `lengths` and `labels` (N,)."""

    def __init__(self, config: EnvConfig, trained: Sizes | None = None) -> None:
        self.config = config
        self.data: SpeechSet = load_speech(config.dataset, config.seq_len)
        self.task = SpeechClassification()
        # (F,) each
        about, self._mean, self._deviation = self._about(self.data.classes, self.data.scale(), trained)
        self.sizes = {"features": self.data.features, **about}
        if self.data.rate is not None:  # at another rate features of as many bands are of other bands
            self.sizes["rate"] = self.data.rate

    def describe(self) -> dict[str, Any]:
        """Return the hash of the utterances, their number, features and classes, and what features are scaled by."""
        return {
            "content_key": self._content_key(),
            **{split: len(self.data.labels[split]) for split in SPLITS},
            "classes": list(self.data.classes),
            "feature_mean": self._mean.tolist(),  # (F,)
            "feature_deviation": self._deviation.tolist(),  # (F,)
        }

    def _everything(self, split: Split) -> dict[str, npt.NDArray[Any]]:
        data = self.data
        return {"frames": data.frames[split], "lengths": data.lengths[split], "labels": data.labels[split]}

    def _prepared(self, batch: Batch) -> Batch:
        """Return a batch as long as its longest utterance, each feature of mean 0 and standard deviation 1."""
        longest = int(batch["lengths"].max())
        return {**batch, "frames": (batch["frames"][:, :longest] - self._mean) / self._deviation}
