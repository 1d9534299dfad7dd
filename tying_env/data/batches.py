"""What a batch is, and what a stream of batches can do."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tying_env.seeding import numpy_stream

# An array whose first axis counts the examples, or several of them: in a dictionary, tuple, named tuple or dataclass,
# or in several such in each other.
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


def steps_per_epoch(batches: Batches) -> float | None:
    """Return how many batches of a stream go through its data once; None where they have no end, as drawn ones."""
    found: float | None = getattr(batches, "steps_per_epoch", None)
    return found


def parts_of(batch: Batch) -> dict[str, Any] | None:
    """Return the parts of a batch by name, or by number where they have none; None of a single array."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {each.name: getattr(batch, each.name) for each in dataclasses.fields(batch)}
    if isinstance(batch, (list, tuple)):
        return dict(zip(getattr(batch, "_fields", map(str, range(len(batch)))), batch, strict=True))
    return None


def mapped(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """Return a batch of the same kind whose arrays are changed; what is None, a part that is left out, stays so.

    Named tuples and dataclasses stay what they are; a mapping becomes a dictionary.
    """
    parts = parts_of(batch)
    if parts is None:
        return None if batch is None else change(batch)
    made = {name: mapped(part, change) for name, part in parts.items()}
    if isinstance(batch, Mapping):
        return made
    if not isinstance(batch, (list, tuple)):
        return dataclasses.replace(batch, **made)
    return type(batch)(**made) if hasattr(batch, "_fields") else type(batch)(made.values())


def arrays_of(batch: Batch) -> Iterator[Any]:
    """Yield the arrays of a batch, in order."""
    parts = parts_of(batch)
    if parts is not None:
        for part in parts.values():
            yield from arrays_of(part)
    elif batch is not None:
        yield batch


def count_examples(batch: Batch) -> int:
    """Return the number of examples: the length of the batch's first array."""
    return len(next(arrays_of(batch)))


def cut(examples: Batch, size: int) -> Iterator[Batch]:
    """Yield batches of up to `size` of the examples, in their order."""
    for start in range(0, count_examples(examples), size):
        yield take(examples, slice(start, start + size))


def take(examples: Batch, index: slice | npt.NDArray[np.integer[Any]]) -> Batch:
    """Return the examples at these places, a batch of the same kind."""
    return mapped(examples, lambda array: array[index])


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


def check_classes(name: str, classes: Sequence[str]) -> None:
    """Check that examples are of several classes.

    Args:
        name: of the data, for the message.
        classes: what they are of.

    Raises:
        ValueError: they are of one, or of none; the message names it.
    """
    if len(classes) < 2:
        what = f"one class, {classes[0]!r}," if classes else "no class"
        raise ValueError(f"{name} has {what} and nothing to tell apart: it needs examples of at least two classes")


def equal_parts(labels: npt.NDArray[np.int64], n: int, stream: str) -> npt.NDArray[np.int64]:
    """Return for each example one of n parts of one size, in each of which every class has its share, (N,).

    Args:
        labels: the class of each example, (N,).
        n: parts; the first has number 0.
        stream: name of the random order, always the same under one name.
    """
    order = numpy_stream(0, stream).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class after class, each in a random order
    parts = np.empty(len(labels), dtype=np.int64)
    parts[order] = np.arange(len(labels)) % n
    return parts
