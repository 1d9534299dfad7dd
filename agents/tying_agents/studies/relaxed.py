"""Relaxed recursion from trained weights: what do deltas by SVD save? The studies, written before they are run.

A network that was trained conventionally is tied, and trained on (Bae et al., 2024, arXiv 2410.20672): they take a mean
of the layers for the shared weights, and give each layer the best low-rank part of what it loses. What that saves right
after the tying, and what of it is left after as many training steps as the network had before, are two questions.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study, folder_of

_SEEDS = tuple(range(10))
_TUNING = 900  # the seed of the network on which rates are chosen
_EACH = 3  # commands of each network
_TIED = "--agent prior --rule own-first --groups 3 --reward-timing after_tying"
_ARMS = {
    "not tied": "--agent conventional",
    "leader": _TIED,
    "leader, rank 4, of 0": f"{_TIED} --delta-rank 4",
    "leader, rank 4, by SVD": f"{_TIED} --delta-rank 4 --delta-init svd",
    "mean": f"{_TIED} --first-tying mean",
    "mean, rank 4, by SVD": f"{_TIED} --first-tying mean --delta-rank 4 --delta-init svd",
}
# By `relaxed-rates`.
_RATES: dict[str, str] = {}
_USUAL = "4e-3"


def _network(seed: int, begin: int, rates: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """Return the commands that train a network and tie it; the first has the number `begin` in its study."""
    made, stored = (folder_of(begin + place) for place in range(2))
    here = ("--seeds", "1", "--first-seed", str(seed))
    rated = {name: "" if rates else f" --learning-rate {_RATES.get(name, _USUAL)}" for name in _ARMS}
    return (
        ("compare", *quick(), "--agents", "conventional", "--learning-rate", "8e-3", *here),
        ("align", f"{made}/runs/conventional/seed{seed}", "--network", "final", "--orders", "stored"),
        (
            *("compare", *quick(), "--reference", "leader", "--agents", "--arms"),
            *(f"{name}: {words} --init-from {stored}/stored{rated[name]}" for name, words in _ARMS.items()),
            *(*rates, *here),
        ),
    )


RELAXED = {
    "relaxed-rates": Study(
        "Which learning rate does each way want to tie a trained network and train on?",
        "Best validation perplexity, mean of two tuning seeds, on a network of a seed that takes no part in `relaxed`; "
        "the test split is not looked at. A rate at an edge means a wider grid.",
        0.2,
        _network(_TUNING, 0, (*WIDE, "--tuning-seeds", "2", "--no-measure-test")),
    ),
    "relaxed": Study(
        "A trained network of twelve layers is tied ('own first', three groups) and trained on: what do deltas of rank "
        "4 bring that are the SVD of what each layer loses, right after the tying and in the end?",
        "Paired differences in percent of the test perplexity over ten networks, each arm at its own best rate: by SVD "
        "against deltas of 0, and against no deltas, where the leader's weights are taken and where the mean is; an "
        "interval that does not contain 0. The same of the perplexity right after the tying. By the paper: most there, "
        "and some in the end.",
        0.4,
        tuple(command for place, seed in enumerate(_SEEDS) for command in _network(seed, _EACH * place)),
    ),
}
