"""The figure of packed runs: how well networks predict against the bytes of their files."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tying_agents.compressing.packed_runs import PackedResult, unit_of
from tying_env.primary.evaluation import Evaluation
from tying_env.reports.drawing import arm_styles, as_label, fit_log_axis, legend_right, new_axes
from tying_env.reports.figures import cut_to
from tying_env.reports.learned import draw_frequencies
from tying_env.reports.pareto import pareto_front


def draw_packed(results: Sequence[PackedResult]) -> Figure:
    """Draw how well networks predict against the bytes of their files: small a run, large an arm packed in one way.

    The vertical axis is in bits of the data's own unit, or the perplexity where data have none. The steps join the
    means that no other beats in both. Dotted, where the axis reaches so far: what token frequencies alone give.

    Raises:
        ValueError: no network fitted.
    """
    found = [(each, each.after) for each in results if each.after is not None]
    if not found:
        least, limits = min(each.size for each in results), sorted({each.way.max_bytes for each in results})
        raise ValueError(
            f"no network fits in {' or '.join(f'{limit:,}' for limit in limits)} bytes: the smallest file possible of "
            f"any takes {least:,} bytes"
        )
    unit = unit_of(results)
    bits = unit != "perplexity"

    def value(evaluation: Evaluation) -> float:
        return float(evaluation.bits_per_byte if bits else evaluation.perplexity)  # type: ignore[arg-type]

    figure, axes = new_axes("Packed after training", "bytes of the file", f"test {unit}")
    means = []
    for label, style in arm_styles(list(dict.fromkeys(each.label for each, _ in found))).items():
        own = [(each, after) for each, after in found if each.label == label]
        places = [each.size for each, _ in own], [value(after) for _, after in own]
        axes.plot(*places, style.marker, color=style.colour, ms=4, alpha=0.4, mew=0)
        centres = []
        for way in dict.fromkeys(each.way for each, _ in own):
            some = [(each.size, value(after)) for each, after in own if each.way == way]
            centres.append(tuple(float(mean) for mean in np.mean(some, axis=0)))
        centres.sort()
        line = style.marker + style.line
        axes.plot(*zip(*centres, strict=True), line, color=style.colour, lw=1, ms=7, label=as_label(label))
        means += centres
    front = pareto_front([(size, at) for size, at in means])
    x, y = zip(*front, strict=True)
    axes.plot(x, y, "-", drawstyle="steps-post", color="#999999", lw=1, zorder=0, label="not beaten in both")
    draw_frequencies(axes, _frequencies(found, bits))
    cut_to(axes, [value(after) for _, after in found])
    fit_log_axis(axes, [float(each.size) for each, _ in found], "x")
    axes.grid(alpha=0.25)
    legend_right(figure)
    return figure


def _frequencies(found: Sequence[tuple[PackedResult, Evaluation]], bits: bool) -> float | None:
    """Return what token frequencies alone come to, in the unit of the axis; None where runs do not agree on it."""
    known = {each.frequencies for each, _ in found}
    perplexity = known.pop()
    if known or perplexity is None:
        return None
    after = found[0][1]
    return math.log(perplexity) * after.bits_per_byte / after.mean_loss if bits else perplexity  # type: ignore[operator]
