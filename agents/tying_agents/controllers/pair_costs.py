"""What tying each pair of layers costs by the tying table, for any number of layers. No torch."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tying_env.table.file import VALIDATION, open_table

Floats = npt.NDArray[np.float64]

CORPUS = "sotu"


def pairs(tyings: npt.NDArray[np.int64]) -> Floats:
    """Return for each tying which pairs of layers are tied, shape (T, L (L - 1) / 2): 0-1, 0-2, ..., 1-2, ..."""
    i, j = np.triu_indices(tyings.shape[1], 1)
    return np.asarray(tyings[:, i] == tyings[:, j], dtype=np.float64)


def pair_costs(n_units: int, table: Path | None = None) -> Floats:
    """Return what tying each pair costs, nats of log-perplexity, shape (P,): 0-1, 0-2, ..., 1-2, ...

    On the table: by least squares, validation log-perplexity as a sum over the pairs that are tied. For another number
    of layers: interpolated, from the layers' shares of the depth, and smaller by as much as there are more pairs, so
    that all layers tied cost as much.

    Args:
        n_units: L.
        table: a table's file; None for the package's.

    Raises:
        ValueError, OSError: the table cannot be read, or has no whole seed of `CORPUS`.
    """
    opened = open_table(table)
    tyings, n = opened.tyings, opened.n_layer
    losses = opened.corpus(CORPUS).at_rate()[:, :, VALIDATION, -1]  # (S, T)
    losses = np.where(np.isfinite(losses), losses, losses[np.isfinite(losses)].max()).mean(axis=0)
    lower, upper = np.triu_indices(n, 1)
    design = np.column_stack([np.ones(len(tyings)), pairs(tyings)])
    found: Floats = np.linalg.lstsq(design, losses, rcond=None)[0][1:]
    square = np.zeros((n, n))
    square[lower, upper] = square[upper, lower] = found
    # A layer has no pair with itself; layers that lie close to it cost what it costs with the one behind it.
    for layer in range(n):
        square[layer, layer] = square[layer, layer + 1] if layer < n - 1 else square[layer, layer - 1]
    i, j = np.triu_indices(n_units, 1)
    depth = np.linspace(0, n - 1, n_units) if n_units > 1 else np.zeros(1)
    return np.asarray(_between(square, depth[i], depth[j]) * len(found) / max(1, len(i)))


def _between(square: Floats, x: Floats, y: Floats) -> Floats:
    """Return values of a grid between its points, bilinear."""
    left, top = (np.minimum(np.floor(each).astype(int), len(square) - 2) for each in (x, y))
    right, down = x - left, y - top
    above = square[left, top] * (1 - right) + square[left + 1, top] * right
    below = square[left, top + 1] * (1 - right) + square[left + 1, top + 1] * right
    return np.asarray(above * (1 - down) + below * down)
