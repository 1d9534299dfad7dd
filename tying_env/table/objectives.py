"""What a controller is to look for in the tying table. No torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tying_env.table.file import TEST, VALIDATION, TyingTable

Objective = Literal["perplexity", "priced", "limited"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What every row of a table is worth under an objective; lower is better.

    Attributes:
        seen: what a training with one seed shows, on validation; all finite. # (S, T, P)
        true: the mean over seeds, on test, after the whole training; infinity above a limit. # (T,)
        best: the lowest of `true`.
    """

    seen: Floats
    true: Floats
    best: float


def scores(
    table: TyingTable,
    corpus: str,
    objective: Objective,
    learning_rate: float | None = None,
    price: float = 1.0,
    max_parameters: int | None = None,
) -> Scores:
    """Return what rows are worth.

    - "perplexity": the perplexity per byte.
    - "priced": perplexity plus `price` times the parameters, as a share of conventional training's.
    - "limited": perplexity of tyings with at most `max_parameters`. A tying above the limit shows the worst
      perplexity of the table plus the share by which it is above, so that a controller finds the way back.

    A training that diverged shows the worst finite perplexity of the table. `true` is exp of the mean test loss over
    seeds.

    Args:
        table: the table.
        corpus: one of its corpora.
        objective: see above.
        learning_rate: of all tyings; None: each at its best by validation.
        price: of "priced".
        max_parameters: of "limited".

    Raises:
        ValueError: one of them is not offered, or no seed of the corpus is whole; the message says which.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(map(repr, OBJECTIVES))}, got {objective!r}")
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < math.inf:
        raise ValueError(f"price must be a finite number of at least 0, got {price!r}")
    if (objective == "limited") != (max_parameters is not None):
        raise ValueError(f"max_parameters goes with objective='limited', got {max_parameters!r} with {objective!r}")
    losses = table.corpus(corpus).at_rate(learning_rate)  # (S, T, 3, P)
    seen = np.exp(losses[:, :, VALIDATION])
    worst = seen[np.isfinite(seen)].max()
    seen = np.where(np.isfinite(seen), seen, worst)
    true = np.exp(losses[:, :, TEST, -1].mean(axis=0))
    if objective == "priced":
        cost = price * table.parameters / table.parameters.max()  # (T,)
        seen, true = seen + cost[:, None], true + cost
    if max_parameters is not None:
        least = int(table.parameters.min())
        if isinstance(max_parameters, bool) or not isinstance(max_parameters, (int, np.integer)):
            raise ValueError(f"max_parameters must be a whole number, got {max_parameters!r}")
        if max_parameters < least:
            raise ValueError(f"max_parameters must be at least {least}, all layers tied; got {max_parameters}")
        above = table.parameters > max_parameters
        excess = table.parameters / max_parameters - 1.0
        seen = np.where(above[:, None], worst + excess[:, None], seen)
        true = np.where(above, math.inf, true)
    return Scores(seen, true, float(true.min()))
