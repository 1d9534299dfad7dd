"""What all findings go by: the losses of whole seeds on a corpus, each tying at its best rate."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.reports.statistics import mean_half_width
from tying_env.table.file import TEST, VALIDATION, TyingTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Losses:
    """The trainings on one corpus.

    Attributes:
        corpus: its name.
        tyings: all of them. # (T, L)
        groups: their numbers of groups. # (T,)
        points: training steps. # (P,)
        validation: nats per byte. # (S, T, P)
        test: at the end. # (S, T)
        diverged: trainings that diverged; they have the worst loss of the others.
    """

    corpus: str
    tyings: Ints
    groups: Ints
    points: Ints
    validation: Floats
    test: Floats
    diverged: int

    def among(self, chosen: npt.NDArray[np.bool_]) -> "Losses":
        """Return the losses of some of the tyings alone, for which `chosen`, shape (T,), is true."""
        return replace(
            self,
            tyings=self.tyings[chosen],
            groups=self.groups[chosen],
            validation=self.validation[:, chosen],
            test=self.test[:, chosen],
        )


def losses_of(table: TyingTable, corpus: str) -> Losses:
    """Return the losses on a corpus.

    Raises:
        ValueError: the table has no such corpus, or fewer than two whole seeds of it, so that there are no intervals.
    """
    found = table.corpus(corpus)
    if len(found.whole_seeds) < 2:
        raise ValueError(
            f"the corpus {corpus!r} needs at least 2 seeds with every tying at every rate, has {len(found.whole_seeds)}"
        )
    losses = found.at_rate()  # (S, T, 3, P)
    finite = np.isfinite(losses)
    losses = np.where(finite, losses, losses[finite].max())
    groups = np.array([len(partition.leaders(tying)) for tying in table.tyings])
    return Losses(
        corpus,
        table.tyings,
        groups,
        table.points,
        losses[:, :, VALIDATION],
        losses[:, :, TEST, -1],
        int((~finite[:, :, TEST, -1]).sum()),
    )


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, and half the width of its 95% interval; NaN for a single value."""

    value: float
    half: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Mean":
        """Return the mean of one value for each seed."""
        array = np.asarray(values, dtype=np.float64)
        return cls(float(array.mean()), float(mean_half_width(array)) if len(array) > 1 else math.nan)
