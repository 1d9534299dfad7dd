"""What does a follower lose that takes its leader's attention probabilities? The study, written before it is run.

Plain tying costs quality and saves memory. Reused attention takes queries, keys and scores from the followers, too: it
can be had for the arithmetic that it saves, or not. The patterns differ in how far a follower is from its leader: next
to it (contiguous 3: four in a run), anywhere in the middle (sandwich: ten layers on one), in all of the network
(albert: one set of probabilities for twelve layers).
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study

_PATTERNS = ("sandwich", "contiguous 3", "albert")


def _arms() -> tuple[str, ...]:
    found = ["conventional: --agent conventional"]
    for pattern in _PATTERNS:
        name, _, groups = pattern.partition(" ")
        agent = f"--agent {name}" + (f" --groups {groups}" if groups else "")
        found += [f"{pattern}: {agent}", f"{pattern}, reused: {agent} --attention reused"]
    return tuple(found)


REUSED = Study(
    "What does it cost that followers take their leader's attention probabilities and compute values and feed-forward "
    "alone: with a leader next to them (contiguous 3), with one for the ten layers in the middle (sandwich), with one "
    "for all (albert)?",
    "Paired differences in percent of the test perplexity between a pattern and the same with attention reused, over "
    "ten seeds, each arm at its own best rate (three tuning seeds), p < 0.05 after Holm's correction over the "
    "three patterns: a cost, or a gain, where the interval does not contain 0; else less than the interval's width. By "
    "the papers the cost is small where leaders are near (contiguous 3) and grows with the distance (albert). It is "
    "worth its while only where the same perplexity comes in less time: tokens a second by `layer-tying benchmark "
    "reuse`, at the length of these sequences and at long ones.",
    0.6,
    (
        (
            *("compare", *quick(), "--agents", "--arms", *_arms()),
            *("--pairs", *(f"{pattern}, reused:{pattern}" for pattern in _PATTERNS)),
            *(*WIDE, "--tuning-seeds", "3", "--seeds", "10"),
        ),
    ),
)
