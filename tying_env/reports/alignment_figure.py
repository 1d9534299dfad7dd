"""How far the layers of a run's network are aligned, as a figure."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tying_env.alignment import Alignment, Kind, measure_alignment
from tying_env.alignment.measure import Floats
from tying_env.alignment.parts import blocks_of, find_parts
from tying_env.reports.drawing import new_figure
from tying_env.reports.loading import Run
from tying_env.reports.run_figures import MAX_NETWORK_BYTES, read_network
from tying_env.runs.run_directory import BEST, FINAL

# Random matchings and the chance line of a figure are always the same ones.
_SEED = 20240116
# Pairs of layers times the square of the parts that are matched: about ten seconds on one CPU core, while a report
# draws a network for each arm.
_MOST = 20_000_000
_NAMES: dict[Kind, str] = {"heads": "attention heads", "units": "feed-forward units", "channels": "channels"}


def alignment(run: Run, max_bytes: int = MAX_NETWORK_BYTES) -> Figure:
    """Draw how far every two layers are aligned beyond chance: two heat maps for each kind of part.

    Args:
        run: its final network is read, or the best one where there is no final one.
        max_bytes: a larger network file is not read.

    Raises:
        FileNotFoundError: the run has no network.
        ValueError: the file is damaged or too large, the network is of a kind whose heads and units are not known, has
            weights that are not finite, too many units to match here, or one set of weights for all layers.
    """
    final = run.path / FINAL
    saved = read_network(run, final if final.is_file() else run.path / BEST, max_bytes)
    blocks = blocks_of(saved.network)
    parts = find_parts(blocks)
    own = len({each.place for each in parts})
    if own == 1:
        raise ValueError("all layers share one set of weights: there is nothing to align it with")
    if own * (own - 1) / 2 * parts[0].units.count ** 2 > _MOST:
        raise ValueError(
            f"{own} layers with {parts[0].units.count:,} units each take too long for a report: layer-tying align "
            "measures them"
        )
    found = measure_alignment(blocks, np.random.default_rng(_SEED), kinds=tuple(_NAMES))
    return draw_alignment(found)


def draw_alignment(found: dict[Kind, Alignment]) -> Figure:
    """Draw what `measure_alignment` gave for heads, feed-forward units and channels of the residual stream.

    Above the optimal matching against its chance line; below the matching of equal places against the mean random one.
    A colour is the share of the way from there to 1, and means the same in all.
    """
    figure = new_figure((13.0, 8.0))
    figure.set_layout_engine("compressed", w_pad=0.1, h_pad=0.1)
    all_axes = figure.subplots(2, len(_NAMES), squeeze=False)
    lowest = 0.0
    for column, (kind, name) in enumerate(_NAMES.items()):
        one = found[kind]
        apart = ~np.eye(len(one.optimal), dtype=bool)
        spread = float(one.random_spread[apart].mean())
        shown = (
            (_beyond(one.optimal, one.chance), f"{one.count} {name}, best matching\n(chance: {one.chance:.2f})"),
            (
                _beyond(one.identity, one.random_mean),
                f"in equal places\n(a random matching: {one.random_mean[apart].mean():.2f} ± {spread:.2f})",
            ),
        )
        for axes, (values, title) in zip(all_axes[:, column], shown, strict=True):
            lowest = min(lowest, float(values.min()))
            axes.imshow(values, cmap="viridis")
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("layer")
            axes.set_ylabel("layer")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    for axes in all_axes.flat:
        axes.images[0].set_clim(lowest, 1.0)
    figure.colorbar(all_axes[0, 0].images[0], ax=all_axes, label="mean cosine: 0 as by chance, 1 equal", shrink=0.8)
    return figure


def _beyond(found: Floats, chance: Floats | float) -> Floats:
    """Return how far cosines are beyond chance, as a share of what is left to 1, where weights are equal."""
    left = np.maximum(1 - np.asarray(chance), 1e-9)  # of equal layers of equal parts every matching is 1
    beyond: Floats = (found - chance) / left
    return beyond
