"""The study of amounts of training text, whose outcome is the regime map, written before it is run."""

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
            *("--tuning-seeds", "1", "--seeds", "3"),
        ),
    )


REGIMES = Study(
    "Where does tying help: against how much training text, trained until validation no longer gets better?",
    "At each amount of text three paired seeds, each arm at its own best rate and the best of its dropouts, both by "
    "validation, best network of the run: an arm with fewer parameters that is better than conventional at little "
    "text and not at much would be regularisation. An arm that is best in the last tenth of its run (a star in the "
    "map) had not trained to its end, and says nothing of that.",
    # 120, 80 and 40 runs at 26 ms a step: 2.7, 3.5 and 3.5 hours.
    9.7,
    train_bytes={
        # Epochs of 512 bytes a step: 52, 13 and 3. Where text is plenty dropout costs.
        30_000: _compare(3_072, "0", "0.1", "0.2"),
        250_000: _compare(6_144, "0", "0.1"),
        2_000_000: _compare(12_288, "0"),
    },
    regime_map=True,
)
