"""The study of amounts of training text, whose outcome is the regime map, written before it is run.

All runs are of one length, so that the amounts can be compared: 98, 26, 3 and 0.4 epochs. Seen before it was written
down: `final-scarce-recipes`, in which conventional training and the rule want dropout at 8 KB, and at the best of it
are still getting better at the end of the run; and one seed at 30 KB, where dropout 0.2 was 17 % behind none.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study

# Agents whose tying stays, and those whose tying changes: that is noise enough, dropout or not.
_STAY = {"conventional": "conventional", "own first": "prior --rule own-first --groups 3", "albert": "albert"}
_CHANGE = {"random": "random", "dqn": "dqn"}


def _compare(stay: tuple[str, ...], change: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return (
        (
            *("compare", *quick(1_536, 96), "--agents", "--arms"),
            *(
                f"{name}, dropout {dropout}: --agent {agent} --dropout {dropout}"
                for agents, dropouts in ((_STAY, stay), (_CHANGE, change))
                for name, agent in agents.items()
                for dropout in dropouts
            ),
            *(*WIDE, "--tuning-seeds", "1", "--seeds", "5"),
        ),
    )


REGIMES = Study(
    "Where does tying help: against how much training text?",
    "At each amount of text five paired seeds, each arm at its own best rate and the best of its dropouts, both by "
    "validation, best network of the run: an arm with fewer parameters that is ahead of conventional training by more "
    "at little text than at much, intervals apart, is regularisation. (Five seeds give no p below 0.06; `final-scarce` "
    "has twelve of the rule at 8 KB, `final-no-worse` a hundred at 12 MB.) An arm that is best in the last tenth of "
    "its run (a star in the map) might have become better still: what is compared there is equal training.",
    # 31 arms, five or six rates and five seeds each, at 35 to 50 ms a step.
    5.5,
    train_bytes={
        8_000: _compare(("0", "0.1", "0.2"), ("0", "0.1")),
        30_000: _compare(("0", "0.1"), ("0",)),
        250_000: _compare(("0",), ("0",)),
        2_000_000: _compare(("0",), ("0",)),
    },
    regime_map=True,
)
