"""The study of amounts of training text, whose outcome is the regime map, written before it is run."""

from tying_agents.studies.recipes import quick
from tying_agents.studies.study import Study

_AGENTS = {
    **{agent: agent for agent in ("conventional", "sandwich", "albert", "random", "dqn")},
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
            *("--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3", "--tuning-seeds", "2", "--seeds", "3"),
        ),
    )


REGIMES = Study(
    "Where does tying help: against how much training text, trained until validation no longer gets better?",
    "At each amount of text three paired seeds, each arm at its own best rate and the best of its dropouts, both by "
    "validation, best network of the run: an arm with fewer parameters that is better than conventional at little "
    "text and not at much would be regularisation. An arm that is best in the last tenth of its run (a star in the "
    "map) had not trained to its end, and says nothing of that.",
    # 234 runs of 6,144 steps at each of the smaller amounts, 156 of 12,288 at the largest: 34.6 at 26 ms a step, and
    # what is measured.
    36.0,
    train_bytes={
        # Epochs of 512 bytes a step: 105, 13 and 3.
        30_000: _compare(6_144, "0", "0.1", "0.2"),
        250_000: _compare(6_144, "0", "0.1", "0.2"),
        2_000_000: _compare(12_288, "0", "0.1"),
    },
)
