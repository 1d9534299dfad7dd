"""The patterns of Takase & Kiyono for any number of groups, against the first layer alone. Written before it is run.

Their paper has cycle, cycle (rev) and sequence with half as many layers as the network is deep. Here they have 2, 3, 5
and 6 groups of twelve layers, which 5 does not divide; the rule own-first, which the study `first-layer` found best,
has as many.
"""

import itertools

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study

_AGENTS = ("cycle", "cycle-rev", "sequence", "own first")
_GROUPS = (2, 3, 5, 6)

PATTERNS = Study(
    "With as many weights, which order is best: gone through again and again (cycle), back at the end (cycle-rev), "
    "each several times on end (sequence), or the first layer alone and equal runs behind it?",
    "Paired differences in percent of the test perplexity between the patterns at each number of groups, over ten "
    "seeds, each arm at its own best rate of two tuning seeds, with 95% intervals. A pattern is better than another if "
    "the interval does not contain 0 at three of the four numbers of groups, with the same sign. Against conventional "
    "training p < 0.05 after Holm's correction, which ten seeds can give for sixteen arms (the least is 0.031).",
    1.1,
    (
        (
            *("compare", *quick(), "--agents", "--arms", "conventional: --agent conventional"),
            *(
                f"{agent}, {groups} groups: --agent {agent} --groups {groups}"
                for agent in ("cycle", "cycle-rev", "sequence")
                for groups in _GROUPS
            ),
            *(f"own first, {groups} groups: --agent prior --rule own-first --groups {groups}" for groups in _GROUPS),
            *("--reference", "conventional", "--pairs"),
            *(
                f"{one}, {groups} groups:{other}, {groups} groups"
                for groups in _GROUPS
                for one, other in itertools.combinations(_AGENTS, 2)
            ),
            *(*WIDE, "--tuning-seeds", "2", "--seeds", "10"),
        ),
    ),
)
