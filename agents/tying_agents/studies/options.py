"""The studies of the recipe's options, written before they are run: of tying, and of weight decay.

What a tying that stays gains from residual scales, from matrices alone tied and from rates by the size of the group is
in the study `final-recipes`, and so is what conventional training gains: they are not asked again.
"""

from tying_agents.studies.recipes import LOWER, STEADIER, STEADY, quick
from tying_agents.studies.study import Study

_RESIDUAL = {
    "residual sqrt": "--residual-scale sqrt",
    "residual linear": "--residual-scale linear",
}
# A label's end -> the option, by agent.
_OPTIONS = {
    "random": {
        "": "",
        **_RESIDUAL,
        "residual depth-sqrt": "--residual-scale depth-sqrt",
        "residual sqrt, at once": "--residual-scale sqrt --residual-ramp 0",
        "matrices tied": "--tied-parameters matrices",
        "group lr sqrt": "--group-lr sqrt",
        # Shorter than the four steps of a decision: a group that is touched at each of them comes back to its rate.
        "warm-up after changes": "--change-warmup-steps 3",
        "one change": "--wrappers limit-changes",
        "settled after 0.66": "--wrappers settle",
    },
    # It could not be told from random (docs/results/small_study.md): what matters most, to see whether that holds.
    "dqn": {
        "": "",
        "residual sqrt": "--residual-scale sqrt",
        "one change": "--wrappers limit-changes",
        "settled after 0.66": "--wrappers settle",
    },
    "albert": {"": "", **_RESIDUAL},
}


def _command(agent: str) -> tuple[str, ...]:
    own = _OPTIONS[agent]
    arms = (f"{agent}{f', {name}' if name else ''}: --agent {agent} {option}".rstrip() for name, option in own.items())
    rates = STEADIER if agent == "albert" else (*LOWER, *STEADY)
    pairs = ("--pairs", f"{agent}, residual sqrt, at once:{agent}, residual sqrt") if "matrices tied" in own else ()
    return ("compare", *quick(), "--reference", agent, "--agents", "--arms", *arms, *pairs, *rates)


OPTIONS = Study(
    "Which of the recipe's options for tying earn their keep while the tying changes: scaled residual branches, "
    "matrices alone tied, a warm-up after changes, fewer changes, a rate that falls with the size of the group?",
    "Paired differences in percent to the same agent without the option, over ten seeds, each arm at its own best "
    "rate. Residual sqrt, one change and settled after 0.66 are tried with random and dqn: one whose interval is below "
    "0 for both becomes a default of agents that change the tying. What is tried with one agent alone becomes none, "
    "whatever comes out: it is said what it did. 'Residual sqrt, at once' worse than 'residual sqrt': the ramp is "
    "needed.",
    1.6,
    tuple(map(_command, _OPTIONS)),
)

WEIGHT_DECAY = Study(
    "Weight decay on all parameters (torch's default, the published code's) or on matrices alone (the field's "
    "convention)?",
    "Paired differences in percent over ten seeds, for conventional training and for a fixed tying, a comparison each, "
    "each arm at its own best rate: an interval that does not contain 0. Else it makes no difference at this length. "
    "The decay is 0.1, ten times the presets', at rates of 8e-3: where it is smaller it matters less. (Tyings that "
    "change want a rate at which a run this short decays by two percent in all, so nothing is asked of them.)",
    0.4,
    tuple(
        (
            *("compare", *quick(), "--weight-decay", "0.1", "--agents", "--arms"),
            *(f"{name}, {kind}: --agent {agent} --decayed-parameters {kind}" for kind in ("all", "matrices")),
            *STEADIER,
        )
        for name, agent in (("conventional", "conventional"), ("own first", "prior --rule own-first --groups 3"))
    ),
)

# docs/dqn_options.md has what each of them is. None is the paper's.
_OF_DQN = {
    "replay": "--replay-size 100",
    "target network": "--target-every 10",
    "double Q": "--target-every 10 --double-q",
    "dueling": "--dueling",
    "running rewards": "--reward-scale running",
    "unit states": "--state-scale unit",
    "all six": "--replay-size 100 --target-every 10 --double-q --dueling --reward-scale running --state-scale unit",
}
# That of dqn and random in every study of networks as small (docs/results/frozen_start.md).
_RATE = "--learning-rate 1e-3"

DQN_OPTIONS = Study(
    "Does an option of the DQN that the paper does not have make the trained network better?",
    "Paired differences in percent to the paper's DQN over ten seeds on the test split, all at the rate 1e-3, after "
    "Holm's correction: an interval below 0. And against random tyings: one that is better than those would choose.",
    0.4,
    (
        (
            *("compare", *quick(), "--reference", "dqn", "--agents", "--arms", f"dqn: --agent dqn {_RATE}"),
            *(f"{name}: --agent dqn {_RATE} {options}" for name, options in _OF_DQN.items()),
            *(f"random: --agent random {_RATE}", "--seeds", "10"),
        ),
    ),
)

PUBLISHED_CODE = Study(
    "What the paper says, or what the code published with it does: do they train networks that differ?",
    "The paired difference in percent over ten seeds on the test split, each at its own best rate of two tuning seeds: "
    "an interval that does not contain 0. (docs/published_code.md has what differs.)",
    0.3,
    (
        (
            *("compare", *quick(), "--reference", "paper", "--agents", "--arms", "paper: --agent dqn"),
            # At the same k and dropout as the paper's, so that what is left is what tying means, and who ties.
            "published code: --semantics published-code --k 4 --dropout 0",
            *(*LOWER, "--tuning-seeds", "2", "--seeds", "10"),
        ),
    ),
)
