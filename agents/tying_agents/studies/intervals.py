"""The study of intervals: does it help to choose how many training steps a decision has?"""

from tying_agents.studies.recipes import LOWER, quick
from tying_agents.studies.study import Study

_CHOICES = (1, 5, 15, 50)
_OTHERS = ("dqn, 5", "dqn, 15", "dqn, 50", "dqn, doubling", "random, chosen", "dqn, chosen, shuffled")


def _arms() -> tuple[str, ...]:
    """Return the arms.

    Intervals that stay are a choice among one: so all arms have the same frozen start, k steps, and the same rewards.
    """
    arms = []
    for agent in ("dqn", "random"):
        choosing = f"--agent {agent} --wrappers choose-interval"
        arms += [f"{agent}, {steps}: {choosing} --intervals {steps}" for steps in (5, 15, 50)]
        arms.append(f"{agent}, chosen: {choosing} --intervals {' '.join(map(str, _CHOICES))}")
        arms.append(f"{agent}, doubling: --agent {agent} --wrappers interval-doubling --longest-interval 50")
    # The control that learns from rewards which say nothing of tying or interval.
    shuffled = f"--agent dqn --wrappers choose-interval shuffled --intervals {' '.join(map(str, _CHOICES))}"
    return (*arms, f"dqn, chosen, shuffled: {shuffled}")


INTERVALS = Study(
    "Does it help that the agent chooses the training steps after each decision (1, 5, 15 or 50), with as many of them "
    "in all: against 5, 15 or 50 throughout, against chance that chooses, and against 1, 2, 4, ..., 50?",
    "Paired differences of the test perplexity in percent over ten seeds, each arm at its own best rate; p < 0.05 "
    "after Holm's correction. A learned schedule helps if 'dqn, chosen' is better than the best of dqn's intervals "
    "that stay, than 'random, chosen', and than 'dqn, chosen, shuffled'. Better than 5 and 15 alone is no answer: "
    "changes cost, whoever makes them (docs/results/cost_of_change.md), and 50 has the fewest. If 'dqn, doubling' "
    "does as well, a schedule was needed, and no learning. Else it does not help in so many decisions.",
    1.7,
    (
        (
            *("compare", *quick(k=5), "--agents", "--arms", *_arms()),
            *("--pairs", *(f"dqn, chosen:{other}" for other in _OTHERS)),
            *(*LOWER, "--tuning-seeds", "2", "--seeds", "10"),
        ),
    ),
)
