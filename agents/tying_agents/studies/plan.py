"""The studies of docs/results: question, what would answer it, budget and commands, written before they are run."""

from tying_agents.studies.alignment import ALIGNMENT
from tying_agents.studies.amounts import REGIMES
from tying_agents.studies.control import CONTROL
from tying_agents.studies.dna import DNA
from tying_agents.studies.final import FINAL
from tying_agents.studies.intervals import INTERVALS
from tying_agents.studies.looking import LOOKING, LOOKING_AGAIN, LOOKING_CHANCE, LOOKING_KEPT, LOOKING_START
from tying_agents.studies.networks import NETWORKS
from tying_agents.studies.options import DQN_OPTIONS, OPTIONS, PUBLISHED_CODE, WEIGHT_DECAY
from tying_agents.studies.packing import PACKING
from tying_agents.studies.patterns import PATTERNS
from tying_agents.studies.recipes import LOWER, RATES, STEADY, WIDE, quick
from tying_agents.studies.relatives import RELATIVES
from tying_agents.studies.relaxed import RELAXED
from tying_agents.studies.reuse import REUSED
from tying_agents.studies.sensitivity import SENSITIVITY
from tying_agents.studies.speech import SPEECH
from tying_agents.studies.study import BEFORE, Study, folder_of
from tying_agents.studies.sublayers import SUBLAYERS

# Learning rates of the small GPT-2 preset, 12 layers x 64: chosen with three tuning seeds (dqn, random, conventional;
# docs/tuning.md) or two (the others; the study "rates"). No outcome lies at an edge of its grid.
_RATES = {
    "dqn": "1e-3",
    "random": "1e-3",
    "ppo": "1e-3",
    "random-static": "2e-3",
    "sandwich": "2e-3",
    "albert": "2e-3",
    "conventional": "4e-3",
}


def _arm(name: str, options: str, rate: str) -> str:
    return f"{name}: {options} --learning-rate {rate}"


def _arms(*agents: str) -> tuple[str, ...]:
    return tuple(_arm(name, f"--agent {name}", _RATES[name]) for name in agents)


# With rewards that mean nothing, at the rate of the agent itself.
_SHUFFLED = _arm("dqn+shuffled", "--agent dqn --rewards shuffled", _RATES["dqn"])


_RATES_AND_SEEDS = (*RATES, "--tuning-seeds", "2", "--seeds", "10")
_ABLATIONS = "Which part of the method matters: the rows of the paper's Table 4, and those that it lacks?"
_ABLATED = (
    "Paired differences to the full method in percent, over ten seeds, each row at its own best rate; p < 0.05 after "
    "Holm's correction."
)
# Nearly all rows change the tying.
_ABLATE = ("ablations", *quick(), *LOWER, *STEADY)
# Where the first corpus has told whether a rate's choice is steady, one tuning seed does.
_ABLATE_AGAIN = ("ablations", *quick(), *LOWER, "--tuning-seeds", "1", "--seeds", "10")
_BETTER = (
    "p < 0.05 after Holm's correction, exact paired test over ten seeds, on the test split: dqn or ppo better than "
    "random is learning if they are also better than themselves with shuffled rewards. Else no controller is better "
    "than chance in so many decisions. Static arms say what dynamic tying has to beat."
)

_FIRST = (
    "Paired differences in percent to conventional training and to the sandwich, over ten seeds, each arm at its own "
    "best rate; p < 0.05 after Holm's correction. A pattern that is better than both with fewer parameters than "
    "conventional training is what a controller has to beat."
)
# Seen before it was written down: one seed on sotu's validation split, at 4e-3 to 1.6e-2.
_FIXED = (
    *("compare", *quick(), "--agents", "--arms"),
    "conventional: --agent conventional",
    "sandwich: --agent sandwich",
    "contiguous 3: --agent contiguous --groups 3",
    *(f"own first, {groups} groups: --agent prior --rule own-first --groups {groups}" for groups in (2, 3, 4, 6)),
    "own ends, 4 groups: --agent prior --rule own-ends --groups 4",
    *("--learning-rates", "2e-3", "4e-3", "8e-3", "1.6e-2", "3.2e-2", "--tuning-seeds", "2", "--seeds", "10"),
)

STUDIES = {
    "rates": Study(
        "Which learning rate is best, by validation, for the arms of `controllers` that have none yet?",
        "A rate whose neighbours in the grid are both worse in the mean of two tuning seeds; a rate at an edge means "
        "a wider grid.",
        0.9,
        (
            (
                *("compare", "--agents", "random-static", "sandwich", "albert", "ppo", "--seeds", "1"),
                *("--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3", "--tuning-seeds", "2"),
            ),
        ),
    ),
    "prior-rates": Study(
        "Which learning rate does the rule 'own first' want in the small presets of GPT-2, BERT and ViT?",
        "Best validation perplexity, mean of two tuning seeds; a rate at an edge means a wider grid. More than 1 % "
        "better than at the preset's rate: the documentation says so where it names the rule.",
        0.7,
        tuple(
            ("compare", "--model", model, "--agents", "prior", *WIDE, "--tuning-seeds", "2", "--seeds", "1")
            for model in ("gpt2", "bert", "vit")
        ),
    ),
    "controllers-sotu": Study(
        "GPT-2 preset (12 layers x 64, bytes, 600 steps): is a learned controller better than chance, and is tying "
        "that changes better than tying that stays?",
        _BETTER,
        1.8,
        (("compare", "--agents", "--arms", *_arms(*_RATES), _SHUFFLED, "--seeds", "10"),),
    ),
    "controllers-wikitext": Study(
        "Is it the same on another corpus, with the rates chosen on sotu?",
        _BETTER,
        1.4,
        (
            (
                *("compare", "--agents", "--arms"),
                *(*_arms("dqn", "random", "random-static", "sandwich", "albert", "conventional"), _SHUFFLED),
                *("--seeds", "10"),
            ),
        ),
        dataset=True,
    ),
    "frozen-start": Study(
        "What do the frozen steps at the start cost, with a warm-up of the learning rate and without?",
        "Paired differences in percent between an arm with the frozen start and the same without, each at its own best "
        "rate; an interval that does not contain 0, over ten seeds. By docs/LOG.md: much without, nothing with.",
        1.0,
        (
            (
                *("compare", *quick(), "--agents", "--arms"),
                *(
                    f"{name}{', no warm-up' if warmup else ''}: --agent {options} {warmup}".rstrip()
                    for warmup in ("", "--warmup-steps 0")
                    for name, options in (
                        ("random, frozen start", "random"),
                        ("random", "random --no-freeze-at-start"),
                        ("conventional, frozen start", "random-redrawn --groups 12 --redraw-every 0 --no-from-start"),
                        ("conventional", "conventional"),
                    )
                ),
                *_RATES_AND_SEEDS,
            ),
        ),
    ),
    "cost-of-change": Study(
        "What does a change of the tying cost: three random groups, drawn again every 1, 2, 4, 8, 16 or 32 decisions, "
        "or never?",
        "Test perplexity against changes per run, ten paired seeds, each arm at its own best rate: a slope with an "
        "interval, and whether the first doublings cost as much as the last.",
        0.9,
        (
            (
                *("compare", *quick(), "--agents", "--arms"),
                *(
                    f"every {every}: --agent random-redrawn --groups 3 --redraw-every {every}"
                    for every in (1, 2, 4, 8, 16, 32)
                ),
                "never: --agent random-redrawn --groups 3 --redraw-every 0",
                *_RATES_AND_SEEDS,
            ),
        ),
    ),
    "first-layer": Study(
        "Fixed tyings, runs of equal layers, with the first layer, the first and the last, or none alone: is the first "
        "layer the one that deserves weights of its own?",
        _FIRST,
        1.2,
        (_FIXED,),
    ),
    "first-layer-wikitext": Study(
        "Is it the same on another corpus?",
        _FIRST,
        1.2,
        (_FIXED,),
        dataset=True,
    ),
    "ablations-sotu": Study(_ABLATIONS, _ABLATED, 1.2, (_ABLATE,)),
    "ablations-wikitext": Study(_ABLATIONS, _ABLATED, 0.8, (_ABLATE_AGAIN,), dataset=True),
    "options": OPTIONS,
    "pruning": Study(
        "Does pruning hurt a weight more that more layers share: groups of 1, 2, 4 and 12 layers, Wanda and magnitude?",
        "Rise of the test perplexity in percent against sparsity, five seeds, each arm at its own best rate: at half "
        "the weights it is higher for larger groups in all five seeds. Else the size of the group is not what matters.",
        0.6,
        (
            (
                *("compare", *quick(), "--agents", "--arms"),
                "groups of 1: --agent conventional",
                "groups of 2: --agent sequence --groups 6",
                "groups of 4: --agent sequence --groups 3",
                "group of 12: --agent albert",
                *(*WIDE, "--tuning-seeds", "2", "--seeds", "5"),
            ),
            (
                *("prune", BEFORE, "--sparsity", "0.25", "0.5", "0.625", "0.75", "--method", "wanda", "magnitude"),
                *("--windows", "512"),
            ),
            ("prune", folder_of(0), "--pattern", "2:4", "--method", "wanda", "magnitude", "--windows", "512"),
        ),
    ),
    "packing": PACKING,
    **DNA,
    "patterns": PATTERNS,
    "relatives": RELATIVES,
    **RELAXED,
    "weight-decay": WEIGHT_DECAY,
    "dqn-options": DQN_OPTIONS,
    "published-code": PUBLISHED_CODE,
    **NETWORKS,
    "looking": LOOKING,
    "looking-again": LOOKING_AGAIN,
    "looking-chance": LOOKING_CHANCE,
    "looking-start": LOOKING_START,
    "looking-kept": LOOKING_KEPT,
    **FINAL,
    "speech": SPEECH,
    **ALIGNMENT,
    "sublayers": SUBLAYERS,
    "attention-reused": REUSED,
    "regimes": REGIMES,
    "intervals": INTERVALS,
    "sensitivity": SENSITIVITY,
    "control": CONTROL,
}
