"""Packs a trained network into a file of at most so many bytes."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tying_env.compression.budget import Choice, allocate, smallest
from tying_env.compression.coding import code_unit
from tying_env.compression.opening import opened
from tying_env.compression.packed_file import make_file
from tying_env.compression.rounding import BITS, Bits, restored, rounded
from tying_env.compression.units import Unit, units_of
from tying_env.config.network import is_own
from tying_env.export.described import ELSEWHERE
from tying_env.files import check_new, written_whole
from tying_env.primary.owned import constants, owned_parameters, persistent_buffers
from tying_env.primary.rows import as_rows, from_rows
from tying_env.runs.exported import is_absolute, without_folders
from tying_env.runs.saved_run import LoadedRun

# Parameter golf's (https://github.com/openai/parameter-golf), code aside.
MAX_BYTES = 16_000_000
# Bytes that the headers of two files of one network may differ by.
_HEADERS = 128


@dataclass(frozen=True)
class PackedUnit:
    """How a part of a network was packed.

    Attributes:
        unit: its matrices.
        bits: that it has in the file.
        choices: what was measured of other bits; only of `bits`, and without a rise, where these were given.
    """

    unit: Unit
    bits: Bits
    choices: dict[Bits, Choice]


@dataclass(frozen=True)
class Packed:
    """What `pack_network` did.

    Attributes:
        path: the file.
        size: its bytes.
        units: of the network.
    """

    path: Path
    size: int
    units: list[PackedUnit]


def pack_network(
    run: LoadedRun,
    path: str | Path,
    max_bytes: int = MAX_BYTES,
    *,
    bits: Bits | None = None,
    windows: int = 256,
    dataset: str | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Packed:
    """Write a network into a file of at most `max_bytes`; `load_packed` opens it.

    Every weight is in it once. Each group of tied layers, and each matrix outside the blocks, is rounded to the bits
    that the measured rise of the validation loss calls for (`tying_env.compression.budget`); vectors are stored in 16
    bits. Afterwards the network itself is as it was.

    Args:
        run: what `load_run` or `load_export` gave.
        path: the file; it must not exist yet.
        max_bytes: of the whole file.
        bits: 8, 6 or 4 for every unit, without measuring.
        windows: sequences (or images) of the validation split to measure rises on; 0 for all.
        dataset: data to measure on in place of its own.
        told: is told what is being measured.

    Raises:
        FileExistsError: the file exists.
        ValueError: it cannot be so small, and the message has the bytes that it takes; or a weight is not finite; or a
            number is out of range.
        ImportError: Brotli is not installed.
        OSError: the data cannot be had, or the file not be written; nothing is left of it then.
    """
    check_new(Path(path), "choose another file")
    _check_limit(max_bytes)
    return Coded(run, bits, windows=windows, dataset=dataset, told=told).write(path, max_bytes)


class TooFewBytesError(ValueError):
    """A network cannot be packed into so few bytes.

    Attributes:
        least: bytes of the smallest file possible, with the bits that were asked for.
    """

    def __init__(self, max_bytes: int, least: int, bits: Bits | None) -> None:
        asked = "the smallest file possible" if bits is None else f"a file in {bits} bits"
        super().__init__(f"max_bytes is {max_bytes:,}, and {asked} of this network takes {least:,}")
        self.least = least


class Coded:
    """A network coded in each number of bits, to be written into files of several sizes.

    What other bits cost is measured once, for the first file that leaves a choice.

    Args:
        run, bits, windows, dataset, told: as of `pack_network`.

    Raises:
        ValueError, ImportError: as `pack_network`.
    """

    def __init__(
        self,
        run: LoadedRun,
        bits: Bits | None = None,
        *,
        windows: int = 256,
        dataset: str | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        if bits is not None and bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
        if windows < 0:
            raise ValueError(f"windows must be at least 0 (0: the whole split), got {windows}")
        network, tied = run.saved.network, run.saved.tied
        for name, parameter in owned_parameters(network, tied):
            if not bool(parameter.isfinite().all()):
                raise ValueError(f"{name!r} has values that are not finite: such a network cannot be packed")
        self._run, self._bits = run, bits
        self._units = units_of(network, tied)
        tried = BITS if bits is None else (bits,)
        self._streams = [{each: code_unit(unit, each) for each in tried} for unit in self._units]
        self._plain = [{each: Choice(len(own), 0.0) for each, own in streams.items()} for streams in self._streams]
        self._measure = functools.partial(_measured, run, self._units, self._plain, windows, dataset, told)
        self._least = self._file(smallest(self._plain))

    @functools.cached_property
    def choices(self) -> list[dict[Bits, Choice]]:
        """What each unit costs in each of its bits."""
        return self._plain if self._bits is not None else self._measure()

    def write(self, path: str | Path, max_bytes: int = MAX_BYTES) -> Packed:
        """Write a file of at most `max_bytes`.

        Raises:
            FileExistsError, ValueError, OSError: as `pack_network`.
            TooFewBytesError: it cannot be so small; nothing has been measured for it.
        """
        path = Path(path)
        check_new(path, "choose another file")
        _check_limit(max_bytes)
        if len(self._least) > max_bytes:  # before anything is measured
            raise TooFewBytesError(max_bytes, len(self._least), self._bits)
        made, chosen = _fitted(self.choices, max_bytes, self._least, self._file)
        with _new_file(path) as unfinished:
            unfinished.write_bytes(made)
            model = self._run.config.model
            opened(unfinished, torch.device("cpu"), model if is_own(model) else None)
        parts = zip(self._units, chosen, self.choices, strict=True)
        return Packed(path, len(made), [PackedUnit(unit, bits, dict(own)) for unit, bits, own in parts])

    def _file(self, chosen: list[Bits]) -> bytes:
        parts = zip(self._units, self._streams, chosen, strict=True)
        return _file(self._run, [(unit, own[each]) for unit, own, each in parts])


def _check_limit(max_bytes: int) -> None:
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")


def _fitted(
    choices: list[dict[Bits, Choice]], max_bytes: int, least: bytes, file: Callable[[list[Bits]], bytes]
) -> tuple[bytes, list[Bits]]:
    """Return the file with the best choices that fits, and these; `least`, that with the smallest ones, fits."""
    chosen = smallest(choices)
    streams = sum(own[each].size for own, each in zip(choices, chosen, strict=True))
    # The header has the streams' lengths, and is compressed: of other choices it takes a few bytes more or less.
    spare = max_bytes - len(least) + _HEADERS
    while spare > 0:
        better = allocate(choices, streams + spare)
        if len(made := file(better)) <= max_bytes:
            return made, better
        spare -= len(made) - max_bytes
    return least, chosen


def _file(run: LoadedRun, units: list[tuple[Unit, bytes]]) -> bytes:
    saved = run.saved
    model = saved.network.model
    settings = without_folders(dataclasses.asdict(run.config))
    plain = {"compile_blocks": False, "checkpoint_blocks": False, "frozen_weights": "held", "cache_dir": None}
    data = {"dataset": ELSEWHERE if is_absolute(run.config.dataset) else run.config.dataset}
    about: dict[str, Any] = {
        "tying": saved.tying,
        "sources": saved.tied.sources(),
        "sizes": without_folders(dict(saved.sizes)),
        "config": settings | plain | data,
    }
    matrices = {matrix.name for unit, _ in units for matrix in unit.matrices}
    vectors = {name: p.detach() for name, p in owned_parameters(saved.network, saved.tied) if name not in matrices}
    # Of a model of transformers they follow from its settings.
    held = constants(model) if is_own(run.config.model) else {}
    return make_file(about, units, vectors, persistent_buffers(model), held)


def _measured(
    run: LoadedRun,
    units: list[Unit],
    sizes: list[dict[Bits, Choice]],
    windows: int,
    dataset: str | None,
    told: Callable[[str], None],
) -> list[dict[Bits, Choice]]:
    """Return what each unit costs in each of its bits, by the mean validation loss with that unit alone rounded."""
    workload = run.open_workload(dataset)
    device = next(run.model.parameters()).device

    def loss() -> float:
        return workload.evaluate(run.model, "validation", windows, device).mean_loss

    before = loss()
    found = []
    for number, (unit, own) in enumerate(zip(units, sizes, strict=True), start=1):
        told(f"{number} of {len(units)}: {unit.name}")
        measured = {}
        for bits, choice in own.items():
            with _rounded_to(unit, bits):
                measured[bits] = Choice(choice.size, loss() - before)
        found.append(measured)
    return found


@contextlib.contextmanager
def _rounded_to(unit: Unit, bits: Bits) -> Iterator[None]:
    """Have a unit compute with what a file would hold of it, for as long as this block lasts."""
    kept = [matrix.weight.clone() for matrix in unit.matrices]
    try:
        for matrix in unit.matrices:
            rows = restored(rounded(as_rows(matrix.weight, matrix.layout), bits))
            matrix.weight.copy_(from_rows(rows, tuple(matrix.weight.shape), matrix.layout))
        yield
    finally:
        for matrix, values in zip(unit.matrices, kept, strict=True):
            matrix.weight.copy_(values)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to that becomes `path`, in a folder that is made if need be."""
    os.makedirs(path.parent, exist_ok=True)
    with written_whole(path) as unfinished:
        yield unfinished
