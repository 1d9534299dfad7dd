"""Which layers like to be tied: log-perplexity as a sum of effects, judged on tyings that were not fitted."""

from dataclasses import dataclass

import numpy as np

from tying_agents.controllers.pair_costs import pairs
from tying_agents.findings.losses import Floats, Ints, Losses, Mean
from tying_agents.findings.orders import tau

FOLDS = 10


def group_count(tyings: Ints) -> Floats:
    """Return the number of groups of each tying, shape (T, 1)."""
    return np.asarray(np.count_nonzero(tyings == np.arange(tyings.shape[1]), axis=1)[:, None], dtype=np.float64)


def shares(tyings: Ints) -> Floats:
    """Return for each tying which layers share their weights, shape (T, L)."""
    same = tyings[:, :, None] == tyings[:, None]  # (T, L, L)
    return np.asarray(same.sum(axis=2) > 1, dtype=np.float64)


MODELS = {
    "number of groups": (group_count,),
    "main effects: which layers share": (shares,),
    "pairwise effects: which layers are tied with which": (pairs,),
    "number of groups, and pairwise": (group_count, pairs),
    "main and pairwise": (shares, pairs),
}


@dataclass(frozen=True)
class Fit:
    """How well a model predicts the mean test log-perplexity of tyings that it was not fitted to.

    Attributes:
        parameters: that are fitted, with the constant.
        r_squared: share of the variance that is predicted, by ten-fold cross-validation over tyings.
        tau: Kendall's, of prediction and truth.
    """

    parameters: int
    r_squared: float
    tau: float


def fits(losses: Losses, seed: int = 0) -> dict[str, Fit]:
    """Return how well each model predicts; the folds follow from the seed."""
    truth = losses.test.mean(axis=0)  # (T,)
    fold = np.random.default_rng(seed).permutation(len(truth)) % FOLDS
    found = {}
    for name, parts in MODELS.items():
        features = _design(losses.tyings, *parts)
        predicted = np.empty_like(truth)
        for each in range(FOLDS):
            held = fold == each
            predicted[held] = features[held] @ _solve(features[~held], truth[~held])
        left = ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
        found[name] = Fit(features.shape[1], float(1 - left), tau(predicted, truth))
    return found


@dataclass(frozen=True)
class Effects:
    """What tying does to log-perplexity, in per cent of perplexity, means over seeds with 95% intervals.

    Attributes:
        share: a layer shares its weights, from the model of main effects. # L of them
        pair: two layers are tied, from the model of pairwise effects: (i, j) -> effect.
    """

    share: list[Mean]
    pair: dict[tuple[int, int], Mean]


def effects(losses: Losses) -> Effects:
    """Return the effects, fitted for each seed by itself."""
    n_units = losses.tyings.shape[1]
    by_share, by_pair = (_coefficients(losses, part) for part in (shares, pairs))  # (S, features)
    places = zip(*(index.tolist() for index in np.triu_indices(n_units, 1)), strict=True)
    return Effects(
        [Mean.of(100 * by_share[:, i]) for i in range(n_units)],
        {place: Mean.of(100 * by_pair[:, number]) for number, place in enumerate(places)},
    )


def _coefficients(losses: Losses, part: object) -> Floats:
    features = _design(losses.tyings, part)
    return np.array([_solve(features, seed)[1:] for seed in losses.test])


def _design(tyings: Ints, *parts: object) -> Floats:
    columns = [part(tyings) for part in parts if callable(part)]
    return np.hstack([np.ones((len(tyings), 1)), *columns])


def _solve(features: Floats, values: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(features, values, rcond=None)[0])
