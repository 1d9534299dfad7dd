"""What a batch is, and what a stream of batches can do."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tying_env.seeding import numpy_stream

# An array whose first axis counts the examples, or several of them: by name or in order.
Batch = Any


class Batches(Protocol):
    """A stream of batches whose position can be saved."""

    def next_batch(self) -> Batch:
        """Return the next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position, ready for JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that `state_dict` gave."""
        ...


def count_examples(batch: Batch) -> int:
    """Return the number of examples: the length of the batch's first array."""
    if isinstance(batch, Mapping):
        return count_examples(next(iter(batch.values())))
    return count_examples(batch[0]) if isinstance(batch, (list, tuple)) else len(batch)


def cut(examples: Batch, size: int) -> Iterator[Batch]:
    """Yield batches of up to `size` of the examples, in their order."""
    for start in range(0, count_examples(examples), size):
        yield take(examples, slice(start, start + size))


def take(examples: Batch, index: slice | npt.NDArray[np.integer[Any]]) -> Batch:
    """Return the examples at these places, a batch of the same kind."""
    if isinstance(examples, Mapping):
        return {name: take(part, index) for name, part in examples.items()}
    if isinstance(examples, (list, tuple)):
        return type(examples)(take(part, index) for part in examples)
    return examples[index]


def sample(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return up to `most` of `count` places, always the same; 0 for all of them, in order.

    They are the first of a random order. (Evenly spaced ones would be all of one class where the classes take turns.)

    Raises:
        ValueError: `most` is negative.
    """
    if most < 0:
        raise ValueError(f"the number of examples must be at least 0 (0: all), got {most}")
    chosen = min(most, count) or count
    return (
        np.arange(count) if chosen == count else numpy_stream(0, "examples to measure on").permutation(count)[:chosen]
    )
