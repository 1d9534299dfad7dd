"""Runs packed into files of several sizes: measured, as tables."""

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tying_env.compression import Coded, PackedUnit, TooFewBytesError, load_packed
from tying_env.compression.rounding import BITS, Bits
from tying_env.files import to_csv
from tying_env.partition import leaders
from tying_env.primary.evaluation import Evaluation
from tying_env.runs import LoadedRun


@dataclass(frozen=True)
class Way:
    """How a network is packed.

    Attributes:
        max_bytes: of the file.
        bits: of every weight; None: each part has its own, by measured damage.
    """

    max_bytes: int
    bits: Bits | None = None

    def __str__(self) -> str:
        return f"{self.max_bytes:,} bytes" if self.bits is None else f"{self.bits} bits"


@dataclass(frozen=True)
class PackedResult:
    """A network of a run, packed and measured on the test split.

    Attributes:
        run: its directory.
        label: of its arm.
        seed: of the run.
        independent: units (blocks or sublayers) with weights of their own.
        units: all of them.
        way: how it was packed.
        size: bytes of the file; of the smallest possible where that is more than was allowed.
        parts: of the network; none where it did not fit.
        before: what was measured of the network as it was trained.
        after: of what is in the file; None where it did not fit.
        frequencies: the test perplexity of token frequencies alone; None where it is not known.
        unit: of bits: "bits/byte", "bits/base".
    """

    run: Path
    label: str
    seed: int
    independent: int
    units: int
    way: Way
    size: int
    parts: tuple[PackedUnit, ...]
    before: Evaluation
    after: Evaluation | None
    frequencies: float | None
    unit: str


def packed_results(
    loaded: LoadedRun,
    label: str,
    seed: int,
    ways: Sequence[Way],
    unit: str,
    *,
    windows: int,
    test_windows: int,
    dataset: str | None,
    device: torch.device,
    model: str | None,
    told: Callable[[str], None] = lambda _: None,
) -> list[PackedResult]:
    """Pack a network in each way, and measure it before and after; the files are not kept.

    Args:
        loaded: the network, on `device`.
        label: of its arm.
        seed: of the run.
        ways: to pack it.
        unit: of bits: "bits/byte", "bits/base".
        windows: sequences (or images) of the validation split on which damage is measured; 0 for all.
        test_windows: of the test split on which the packed network is; 0 for all.
        dataset: data in place of its own.
        device: where the network is.
        model: as of `load_packed`.
        told: is told what is being measured.

    Raises:
        As `pack_network`, but where a network does not fit.
    """
    workload = loaded.open_workload(dataset)
    before = workload.evaluate(loaded.model, "test", test_windows, device)
    frequencies = workload.frequency_perplexity("test", test_windows)
    independent, units = len(leaders(loaded.tying)), len(loaded.tying)

    def tell(text: str) -> None:
        told(f"{label}, seed {seed}: {text}")

    coded: dict[Bits | None, Coded] = {}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate(ways):
            tell(str(way))
            if way.bits not in coded:
                coded[way.bits] = Coded(loaded, way.bits, windows=windows, dataset=dataset, told=tell)
            size, parts, after = 0, tuple[PackedUnit, ...](), None
            try:
                packed = coded[way.bits].write(Path(folder) / str(number), way.max_bytes)
            except TooFewBytesError as error:
                size = error.least
            else:
                size, parts = packed.size, tuple(packed.units)
                after = workload.evaluate(load_packed(packed.path, device, model), "test", test_windows, device)
            about = (loaded.path, label, seed, independent, units)
            found.append(PackedResult(*about, way, size, parts, before, after, frequencies, unit))
    return found


_HEADINGS = (
    *("run", "label", "seed", "independent_units", "units", "max_bytes", "bits", "fits", "bytes"),
    *("test_perplexity_before", "test_perplexity", "unit", "test_bits_before", "test_bits"),
    *("test_accuracy_before", "test_accuracy", "test_perplexity_of_frequencies"),
)
_UNITS = ("run", "label", "seed", "max_bytes", "bits_of_all", "part", "uses", "weights", "bits", "bytes")


def as_csv(results: Sequence[PackedResult]) -> str:
    """Return a row for each result, with headings; `bytes` of what does not fit are those of the smallest file."""
    rows = []
    for each in results:
        after, before = each.after, each.before
        bits = (before.bits_per_byte, after and after.bits_per_byte)
        accuracy = (before.accuracy, after and after.accuracy)
        rows.append(
            (
                *(each.run, each.label, each.seed, each.independent, each.units),
                *(each.way.max_bytes, each.way.bits, int(after is not None), each.size),
                *(before.perplexity, after and after.perplexity),
                *(each.unit, *bits, *accuracy, each.frequencies),
            )
        )
    return to_csv(_HEADINGS, rows)


def parts_as_csv(results: Sequence[PackedResult]) -> str:
    """Return a row for each part of each packed network: what uses it, its bits, and what others would cost."""
    rows = [
        (
            *(each.run, each.label, each.seed, each.way.max_bytes, each.way.bits),
            *(part.unit.name, len(part.unit.layers), part.unit.numbers, part.bits, part.choices[part.bits].size),
            *(part.choices[bits].rise if each.way.bits is None else None for bits in BITS),
        )
        for each in results
        for part in each.parts
    ]
    return to_csv((*_UNITS, *(f"nats_at_{bits}" for bits in BITS)), rows)


def as_markdown(results: Sequence[PackedResult]) -> str:
    """Return a row for each result; and means over the parts of the blocks that as many units use."""
    unit = results[0].unit
    lines = [
        f"| arm | seed | independent | packed to | bytes | {unit} before | after | perplexity before | after |",
        f"|{' --- |' * 9}",
    ]
    for each in results:
        after, before = each.after, each.before
        fits = f"{each.size:,}" if after is not None else f"does not fit: at least {each.size:,}"
        bits = (before.bits_per_byte, after and after.bits_per_byte)
        cells = (
            *(_cell(each.label), str(each.seed), f"{each.independent} of {each.units}", str(each.way), fits),
            *("–" if value is None else f"{value:.4f}" for value in bits),
            *("–" if value is None else f"{value:.3f}" for value in (before.perplexity, after and after.perplexity)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if known := sorted({each.frequencies for each in results if each.frequencies is not None}):
        lines += ["", "Test perplexity of token frequencies alone: " + ", ".join(f"{v:.2f}" for v in known) + "."]
    return "\n".join([*lines, *_by_way(results), *_by_uses(results)]) + "\n"


def _by_way(results: Sequence[PackedResult]) -> list[str]:
    """Return the table of means over seeds; nothing where each arm has one."""
    runs = {(each.label, each.run) for each in results}
    if len(runs) == len({label for label, _ in runs}):
        return []
    ways, unit = _in_order(results), unit_of(results)
    lines = [
        "",
        f"Means over seeds, test {unit}; in brackets how many fit, where not all do.",
        "",
        f"| arm | seeds | before | {' | '.join(map(str, ways))} |",
        f"|{' --- |' * (3 + len(ways))}",
    ]
    for label in dict.fromkeys(each.label for each in results):
        own = [each for each in results if each.label == label]
        once = {each.run: each.before for each in own}.values()
        cells = [_cell(label), str(len(once)), _mean(once, len(once), unit)]
        for way in ways:
            some = [each.after for each in own if each.way == way]
            cells.append(_mean([after for after in some if after is not None], len(some), unit))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean(found: Collection[Evaluation], of: int, unit: str) -> str:
    if not found:
        return "–"
    values = [each.perplexity if unit == "perplexity" else each.bits_per_byte for each in found]
    return f"{np.mean(values):.4f}{f' ({len(values)} of {of})' if len(values) < of else ''}"  # type: ignore[arg-type]


def _in_order(results: Sequence[PackedResult]) -> list[Way]:
    """Return the ways of packing, the smallest files first."""
    return sorted({each.way for each in results}, key=lambda way: (way.max_bytes, way.bits or 0))


def _by_uses(results: Sequence[PackedResult]) -> list[str]:
    """Return the table of parts, means over parts and seeds; nothing where no rise was measured."""
    measured = [each for each in results if each.way.bits is None and each.parts]
    if not measured:
        return []
    limits = _in_order(measured)
    lines = [
        "",
        "The parts of the blocks by how many blocks (or sublayers) use them: what rounding a part alone costs, in nats "
        "of the validation loss, and the bits it got.",
        "",
        f"| arm | used by | parts | {' | '.join(f'nats at {bits}' for bits in BITS)} | "
        f"{' | '.join(f'bits in {way}' for way in limits)} |",
        f"|{' --- |' * (3 + len(BITS) + len(limits))}",
    ]
    for label in dict.fromkeys(each.label for each in measured):
        own = [each for each in measured if each.label == label]
        once = list({each.run: each for each in own}.values())  # rises are the same at every limit
        for uses in sorted({len(part.unit.layers) for each in once for part in each.parts} - {0}):
            parts = [part for each in once for part in each.parts if len(part.unit.layers) == uses]
            rises = (float(np.mean([part.choices[bits].rise for part in parts])) for bits in BITS)
            chosen = (
                [part.bits for each in own if each.way == way for part in each.parts if len(part.unit.layers) == uses]
                for way in limits
            )
            cells = (
                *(_cell(label), str(uses), str(len(parts)), *(f"{rise:+.5f}" for rise in rises)),
                *(f"{np.mean(bits):.1f}" if bits else "–" for bits in chosen),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def unit_of(results: Sequence[PackedResult]) -> str:
    """Return what results are compared in: "bits/byte", "bits/base", or "perplexity" where the data have no bytes."""
    if any(each.before.bits_per_byte is None for each in results):
        return "perplexity"
    units = {each.unit for each in results}
    return units.pop() if len(units) == 1 else "bits/byte"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
