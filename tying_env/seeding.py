"""Named random streams: each consumer of randomness has its own, so that none disturbs another.

A stream depends on the seed and its name alone. An arm that draws more reward batches than another still sees the
same training batches, and equal seeds give equal bits whatever else runs in the process.
"""

import contextlib
import random
import threading
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

# torch's generator is one for all threads: who borrows it keeps the others out.
_BORROWING = threading.RLock()


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """Return the NumPy generator of the stream `name` under `seed`."""
    return np.random.default_rng(_sequence(seed, name))


def torch_stream(seed: int, name: str, device: "str | torch.device" = "cpu") -> "torch.Generator":
    """Return the torch generator of the stream `name` under `seed`, for tensors on `device`."""
    import torch

    generator = torch.Generator(device)
    generator.manual_seed(int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> 1))
    return generator


@contextlib.contextmanager
def torch_randomness_from(generator: "torch.Generator") -> Iterator[None]:
    """Let torch code that only knows the global generator draw from `generator` instead.

    Dropout and the weight initialisation of transformers take no generator. Inside this context they continue the
    given stream; afterwards the stream has moved on and the global generator of its device is as it was.
    """
    import torch

    on_cuda = generator.device.type == "cuda"

    def get_state() -> torch.Tensor:
        return torch.cuda.get_rng_state(generator.device) if on_cuda else torch.get_rng_state()

    def set_state(state: torch.Tensor) -> None:
        if on_cuda:
            torch.cuda.set_rng_state(state, generator.device)
        else:
            torch.set_rng_state(state)

    with _BORROWING:
        outside = get_state()
        set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(get_state())
            set_state(outside)


class GlobalStreams:
    """Streams for code that draws from the generators that all code in a process shares, such as a user's network.

    Those are Python's `random`, `numpy.random` and torch's on the CPU. In several processes they are alike: what one
    drops, all drop.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self._python = random.Random(int(_sequence(seed, "python").generate_state(1)[0])).getstate()
        self._numpy = np.random.RandomState(_sequence(seed, "numpy").generate_state(4)).get_state(legacy=False)
        self._torch = torch_stream(seed, "torch")

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let the shared generators continue these streams; afterwards they are as they were."""
        with torch_randomness_from(self._torch):
            outside = random.getstate(), np.random.get_state(legacy=False)
            random.setstate(self._python)
            np.random.set_state(self._numpy)
            try:
                yield
            finally:
                self._python, self._numpy = random.getstate(), np.random.get_state(legacy=False)
                random.setstate(outside[0])
                np.random.set_state(outside[1])

    def state_dict(self) -> dict[str, Any]:
        """Return where the streams are, ready for JSON."""
        version, words, gauss = self._python
        numpy = self._numpy | {"state": {name: np.asarray(v).tolist() for name, v in self._numpy["state"].items()}}
        torch = self._torch.get_state().numpy().tobytes().hex()
        return {"python": [version, list(words), gauss], "numpy": numpy, "torch": torch}

    def check(self, state: Any) -> "GlobalStreams":
        """Return streams where `state` was taken; these stay where they are.

        Raises:
            ValueError: it is no state that `state_dict` gave.
        """
        import torch

        found = GlobalStreams(0)
        try:
            version, words, gauss = state["python"]
            python, numpy = random.Random(0), np.random.RandomState(0)
            python.setstate((version, tuple(words), gauss))
            numpy.set_state(state["numpy"])
            found._python, found._numpy = python.getstate(), numpy.get_state(legacy=False)
            found._torch.set_state(torch.frombuffer(bytearray.fromhex(state["torch"]), dtype=torch.uint8))
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ValueError(f"not a state of the streams of Python, NumPy and torch: {error!r:.200}") from error
        return found


@contextlib.contextmanager
def all_randomness_from(generator: "torch.Generator") -> Iterator[None]:
    """Let every generator that code shares draw from `generator`, or from its seed; afterwards they are as they were.

    For what happens once, such as making a network: Python's and NumPy's streams begin at the generator's seed.
    """
    with GlobalStreams(generator.initial_seed()).lent(), torch_randomness_from(generator):
        yield


def stream_of(rank: int, size: int, generator: "torch.Generator") -> "torch.Generator":
    """Return what process `rank` of `size` draws from, where `generator` is in the same state in all of them.

    A process alone draws from the generator itself. Several move it on alike, by one number, and each begins a stream
    of its own from that: so the generator's state says all, whatever the number of processes.
    """
    import torch

    if size == 1:
        return generator
    drawn = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    own = torch.Generator(generator.device)
    own.manual_seed(drawn + rank)
    return own


def capture_numpy(generator: np.random.Generator) -> dict[str, Any]:
    """Return the state of a NumPy generator as plain numbers and strings, ready for JSON."""
    return dict(generator.bit_generator.state)


def restore_numpy(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Set a NumPy generator to a state that `capture_numpy` gave.

    Raises:
        ValueError: the state does not fit this kind of generator.
    """
    try:
        generator.bit_generator.state = state
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the state of a {type(generator.bit_generator).__name__} generator: {state!r}") from error


def restored_torch(like: "torch.Generator", state: "torch.Tensor") -> "torch.Generator":
    """Return a generator for the device of `like`, in a state that its `get_state` gave.

    Raises:
        ValueError: the state does not fit this kind of generator.
    """
    import torch

    generator = torch.Generator(like.device)
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"not the state of a torch generator for {like.device}: {error}") from error
    return generator


def check_seed(seed: object) -> int:
    """Return `seed` as an int.

    Raises:
        ValueError: it is not a whole number of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed!r}")
    return int(seed)


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    # crc32 instead of hash(): Python salts the hash of a string in every process.
    return np.random.SeedSequence([check_seed(seed), zlib.crc32(name.encode())])
