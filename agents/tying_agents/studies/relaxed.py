"""Relaxed recursion from trained weights: what do deltas by SVD save? The studies, written before they are run.

A network that was trained conventionally is tied, and trained on (Bae et al., 2024, arXiv 2410.20672): they take a mean
of the layers for the shared weights, and give each layer the best low-rank part of what it loses. What that saves right
after the tying, and what of it is left after as many training steps as the network had before, are two questions.

Deltas of rank 4 are two thirds as many parameters as three tied groups have. So five groups without deltas, as many
parameters, are beside them.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study, folder_of

_SEEDS = tuple(range(10))
_TUNING = 300  # the seed of the network on which rates are chosen
_LATER = 100  # between the seeds of a network's two trainings: other batches
_EACH = 3  # commands of each network
_TIED = "--agent prior --rule own-first --reward-timing after_tying --groups"
_ARMS = {
    "not tied": "--agent conventional --reward-timing after_tying",
    "leader": f"{_TIED} 3",
    "leader, 5 groups": f"{_TIED} 5",
    "leader, rank 4, of 0": f"{_TIED} 3 --delta-rank 4",
    "leader, rank 4, by SVD": f"{_TIED} 3 --delta-rank 4 --delta-init svd",
    "mean": f"{_TIED} 3 --first-tying mean",
    "mean, rank 4, by SVD": f"{_TIED} 3 --first-tying mean --delta-rank 4 --delta-init svd",
}
_PAIRS = (
    "leader, rank 4, by SVD:leader, rank 4, of 0",
    "leader, rank 4, by SVD:leader, 5 groups",
    "mean, rank 4, by SVD:leader, rank 4, by SVD",
    "mean, rank 4, by SVD:leader, 5 groups",
    "mean:leader",
)
# By `relaxed-rates`: what arms want that do not want the usual rate.
_RATES = {"leader": "3.2e-2", "mean": "3.2e-2"}
_USUAL = "1.6e-2"


def _network(seed: int, begin: int, rates: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """Return the commands that train a network and tie it; the first has the number `begin` in its study."""
    made, stored = (folder_of(begin + place) for place in range(2))
    rated = {name: "" if rates else f" --learning-rate {_RATES.get(name, _USUAL)}" for name in _ARMS}
    arms = (f"{name}: {words} --init-from {stored}/stored{rated[name]}" for name, words in _ARMS.items())
    first = ("--agents", "conventional", "--learning-rate", "8e-3", "--seeds", "1", "--first-seed", str(seed))
    later = ("--seeds", "1", "--first-seed", str(seed + _LATER))
    return (
        ("compare", *quick(), *first),
        ("align", f"{made}/runs/conventional/seed{seed}", "--network", "final", "--orders", "stored"),
        ("compare", *quick(), "--reference", "leader", "--agents", "--arms", *arms, *rates, *later),
    )


def _all_networks() -> tuple[tuple[str, ...], ...]:
    begins = [_EACH * place for place in range(len(_SEEDS))]
    trained = [f"{folder_of(begin + 2)}/runs" for begin in begins]
    compared = ("--reference", "not tied", "--pairs", *_PAIRS)
    return (
        *(command for seed, begin in zip(_SEEDS, begins, strict=True) for command in _network(seed, begin)),
        *(("report", *trained, "--metric", metric, *compared) for metric in ("first-perplexity", "test-perplexity")),
    )


RELAXED = {
    "relaxed-rates": Study(
        "Which learning rate does each way want to tie a trained network and train on?",
        "Best validation perplexity, mean of two tuning seeds, on a network of a seed that takes no part in `relaxed`; "
        "the test split is not looked at. A rate at an edge means a wider grid.",
        0.3,
        _network(_TUNING, 0, (*WIDE, "6.4e-2", "--tuning-seeds", "2", "--no-measure-test")),
    ),
    "relaxed": Study(
        "A trained network of twelve layers is tied ('own first', three groups) and trained on: what do deltas of rank "
        "4 bring that are the SVD of what each layer loses, right after the tying and in the end?",
        "Paired differences in percent of the test perplexity over ten networks, each arm at its own best rate: deltas "
        "by SVD against deltas of 0, against as many parameters in five groups without deltas, and with the mean of "
        "the layers against the leader's weights; an interval that does not contain 0. The same of the perplexity "
        "right after the tying. By the paper: most there, and some in the end.",
        0.5,
        _all_networks(),
    ),
}
