"""The study of the positive control: can a controller learn in so many decisions, where the best tying is known?"""

from tying_agents.control.arms import ARMS
from tying_agents.studies.study import Study

_KINDS = ("independent", "additive", "pairwise")
# With 48 layers these cost a second a decision, or tens of milliseconds.
_TOO_DEAR = ("qrdqn", "ppo")
# Those that learn, and whose time for a decision does not grow with their number.
_LONG = ("dqn", "dqn-bandit", "repaired-dqn", "layer-sweep-dqn", "a2c", "sb3-dqn")


def _control(arms: tuple[str, ...], kinds: tuple[str, ...], layers: str, seeds: str, *marks: str) -> tuple[str, ...]:
    return (
        *("control", "--arms", *arms, "--kinds", *kinds, "--layers", layers),
        *("--marks", *marks, "--seeds", seeds),
    )


CONTROL = Study(
    "Can each controller learn in as many decisions as a run has, where the best tying is known?",
    "Share of what there is to gain over chance after 59, 400, 4,000 and 12,000 decisions, twenty seeds (ten of the "
    "last two): a controller learns in so many if its mean is more than two standard errors above 0, and above where "
    "it begins. One that does not has not shown in a run that there was nothing to learn.",
    # 35 and 25 s for a seed and kind of 12 and 6 layers, 40 s for 48; 230 s for 12,000 decisions.
    3.3,
    (
        _control(tuple(ARMS), _KINDS, "12", "20", "59", "400"),
        _control(tuple(ARMS), _KINDS[1:], "6", "20", "59", "400"),
        _control(tuple(arm for arm in ARMS if arm not in _TOO_DEAR), _KINDS[1:], "48", "20", "59", "400"),
        _control(_LONG, _KINDS, "12", "10", "4000", "12000"),
    ),
    one_folder=True,
)
