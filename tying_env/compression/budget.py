"""Which bits each part of a network gets, so that the file stays within its bytes and predictions suffer least."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tying_env.compression.rounding import Bits


class Choice(NamedTuple):
    """What a unit costs in so many bits.

    Attributes:
        size: bytes of its stream, coded.
        rise: of the validation loss in nats per prediction, with every other unit as it was trained.
    """

    size: int
    rise: float


def smallest(choices: Sequence[Mapping[Bits, Choice]]) -> list[Bits]:
    """Return for each unit the bits with which it takes the fewest bytes."""
    return [min(unit, key=lambda bits: unit[bits].size) for unit in choices]


def allocate(choices: Sequence[Mapping[Bits, Choice]], budget: int) -> list[Bits]:
    """Return bits for each unit, U of them, whose sizes add up to no more than the budget.

    From the smallest choices on, bytes go step by step to the unit and the bits at which the measured rise falls most
    per byte, for as long as any step fits: the greedy answer to a knapsack with several choices an item. Rises are
    taken to add up. More bits are never taken to do harm, where the measurement says so by chance: bytes that are left
    go to them.

    Args:
        choices: for each unit what each of its bits costs.
        budget: bytes.

    Raises:
        ValueError: not even the smallest choices fit.
    """
    chosen = smallest(choices)
    left = budget - sum(unit[bits].size for unit, bits in zip(choices, chosen, strict=True))
    if left < 0:
        raise ValueError(f"the smallest choices take {budget - left:,} bytes, more than {budget:,}")
    while steps := [
        (max(0.0, now.rise - then.rise) / max(1, then.size - now.size), number, bits)
        for number, unit in enumerate(choices)
        for bits, then in unit.items()
        if bits > chosen[number] and then.size - (now := unit[chosen[number]]).size <= left
    ]:
        _, number, bits = max(steps)
        left -= choices[number][bits].size - choices[number][chosen[number]].size
        chosen[number] = bits
    return chosen
