"""The studies of the recipe's options, written before they are run: of tying, and of weight decay."""

from tying_agents.studies.recipes import STEADIER, quick
from tying_agents.studies.study import Study

# A label's end -> the option.
_RESIDUAL = {
    "": "",
    "residual sqrt": "--residual-scale sqrt",
    "residual linear": "--residual-scale linear",
}
_DEPTH = {"residual depth-sqrt": "--residual-scale depth-sqrt"}
_EVERY_TYING = {"matrices tied": "--tied-parameters matrices", "group lr sqrt": "--group-lr sqrt"}
_CHANGING = {
    "residual sqrt, at once": "--residual-scale sqrt --residual-ramp 0",
    "warm-up after changes": "--change-warmup-steps 8",
    "one change": "--wrappers limit-changes",
    "settled after 0.66": "--wrappers settle",
}
_OPTIONS = {
    "random": {**_RESIDUAL, **_DEPTH, **_EVERY_TYING, **_CHANGING},
    "dqn": {**_RESIDUAL, **_DEPTH, **_EVERY_TYING, **_CHANGING},
    "sandwich": {**_RESIDUAL, **_DEPTH, **_EVERY_TYING},
    "albert": _RESIDUAL,
    "conventional": {"": "", **_DEPTH},
}

OPTIONS = Study(
    "Which of the recipe's options for tying earn their keep: scaled residual branches, matrices alone tied, a "
    "warm-up after changes, fewer changes, a rate that falls with the size of the group?",
    "Paired differences in percent to the same agent without the option, over ten seeds, each arm at its own best "
    "rate: an option whose interval is below 0 for every agent that can have it becomes a default. 'Residual sqrt, at "
    "once' worse than 'residual sqrt': the ramp is needed.",
    4.1,
    tuple(
        (
            *("compare", *quick(), "--agents", "--arms"),
            *(
                f"{agent}{f', {name}' if name else ''}: --agent {agent} {option}".rstrip()
                for name, option in own.items()
            ),
            *STEADIER,
        )
        for agent, own in _OPTIONS.items()
    ),
)

WEIGHT_DECAY = Study(
    "Weight decay on all parameters (torch's default, the published code's) or on matrices alone (the field's "
    "convention)?",
    "Paired differences in percent over ten seeds, for training that never ties and for tyings that change, a "
    "comparison each, each arm at its own best rate: an interval that does not contain 0. Else it makes no difference "
    "at this length.",
    0.5,
    tuple(
        (
            *("compare", *quick(), "--weight-decay", "0.1", "--agents", "--arms"),
            *(f"{agent}, {kind}: --agent {agent} --decayed-parameters {kind}" for kind in ("all", "matrices")),
            *STEADIER,
        )
        for agent in ("conventional", "random")
    ),
)
