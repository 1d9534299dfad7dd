"""How far the layers of networks are aligned, as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tying_env.alignment.measure import Kind, measure_alignment
from tying_env.alignment.parts import blocks_of, find_parts
from tying_env.files import to_csv
from tying_env.primary.models import PrimaryNetwork

NAMES: dict[Kind, str] = {"heads": "attention heads", "units": "feed-forward units", "channels": "channels"}


@dataclass(frozen=True)
class Row:
    """What the parts of one kind come to, means over pairs of layers that do not share them.

    Attributes:
        kind: of the parts.
        count: of them in a layer.
        pairs: of layers; 0 where all share them, and the values are not finite then.
        best: mean cosine of the best matching.
        chance: the same of random weights.
        equal: of equal places.
        random: of random matchings.
        spread: standard deviation of a random matching.
    """

    kind: Kind
    count: int
    pairs: int
    best: float
    chance: float
    equal: float
    random: float
    spread: float


@dataclass(frozen=True)
class Aligned:
    """A network of a run, measured.

    Attributes:
        run: its folder.
        label: of its arm; of an exported network the folder's name.
        seed: of the run; None of an exported network.
        network: which, "best" or "final".
        rows: one for each kind of parts.
    """

    run: str
    label: str
    seed: int | None
    network: str
    rows: tuple[Row, ...]


def aligned_rows(network: PrimaryNetwork, rng: np.random.Generator, draws: int) -> tuple[Row, ...]:
    """Measure how far the layers of a network are aligned.

    Args:
        network: its blocks may share weights.
        rng: draws random matchings and random layers.
        draws: of them.

    Raises:
        ValueError: its blocks are not known, or all share one set of weights.
    """
    blocks = blocks_of(network)
    parts = find_parts(blocks)
    own = [i for i, part in enumerate(parts) if all(part.place != other.place for other in parts[:i])]
    if len(own) < 2:
        raise ValueError("there is one set of weights for all layers: there are no two to compare")
    rows = []
    for kind, one in measure_alignment([blocks[i] for i in own], rng, draws).items():
        shared = np.array([[parts[i].shares(parts[j], kind) for j in own] for i in own])
        pairs = np.nonzero(np.triu(~shared, 1))
        values = (one.optimal, one.identity, one.random_mean, one.random_spread)
        count = len(pairs[0])
        best, equal, random, spread = (float(value[pairs].mean()) if count else np.nan for value in values)
        rows.append(Row(kind, one.count, count, best, one.chance, equal, random, spread))
    return tuple(rows)


_HEADINGS = (
    *("run", "label", "seed", "network", "part", "in_a_layer", "pairs_of_layers", "best_matching", "chance"),
    *("equal_places", "random_matching", "random_spread"),
)


def as_csv(found: Sequence[Aligned]) -> str:
    """Return a row for each network and kind of parts, with headings; nothing stands where all layers share them."""
    rows = []
    for each in found:
        for row in each.rows:
            values = (row.best, row.chance, row.equal, row.random, row.spread) if row.pairs else (None,) * 5
            rows.append((each.run, each.label, each.seed, each.network, row.kind, row.count, row.pairs, *values))
    return to_csv(_HEADINGS, rows)


def as_markdown(found: Sequence[Aligned]) -> str:
    """Return a row for each network and kind of parts."""
    lines = [
        "Mean cosines over pairs of layers that do not share the part.",
        "",
        "| arm | seed | network | part | in a layer | pairs | best matching | chance | equal places "
        "| random matching |",
        f"|{' --- |' * 10}",
    ]
    for each in found:
        seed, label = "–" if each.seed is None else str(each.seed), each.label.replace("|", "\\|")
        for row in each.rows:
            values = [f"{value:+.3f}" for value in (row.best, row.chance, row.equal)]
            values += [f"{row.random:+.3f} ± {row.spread:.3f}"]
            cells = (label, seed, each.network, NAMES[row.kind], f"{row.count:,}", str(row.pairs))
            lines.append(f"| {' | '.join((*cells, *(values if row.pairs else ['–'] * 4)))} |")
    return "\n".join(lines) + "\n"
