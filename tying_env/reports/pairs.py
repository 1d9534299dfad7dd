"""Paired differences between two arms each, and Holm's correction over all that are asked for together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tying_env.reports.arms import Arm, did_the_same
from tying_env.reports.metrics import Metric
from tying_env.reports.statistics import BOOTSTRAP_SEED, PairedDifference, holm, paired_difference

BETWEEN = ":"


@dataclass(frozen=True)
class Pair:
    """An arm against another.

    Attributes:
        arm: the arm.
        other: what it is compared with.
        difference: arm minus other, seed by seed; None without a common seed.
        same: whether both did the same in every seed that both have, and came to the same results.
        corrected_p: Holm's, over all pairs compared together; None where nothing is tested.
    """

    arm: Arm
    other: Arm
    difference: PairedDifference | None = None
    same: bool = False
    corrected_p: float | None = None

    @property
    def seeds(self) -> int:
        """Seeds that a test is over; 0 where there is nothing to test."""
        tested = self.difference is not None and not self.same and len(self.difference.seeds) > 1
        return len(self.difference.seeds) if tested and self.difference is not None else 0


def pair_of(arm: Arm, other: Arm, metric: Metric) -> Pair:
    """Compare an arm with another over the seeds that have a result of both; p is not corrected."""
    mine, theirs = arm.results(metric), other.results(metric)
    common = sorted(mine.keys() & theirs.keys())
    if arm is other or not common:
        return Pair(arm, other)
    found = paired_difference(mine, theirs, np.random.default_rng(BOOTSTRAP_SEED))
    return Pair(arm, other, found, did_the_same(arm, other, common))


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with Holm's correction over those that are tested.

    Of arms that did the same there is nothing to test; in Holm's family they would cost the others.
    """
    tested = [pair.difference.p_value for pair in pairs if pair.seeds and pair.difference]
    p_values = iter(holm(tested))
    return [replace(pair, corrected_p=next(p_values)) if pair.seeds else pair for pair in pairs]


def labels_of(names: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels that names of pairs, "arm:other" each, are about.

    Args:
        names: of the pairs.
        known: labels of the arms that there are.

    Raises:
        ValueError: a name is no two labels with a colon between them, a label is unknown, an arm is paired with itself,
            or a pair comes twice; the message names it.
    """
    found: list[tuple[str, str]] = []
    for name in names:
        parts = name.split(BETWEEN)
        ways = [(BETWEEN.join(parts[:i]).strip(), BETWEEN.join(parts[i:]).strip()) for i in range(1, len(parts))]
        if not ways:
            raise ValueError(f'a pair is "ARM{BETWEEN}OTHER", two labels with a colon between them, got {name!r}')
        arm, other = next((way for way in ways if set(way) <= set(known)), ways[0])  # a label may have colons itself
        if unknown := [label for label in (arm, other) if label not in known]:
            listed = ", ".join(map(repr, known))
            raise ValueError(f"there is no arm {unknown[0]!r} in the pair {name!r}; the labels are {listed}")
        if arm == other:
            raise ValueError(f"the pair {name!r} is an arm and itself")
        if (arm, other) in found or (other, arm) in found:
            raise ValueError(f"the pair {name!r} is asked for twice")
        found.append((arm, other))
    return found


def pairs_named(names: Sequence[str], arms: Sequence[Arm], metric: Metric) -> list[Pair]:
    """Compare the arms named, "arm:other" each, with one correction over all of them.

    Raises:
        ValueError: as `labels_of`.
    """
    by_label = {arm.label: arm for arm in arms}
    labels = labels_of(names, list(by_label))
    return corrected([pair_of(by_label[arm], by_label[other], metric) for arm, other in labels])
