"""What is tried for the smallest network: fixed tyings, from few parameters to many."""

import dataclasses
from collections.abc import Sequence

from tying_agents.many.plan import ArmSpec
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig, with_agent
from tying_agents.settings import PriorConfig

CONVENTIONAL = "conventional"


def conventional_arm(base: RunConfig) -> ArmSpec:
    """Return the arm that others are held against."""
    return _arm(CONVENTIONAL, with_agent(base, CONVENTIONAL))


def candidate_arm(base: RunConfig, groups: int) -> ArmSpec:
    """Return the arm of so many groups: the first layer alone, as it deserves to be, and equal runs of the others.

    docs/results/first_layer.md says why these, and how little further groups have added.
    """
    if groups == 1:
        return _arm("1 group", with_agent(base, "albert"))
    config = with_agent(base, "prior", PriorConfig(groups=groups, rule="own-first"))
    return _arm(f"{groups} groups", config)


def groups_to_try(n_layer: int, asked: Sequence[int]) -> list[int]:
    """Return the numbers of groups to try, in ascending order.

    Args:
        n_layer: L.
        asked: what the user wants; empty for 1, 2, 3, 4, 6, 8, 12, ... below L.

    Raises:
        ValueError: a number is not from 1 to L - 1, or none is left to try.
    """
    for groups in asked:
        if not 1 <= groups < n_layer:
            raise ValueError(f"groups must be from 1 to {n_layer - 1}, fewer than the {n_layer} layers, got {groups}")
    usual = [1, *sorted({size for power in range(12) for size in (2**power, 3 * 2**power) if 1 < size < n_layer})]
    found = sorted(set(asked or usual))
    if n_layer < 2:
        raise ValueError(f"a network of {n_layer} layer has none to tie")
    return found


def _arm(label: str, config: RunConfig) -> ArmSpec:
    find_agent(config.agent)
    made = dataclasses.replace(config, measure_test=True)
    return ArmSpec(label, lambda runs, seed: made)
