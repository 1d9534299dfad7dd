"""Who stands on the leaderboard, with which settings. They are fixed here, before it is made. No torch.

Nothing of them may be chosen by how it does on another corpus than `CHOSEN_ON`, nor by searches of the seeds that the
leaderboard has.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from tying_agents.contest.arms import ContestArm, arm_of
from tying_agents.registry import find_agent
from tying_agents.settings import (
    ChangeConfig,
    DQNConfig,
    HalvingConfig,
    PriorConfig,
    RandomRedrawnConfig,
    ThompsonConfig,
    TreeConfig,
)

CHOSEN_ON = "sotu"

Kind = Literal["learning", "of Stable-Baselines3", "searching", "not learning"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RANDOM = "random"


@dataclass(frozen=True)
class Entry:
    """An agent of the leaderboard.

    Attributes:
        name: in the table.
        kind: under which it is drawn.
        agent: in the registry, or an import string.
        settings: of the agent; None for its defaults.
        fidelities: whether its actions say how long to train.
    """

    name: str
    kind: Kind
    agent: str
    settings: Any = None
    fidelities: bool = False

    def arm(self) -> ContestArm:
        """Return it as an arm.

        Raises:
            ValueError, OSError, ImportError, TypeError, tying_env.plugins.ForeignCodeError: there is no such agent.
        """
        found = arm_of(self.agent, self.settings)
        return ContestArm(self.name, self.agent, found.settings, self.fidelities)


def _defaults(kind: Kind, *names: str) -> tuple[Entry, ...]:
    return tuple(Entry(name, kind, name) for name in names)


# What groups there are by default is what chance gives, two of six layers: too few to search. And a run's default of a
# tenth of its training steps for trials, and none after two thirds, is for networks that train on: on the table nothing
# is lost by looking. Of 3, 4 and 6 groups, half or nine tenths of the trainings, and 8 to 64 candidates these did best
# in 24 searches on `CHOSEN_ON`, seeds from 10,000 on; differences of some hundredths of regret were noise.
_LOOKING: dict[str, Any] = {"groups": 4, "share": 0.5, "until": 1.0, "patience": 1}
_HALVING = HalvingConfig(candidates=32, share=0.9, groups=4)

# All others at their defaults; and the paper's DQN as a bandit, as in the positive control: on the table, no action
# changes what the next one is worth.
ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *_defaults("learning", "dqn"),
        Entry("dqn-bandit", "learning", "dqn", DQNConfig(gamma=0.0, q_learning_rate=1e-2)),
        *_defaults("learning", "repaired-dqn", "layer-sweep-dqn"),
        Entry("thompson", "learning", "thompson", ThompsonConfig(**_LOOKING)),
        *_defaults("of Stable-Baselines3", "ppo", "a2c", "sb3-dqn", "qrdqn", "maskable-ppo"),
        *_defaults("searching", "hill-climbing", "annealing", "tree-search"),
        Entry("halving", "searching", "halving", _HALVING),
        Entry("halving-short", "searching", "halving", _HALVING, fidelities=True),
        Entry("change-little", "searching", "change-little", ChangeConfig(**_LOOKING)),
        Entry("mcts", "searching", "mcts", TreeConfig(**_LOOKING)),
        *_defaults("searching", "tpe", "cma-es", "evolution"),
        *_defaults("not learning", RANDOM, "random-static"),
        Entry("random-redrawn", "not learning", "random-redrawn", RandomRedrawnConfig(groups=4)),
        Entry("prior", "not learning", "prior", PriorConfig(groups=3)),
        *_defaults(
            "not learning", "conventional", "albert", "cycle", "cycle-rev", "sequence", "contiguous", "periodic"
        ),
        *_defaults("not learning", "sandwich"),
    )
}


def entry_of(name: str) -> Entry:
    """Return an entry by its name, or any other agent at its defaults.

    Raises:
        ValueError, OSError, ImportError, TypeError, tying_env.plugins.ForeignCodeError: there is no such agent.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    found = find_agent(name)
    return Entry(arm_of(name).name, "of Stable-Baselines3" if found.kind == "sb3" else "learning", name)
