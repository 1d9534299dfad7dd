"""How much does the paper's DQN depend on epsilon, its decay and floor, and on k? Written before it is run.

Each is varied alone around the paper's values (epsilon 1.0 x 0.95 a decision, floor 0.1; k = 4 here, as the other
studies of this network have it, where the paper's run of 300 epochs has 15). The frozen start, which lasts k training
steps, is off: it would be 1 to 32 of 384 (what it costs is in docs/results/frozen_start.md).
"""

from tying_agents.studies.recipes import LOWER, quick
from tying_agents.studies.study import Study

_VARIED = (
    *(("epsilon-start", value) for value in ("0.5", "0.1")),
    *(("epsilon-decay", value) for value in ("0.8", "0.99")),
    *(("epsilon-floor", value) for value in ("0", "0.3")),
    *(("k", value) for value in ("1", "2", "8", "16", "32")),
)

SENSITIVITY = Study(
    "How much does the paper's DQN depend on epsilon, its decay, its floor, and on k?",
    "Paired differences in percent to the paper's values, over ten seeds, each arm at its own best rate; p < 0.05 "
    "after Holm's correction. If k alone matters, and as in `cost-of-change`, what matters is how often the tying "
    "changes; random tyings at the same k say whether the controller's choice does.",
    1.8,
    (
        (
            *("compare", *quick(), "--no-freeze-at-start", "--agents", "--arms"),
            "dqn: --agent dqn",
            *(f"{name.replace('-', ' ')} {value}: --agent dqn --{name} {value}" for name, value in _VARIED),
            *(f"random, k {k}: --agent random --k {k}" for k in ("4", "16")),
            *("--pairs", "dqn:random, k 4", "k 16:random, k 16"),
            *(*LOWER, "--tuning-seeds", "2", "--seeds", "10"),
        ),
    ),
)
