"""Signs that a controller has failed, found in the records of a run, each with a name.

    always ties                  all layers share one set of weights
    never ties                   no layer shares anything
    oscillates                   the tying goes to and fro
    explores at random to the end
    perplexity swings            whatever was trained, its perplexity jumps between decisions

They are descriptions: a controller that always ties may be right. What is judged is the end of a run, its last third,
since every learner begins at random.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.reports.chance import chance_events, compare_with_chance
from tying_env.reports.loading import Run

# The end that is judged: an epsilon that decays as the paper's (0.95 a decision) is at its floor there in any run of 70
# decisions, and what a controller does in a third of a run is no passing state.
END = 1 / 3
# Decisions at the end below which nothing is said of how they were made: of fewer, chance gives any pattern too often.
LEAST = 10
# A share of decisions that counts as nearly all: a controller that draws one decision of ten, as the paper's does to
# the end, reaches it where its own choice never changes.
NEARLY = 0.8
# To and fro: a quarter of the decisions change the tying, and three of four changes lead back to one that was in force
# before. A controller that explores in one decision of ten, and returns from each, changes in a fifth of them, and half
# of those changes lead back.
OFTEN, BACK = 0.25, 0.75
# Epsilon of the last decision: twice the paper's floor. Above it more than one decision in five is drawn, not chosen.
EXPLORING = 0.2
# A controller cannot be told from chance where neither the number of leaders nor who leads is improbable at this level
# (two-sided), and the tying changes at least so often, as a share of what uniformly random actions change.
LEVEL, CHANGES = 0.05, 0.75
# Median change of the perplexity from a decision to the next, as a factor less 1. On batches of eight sequences of 64
# tokens, at the end of trainings that went well, the batches alone make it 0.05 to 0.07.
SWING = 0.25

DOCS = "docs/reading.md"


class Signature(NamedTuple):
    """A sign of failure.

    Attributes:
        name: in a few words, always the same ones.
        found: what was found, with its numbers.
    """

    name: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: {self.found}"


def find_signatures(
    records: Sequence[Mapping[str, Any]], *, chooses: bool, kinds: Kinds | None = None
) -> list[Signature]:
    """Return the signs of failure in the decisions of one episode.

    Args:
        records: one for each decision, in order, with `tying`; and `perplexity` and `epsilon` where there are any.
        chooses: whether who ties is a controller that chooses, no fixed pattern, trace, or chance itself: those never
            change, or never settle, by design. The perplexity is judged whoever ties.
        kinds: of the units; None: all are alike.
    """
    end = records[len(records) - math.ceil(END * len(records)) :]
    found: list[Signature | None] = []
    if chooses and end and len(end[-1]["tying"]) > 1:
        tyings = np.array([record["tying"] for record in end])  # (decisions at the end, L)
        kinds = kinds or Kinds.alike(tyings.shape[1])
        exploring = _explores(tyings, end[-1].get("epsilon"), kinds)
        found += [_ties_all_or_nothing(tyings, kinds), exploring]
        if exploring is None:  # whoever draws at random returns by chance
            found.append(_oscillates(tyings))
    return [each for each in (*found, _swings(end)) if each is not None]


def signatures_of(run: Run) -> list[str]:
    """Return the names of the signs that a run has in its summary; none of a run of an earlier version."""
    notes = (run.summary or {}).get("notes") or []
    return [str(note).partition(":")[0] for note in notes]


def _ties_all_or_nothing(tyings: npt.NDArray[np.int64], kinds: Kinds) -> Signature | None:
    if len(tyings) < LEAST:
        return None
    n_units = tyings.shape[1]
    leaders = (tyings == np.arange(n_units)).sum(axis=1)
    for name, number, text in (
        ("always ties", len(kinds.members), "all layers shared one set of weights"),
        ("never ties", n_units, "no layer shared its weights"),
    ):
        share = float(np.mean(leaders == number))
        if leaders[-1] == number and share >= NEARLY:
            return Signature(name, f"{text} at the end, and in {share:.0%} of the last {len(tyings)} decisions")
    return None


def _oscillates(tyings: npt.NDArray[np.int64]) -> Signature | None:
    if len(tyings) < LEAST:
        return None
    seen = {tyings[0].tobytes()}
    changes = back = 0
    for before, after in itertools.pairwise(tyings):
        if not np.array_equal(before, after):
            changes += 1
            back += after.tobytes() in seen
        seen.add(after.tobytes())
    share = changes / (len(tyings) - 1)
    found = f"{changes} of the last {len(tyings) - 1} decisions changed the tying"
    if share >= OFTEN and back >= BACK * changes:
        return Signature("oscillates", f"{found}, {back} of them back to one that was in force shortly before")
    return Signature("oscillates", f"{found}: it has not settled") if share >= NEARLY else None


def _explores(tyings: npt.NDArray[np.int64], epsilon: float | None, kinds: Kinds) -> Signature | None:
    name = "explores at random to the end"
    if epsilon is not None and epsilon > EXPLORING:
        return Signature(
            name, f"epsilon was still {epsilon:.2f} at the last decision: the share that is drawn, not chosen"
        )
    n, n_units = tyings.shape
    if n < LEAST:
        return None
    leading = tyings == np.arange(n_units)  # (n, L)
    numbers = compare_with_chance(leading.sum(axis=1).tolist(), *kinds.sizes).p_value
    who = _chance_of_leaders(leading, kinds)
    by_chance = sum(chance_events(*kinds.sizes)) * (n - 1)
    changed = sum(sum(partition.events(before, after)) for before, after in itertools.pairwise(tyings))
    if min(numbers, who) < LEVEL or changed < CHANGES * by_chance:
        return None
    return Signature(
        name,
        f"the last {n} decisions cannot be told from uniformly random ones, neither in how many layers lead "
        f"(p = {numbers:.2f}) nor in which (p = {who:.2f}), and change as much",
    )


def _chance_of_leaders(leading: npt.NDArray[np.bool_], kinds: Kinds) -> float:
    """Return how probable a choice of leaders so far from chance is, if it is chance.

    Under uniformly random actions layer i leads with probability 1/(i + 1), counted within its kind, independently of
    others and of other decisions. The squares of the L - 1 standardised counts (one less for each kind) add up to about
    a chi-squared number with as many degrees of freedom, whose cube root is about normal (Wilson & Hilferty, 1931).
    """
    n, freedom = len(leading), len(kinds.open)
    p = 1 / kinds.choices[kinds.open]
    square = float((((leading[:, kinds.open].sum(axis=0) - n * p) ** 2) / (n * p * (1 - p))).sum())
    spread = 2 / (9 * freedom)
    z = ((square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return math.erfc(abs(z) / math.sqrt(2))  # two-sided: a sum far too small is no chance either


def _swings(end: Sequence[Mapping[str, Any]]) -> Signature | None:
    values = [float(record.get("perplexity") or math.nan) for record in end]
    pairs = [(a, b) for a, b in itertools.pairwise(values) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < LEAST - 1:
        return None
    median = math.exp(float(np.median([abs(math.log(b / a)) for a, b in pairs]))) - 1
    if median < SWING:
        return None
    return Signature(
        "perplexity swings",
        f"from one of the last {len(end)} decisions to the next it changed by a factor of {1 + median:.2f} (median), "
        "up or down: a lower learning rate, fewer changes or more reward batches make it steady",
    )
