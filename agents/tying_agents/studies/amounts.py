"""The study of amounts of training text, whose outcome is the regime map, written before it is run.

Seen before it was written down, one seed each on validation: of 8 KB conventional training has had enough after 800
steps, and dropout does not help; of 30 KB it has not after 1,536, where dropout 0.2 is 17 % behind none.
"""

from tying_agents.studies.recipes import CLIMB, quick
from tying_agents.studies.study import Study

_AGENTS = {
    **{agent: agent for agent in ("conventional", "albert", "random", "dqn")},
    "own first": "prior --rule own-first --groups 3",
}


def _compare(total_steps: int, *dropouts: str) -> tuple[tuple[str, ...], ...]:
    return (
        (
            *("compare", *quick(total_steps, total_steps // 16), "--agents", "--arms"),
            *(
                f"{name}, dropout {dropout}: --agent {agent} --dropout {dropout}"
                for name, agent in _AGENTS.items()
                for dropout in dropouts
            ),
            *(*CLIMB, "--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3"),
            *("--tuning-seeds", "1", "--seeds", "5"),
        ),
    )


REGIMES = Study(
    "Where does tying help: against how much training text, trained until validation no longer gets better?",
    "At each amount of text five paired seeds, each arm at its own best rate and the best of its dropouts, both by "
    "validation, best network of the run: an arm with fewer parameters that is better than conventional at little "
    "text and not at much would be regularisation. An arm that is best in the last tenth of its run (a star in the "
    "map) had not trained to its end, and says nothing of that.",
    # 135 runs of 1,536 steps and 135 of 3,072, at 34 ms a step.
    5.9,
    train_bytes={
        # Epochs of 512 bytes a step: 96, 52, 6 and 0.8. Where text is not scarce dropout costs.
        8_000: _compare(1_536, "0", "0.1", "0.2"),
        30_000: _compare(3_072, "0"),
        250_000: _compare(3_072, "0"),
        2_000_000: _compare(3_072, "0"),
    },
    regime_map=True,
)
