"""The file of a tying table: every tying of a few layers, trained, with its loss curves. NumPy only, no torch.

A `.npz` without pickles:

    version, settings, sha256            numbers and texts about the whole
    tyings        (T, L)                 all tyings of L layers, in lexicographic order
    points        (P,)                   training steps at which losses were measured
    parameters    (T,)                   trainable parameters
    memory        (T,)                   bytes of weights, gradients and optimizer state while training
    CORPUS/learning_rates   (R,)
    CORPUS/seeds            (S,)
    CORPUS/losses           (R, S, T, 3, P)   training, validation, test; nats per byte; NaN where not trained yet
    CORPUS/seconds          (R, S, T)         CPU seconds of the training
    CORPUS/processors       (R, S, T)         name of the processor, on which rounding depends; empty: not noted

`sha256` is over everything else, so a file that is damaged, or was changed by hand, is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.archives import read_arrays
from tying_env.files import naming, written_whole

VERSION = 1
PACKAGED = Path(__file__).parent / f"tying_table_v{VERSION}.npz"
TRAINING, VALIDATION, TEST = range(3)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CorpusTable:
    """All trainings on one corpus.

    Attributes:
        learning_rates: ascending. # (R,)
        seeds: of weights and batches. # (S,)
        losses: nats per byte; NaN where not trained yet, infinity where training diverged. # (R, S, T, 3, P)
        seconds: CPU seconds. # (R, S, T)
        processors: on which each was trained; empty where nobody noted it. # (R, S, T)
    """

    learning_rates: Floats
    seeds: Ints
    losses: Floats
    seconds: Floats
    processors: npt.NDArray[np.str_]

    @cached_property
    def whole_seeds(self) -> Ints:
        """The seeds with which every tying was trained at every rate: places in `seeds`."""
        return np.flatnonzero(~np.isnan(self.losses).any(axis=(0, 2, 3, 4)))

    @cached_property
    def best_rates(self) -> Ints:
        """Each tying's best rate by its mean validation loss at the end, over whole seeds: places in rates, shape (T,).

        Raises:
            ValueError: there is no whole seed.
        """
        if not len(self.whole_seeds):
            raise ValueError("no seed has every tying at every learning rate yet")
        last = self.losses[..., VALIDATION, -1][:, self.whole_seeds].mean(axis=1)  # (R, T)
        return np.asarray(last.argmin(axis=0), dtype=np.int64)

    def at_rate(self, learning_rate: float | None = None) -> Floats:
        """Return the losses of whole seeds, (S, T, 3, P), at one rate or (None) at each tying's best.

        Raises:
            ValueError: there is no such rate, or no whole seed.
        """
        losses: Floats = self.losses[:, self.whole_seeds]  # (R, S, T, 3, P)
        rates = self.best_rates
        if learning_rate is not None:
            places = np.flatnonzero(np.isclose(self.learning_rates, learning_rate, rtol=1e-9))
            if not len(places):
                known = ", ".join(f"{rate:g}" for rate in self.learning_rates)
                raise ValueError(f"learning_rate must be None or one of {known}, got {learning_rate!r}")
            rates = np.full_like(rates, places[0])
        return np.moveaxis(losses[rates, :, np.arange(losses.shape[2])], 0, 1)


@dataclass(frozen=True)
class TyingTable:
    """Every tying of L layers, trained.

    Attributes:
        settings: of the networks and their training, fields of EnvConfig, and how the table was made.
        tyings: in lexicographic order. # (T, L)
        points: training steps at which losses were measured, ascending. # (P,)
        parameters: trainable. # (T,)
        memory: bytes of weights, gradients and optimizer state while training. # (T,)
        corpora: name -> its trainings.
        sha256: of the file that it was read from; empty if it was not.
    """

    settings: Mapping[str, Any]
    tyings: Ints
    points: Ints
    parameters: Ints
    memory: Ints
    corpora: Mapping[str, CorpusTable]
    sha256: str = ""

    @property
    def n_layer(self) -> int:
        """L."""
        return int(self.tyings.shape[1])

    @cached_property
    def rows(self) -> dict[tuple[int, ...], int]:
        """Tying -> its row."""
        return {tuple(tying): row for row, tying in enumerate(self.tyings.tolist())}

    def corpus(self, name: str) -> CorpusTable:
        """Return the trainings on a corpus.

        Raises:
            ValueError: the table has none of that name.
        """
        if name not in self.corpora:
            raise ValueError(f"corpus must be one of {', '.join(map(repr, self.corpora))}, got {name!r}")
        return self.corpora[name]

    def sha256_of(self, name: str) -> str:
        """Return a digest of what a search of one corpus can see: other corpora, added later, do not change it.

        Raises:
            ValueError: the table has no corpus of that name.
        """
        corpus = self.corpus(name)
        seen = {field: getattr(corpus, field) for field in ("learning_rates", "seeds", "losses")}
        return _digest(seen | {field: getattr(self, field) for field in ("tyings", "points", "parameters", "memory")})

    def row(self, tying: npt.ArrayLike) -> int:
        """Return the row of a tying.

        Raises:
            TypeError, ValueError: it is not a tying of L layers in canonical form.
        """
        found = self.rows.get(tuple(partition.validate_action(tying, self.n_layer).tolist()))
        if found is None:
            raise ValueError(f"{np.asarray(tying).tolist()} is not a tying in canonical form: canonicalise it first")
        return found


def write_table(table: TyingTable, path: Path) -> None:
    """Write a table as a whole; a file that is there is replaced.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "version": np.array(VERSION),
        "settings": np.array(json.dumps(dict(table.settings), sort_keys=True)),
        "tyings": table.tyings.astype(np.int64),
        "points": table.points.astype(np.int64),
        "parameters": table.parameters.astype(np.int64),
        "memory": table.memory.astype(np.int64),
    }
    for name, corpus in table.corpora.items():
        arrays |= {f"{name}/{field}": getattr(corpus, field) for field in CorpusTable.__dataclass_fields__}
    arrays["sha256"] = np.array(_digest(arrays))
    with written_whole(path) as unfinished, open(unfinished, "wb") as file, naming(path):
        np.savez_compressed(file, allow_pickle=False, **arrays)


def open_table(path: Path | str | None = None) -> TyingTable:
    """Open a table, the package's own by default, after checking that it is whole and unchanged.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no table, is damaged, or of another version; the message says which.
    """
    if path is None and not PACKAGED.exists():
        raise FileNotFoundError(
            f"this package has no tying table, {PACKAGED.name}: `layer-tying tabulate` makes one; name its file"
        )
    return _opened(PACKAGED if path is None else Path(path))


@lru_cache(maxsize=4)
def _cached(path: Path, modified: int, size: int) -> TyingTable:
    return _read(path)


def _opened(path: Path) -> TyingTable:
    state = path.stat()  # a file that was written anew is read anew
    return _cached(path, state.st_mtime_ns, state.st_size)


def _read(path: Path) -> TyingTable:
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a tying table, or is damaged: {error}") from error
    if "version" not in arrays or arrays["version"].shape != () or arrays["version"].dtype.kind != "i":
        raise ValueError(f"{path} is not a tying table: it has no version")
    if (version := int(arrays["version"])) != VERSION:
        raise ValueError(f"{path} is a tying table of version {version}; this package reads version {VERSION}")
    expected = str(arrays.pop("sha256", ""))
    if (found := _digest(arrays)) != expected:
        raise ValueError(f"{path} is damaged or was changed: its sha256 is {found}, expected {expected or 'one'}")
    names = sorted({name.partition("/")[0] for name in arrays if "/" in name})
    wanted = [f"{name}/{field}" for name in names for field in CorpusTable.__dataclass_fields__]
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(
            f"{path} is of an earlier version: it has no {missing[0]!r}; layer-tying tabulate makes it anew"
        )
    corpora = {
        name: CorpusTable(**{field: arrays[f"{name}/{field}"] for field in CorpusTable.__dataclass_fields__})
        for name in names
    }
    for array in arrays.values():
        array.setflags(write=False)  # one table is shared by all who open it
    return TyingTable(
        json.loads(str(arrays["settings"])),
        arrays["tyings"],
        arrays["points"],
        arrays["parameters"],
        arrays["memory"],
        corpora,
        found,
    )


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
