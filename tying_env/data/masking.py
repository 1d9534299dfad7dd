"""Masked language modelling (Devlin et al., 2019): which tokens are hidden, and what is shown instead.

Of every window 15 % of the tokens, rounded, are to be predicted: as many in each, so that all windows count alike. In
their place the network sees the mask token (80 %), a random token (10 %), or the token itself (10 %).

Array legend: B windows, T tokens in a window, M of them to be predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.data.batches import Batches, steps_per_epoch
from tying_env.seeding import capture_numpy, restore_numpy

SHARE, MASKED, RANDOM = 0.15, 0.8, 0.1

MaskedBatch = dict[str, npt.NDArray[np.int64]]


def mask_tokens(windows: npt.NDArray[np.integer[Any]], vocab_size: int, rng: np.random.Generator) -> MaskedBatch:
    """Return windows with tokens hidden, and what they were.

    Args:
        windows: token ids below `vocab_size`. # (B, T)
        vocab_size: V of the tokenizer; the mask token is V itself, one more than the tokenizer has.
        rng: draws places and replacements.

    Returns:
        `input_ids` (B, T), what the network sees; `positions` (B, M), ascending; `targets` (B, M), the tokens there.
    """
    hidden = max(1, round(SHARE * windows.shape[1]))
    positions = np.sort(np.argsort(rng.random(windows.shape), axis=1)[:, :hidden], axis=1)  # (B, M)
    targets = np.take_along_axis(windows, positions, axis=1).astype(np.int64)  # (B, M)
    fate, random = rng.random(positions.shape), rng.integers(vocab_size, size=positions.shape)  # (B, M)
    shown = np.where(fate < MASKED, vocab_size, np.where(fate < MASKED + RANDOM, random, targets))  # (B, M)
    input_ids = windows.astype(np.int64)
    np.put_along_axis(input_ids, positions, shown, axis=1)
    return {"input_ids": input_ids, "positions": positions, "targets": targets}


class MaskedWindows:
    """Masks the windows of another stream.

    Args:
        windows: batches of windows. # (B, T)
        vocab_size: as for `mask_tokens`.
        rng: this stream's own generator: nothing else may draw from it.
    """

    def __init__(self, windows: Batches, vocab_size: int, rng: np.random.Generator) -> None:
        self._windows = windows
        self._vocab_size = vocab_size
        self._rng = rng

    @property
    def steps_per_epoch(self) -> float | None:
        """Batches that go through the windows once; None where they have no end."""
        return steps_per_epoch(self._windows)

    def next_batch(self) -> MaskedBatch:
        """Return the next batch, as `mask_tokens` does."""
        return mask_tokens(self._windows.next_batch(), self._vocab_size, self._rng)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, ready for JSON."""
        return {"windows": self._windows.state_dict(), "rng": capture_numpy(self._rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: it is not a state of this stream; nothing is changed then.
        """
        if not isinstance(state, Mapping) or set(state) != {"windows", "rng"}:
            raise ValueError(f"the state must be a dictionary of 'windows' and 'rng', got {state!r}")
        generator = copy.deepcopy(self._rng)
        restore_numpy(generator, state["rng"])
        self._windows.load_state_dict(state["windows"])  # checks, then changes
        self._rng.bit_generator.state = generator.bit_generator.state
