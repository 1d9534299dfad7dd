"""When a network counts as collapsed: it has learned the frequencies, and nothing that depends on its input.

Every network learns frequencies first, and says nearly the same everywhere while it does. So a network is not called
collapsed before it has had twice as long again as it took to come near the frequencies: by then those that train well
had left them behind (docs/recipe.md has the numbers). One that never comes near them is collapsed when it has hardly
become better in as long.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# A validation perplexity up to this multiple of the frequencies' has come near them ...
NEAR = 1.1
# ... and one below this multiple has got beyond them.
BEYOND = 0.97
# A perplexity above this multiple of the best one before has hardly become better.
BETTER = 0.98
# Less than this share of the logits' mean square varies with position: the output hardly depends on the input.
HARDLY = 0.01
# Training steps before a network is judged, as a multiple of those it took to come near the frequencies, or to where it
# still is.
PATIENCE = 3


class Validation(NamedTuple):
    """What was measured on the validation split."""

    train_step: int
    perplexity: float
    input_dependence: float


def validations(records: Iterable[Mapping[str, Any]]) -> list[Validation]:
    """Return the measurements of one episode from its records, which repeat the last one until the next.

    One without input dependence, of an earlier version or a network for which it cannot be had, is left out.
    """
    found: list[Validation] = []
    for record in records:
        perplexity, dependence = record.get("validation_perplexity"), record.get("input_dependence")
        if perplexity is None or dependence is None or not 0 <= dependence <= 1:
            continue
        if not found or (perplexity, dependence) != found[-1][1:]:
            found.append(Validation(int(record["train_step"]), perplexity, dependence))
    return found


def collapsed_at(measured: Iterable[Validation], frequencies: float | None) -> int | None:
    """Return the training step at which a network was found collapsed; None if it is not, or is no longer.

    Args:
        measured: in order.
        frequencies: validation perplexity of the frequencies alone; None where that is not known.
    """
    if frequencies is None:
        return None
    near: int | None = None
    since: int | None = None
    waiting: deque[Validation] = deque()
    best = math.inf  # of what was measured in the first third of the steps so far
    for one in measured:
        while waiting and waiting[0].train_step * PATIENCE <= one.train_step:
            best = min(best, waiting.popleft().perplexity)
        if near is None and one.perplexity <= NEAR * frequencies:
            near = one.train_step
        if one.train_step:
            waiting.append(one)
        enough = near is not None and one.train_step >= PATIENCE * near
        judged = enough or one.perplexity > BETTER * best
        if judged and one.perplexity > BEYOND * frequencies and one.input_dependence < HARDLY:
            since = one.train_step if since is None else since
        else:
            since = None
    return since
