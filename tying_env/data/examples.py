"""Streams of examples that can be resumed, and the augmentation of images.

Array legend: N examples in a split, B in a batch; images (B, C, H, W).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tying_env.data.batches import Batch, count_examples, take
from tying_env.seeding import capture_numpy, restore_numpy

# Changes a batch, drawing from the generator it is given.
Change = Callable[[Batch, np.random.Generator], Batch]


class RandomExamples:
    """Batches drawn uniformly and with replacement.

    Args:
        examples: arrays of N examples; only read. See `tying_env.data.batches.Batch`.
        batch_size: B.
        rng: this stream's own generator: nothing else may draw from it.
        change: applied to every batch with the same generator, for an augmentation.
    """

    def __init__(
        self, examples: Batch, batch_size: int, rng: np.random.Generator, change: Change | None = None
    ) -> None:
        self._examples = examples
        self._count = count_examples(examples)
        self._batch_size = batch_size
        self._rng = rng
        self._change = change

    def next_batch(self) -> Batch:
        """Return the next batch of B examples."""
        batch = take(self._examples, self._next_places())
        return batch if self._change is None else self._change(batch, self._rng)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, ready for JSON."""
        return {"rng": capture_numpy(self._rng), **self._position()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: it is not a state of this stream; nothing is changed then.
        """
        if not isinstance(state, Mapping) or set(state) != set(self.state_dict()):
            raise ValueError(f"the state must be a dictionary of {sorted(self.state_dict())}, got {state!r}")
        generator = copy.deepcopy(self._rng)
        restore_numpy(generator, state["rng"])
        self._go_to(state)
        self._rng.bit_generator.state = generator.bit_generator.state

    def _next_places(self) -> npt.NDArray[np.int64]:
        return self._rng.integers(self._count, size=self._batch_size)

    def _position(self) -> dict[str, Any]:
        return {}

    def _go_to(self, state: Mapping[str, Any]) -> None:
        """Check the entries of `_position`, then take them over."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = copy.copy(self)  # the examples are only read: copies share them
        memo[id(self)] = twin
        twin._rng = copy.deepcopy(self._rng, memo)
        return twin


class ShuffledExamples(RandomExamples):
    """Every epoch goes through all examples in a new order; a batch that reaches its end continues with the next.

    Arguments are those of `RandomExamples`. The order of an epoch follows from a number that is drawn at its start, so
    that the state stays small.
    """

    def __init__(
        self, examples: Batch, batch_size: int, rng: np.random.Generator, change: Change | None = None
    ) -> None:
        super().__init__(examples, batch_size, rng, change)
        self._begin_epoch(int(rng.integers(2**63)))

    @property
    def steps_per_epoch(self) -> float:
        """Batches that go through all examples once."""
        return self._count / self._batch_size

    def _begin_epoch(self, seed: int) -> None:
        self._epoch_seed = seed
        self._order = np.random.default_rng(seed).permutation(self._count)  # (N,)
        self._done = 0

    def _next_places(self) -> npt.NDArray[np.int64]:
        parts = []
        wanted = self._batch_size
        while wanted:
            if self._done == self._count:
                self._begin_epoch(int(self._rng.integers(2**63)))
            parts.append(self._order[self._done : self._done + wanted])
            self._done += len(parts[-1])
            wanted -= len(parts[-1])
        return np.concatenate(parts)

    def _position(self) -> dict[str, Any]:
        return {"examples": self._count, "epoch_seed": self._epoch_seed, "done": self._done}

    def _go_to(self, state: Mapping[str, Any]) -> None:
        if state["examples"] != self._count:
            raise ValueError(f"the state is of {state['examples']!r} examples, this stream has {self._count}")
        for key, most in (("epoch_seed", 2**63 - 1), ("done", self._count)):
            if type(state[key]) is not int or not 0 <= state[key] <= most:
                raise ValueError(f"the state's {key} must be a whole number from 0 to {most}, got {state[key]!r}")
        self._begin_epoch(state["epoch_seed"])
        self._done = state["done"]


def augment_images(batch: Batch, rng: np.random.Generator, flip: bool) -> Batch:
    """Shift each image by up to an eighth of its side, filling up with 0, and mirror every other one.

    The usual augmentation for small images (He et al., 2016, Sec. 4.2: 4 pixels of padding at 32 x 32, flips).

    Args:
        batch: `pixel_values` (B, C, H, W), whose mean is 0, and whatever else belongs to the images.
        rng: draws shifts and flips.
        flip: whether to mirror; a mirrored digit is no digit.
    """
    images = batch["pixel_values"]
    count, _, height, width = images.shape
    margins = height // 8, width // 8
    padded = np.pad(images, ((0, 0), (0, 0), *((margin, margin) for margin in margins)))
    rows, columns = (
        rng.integers(2 * margin + 1, size=(count, 1)) + np.arange(size)
        for margin, size in zip(margins, (height, width), strict=True)
    )  # (B, H), (B, W)
    if flip:
        columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    shifted = padded[np.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return {**batch, "pixel_values": np.ascontiguousarray(shifted.transpose(0, 3, 1, 2))}
