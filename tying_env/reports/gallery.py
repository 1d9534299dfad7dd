"""All figures of a report, with names and captions; what cannot be drawn says why, and the rest is drawn."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from tying_env.reports import alignment_figure, figures, learned, pareto, run_figures, sensitivity_figure
from tying_env.reports.comparison import Comparison
from tying_env.reports.loading import Run


@dataclass(frozen=True)
class Picture:
    """One figure of a report.

    Attributes:
        name: fit for a file.
        caption: what it shows, in plain words.
        figure: the figure, or None.
        problem: why there is none, else empty.
    """

    name: str
    caption: str
    figure: Figure | None
    problem: str = ""


_OF_A_RUN: tuple[tuple[str, Callable[[Run], Figure], str], ...] = (
    (
        "replication-map",
        run_figures.replication_map,
        "Which layers share weights at the end of training (the paper's Figure 1).",
    ),
    (
        "learning",
        learned.learning,
        "Validation perplexity against what the training split's frequencies alone give, and the share of the logits' "
        "mean square that varies with position. A network that stays at the line with a share near 0 has collapsed: "
        "it says the same whatever it reads.",
    ),
    (
        "training",
        learned.training,
        "Learning rate of the last training step, norm of the gradient (mean over the steps since the tying was "
        "changed) and the reward that the agent saw, at every decision.",
    ),
    (
        "tying-events",
        run_figures.tying_events,
        "How many layers began to copy another one (tied) or got weights of their own (untied) at each decision "
        "(the paper's Figure 2). Dashed: the mean if every action were random.",
    ),
    (
        "trainable-steps",
        run_figures.trainable_steps,
        "For how many training steps each layer had weights of its own (the paper's Figure 3). The dashes fall as "
        "1/(layer + 1): random actions alone give that.",
    ),
    (
        "tying-raster",
        run_figures.tying_raster,
        "The leader of every layer at every decision, and how many were independent against what chance gives.",
    ),
    (
        "memory",
        run_figures.memory_over_time,
        "Bytes of weights, gradients and optimizer state; activations are not in it. The dashed line has every layer "
        "independent.",
    ),
    (
        "correlations",
        run_figures.feed_forward_correlations,
        "How alike the feed-forward weights of the independent layers are at the end (the paper's Figure 4): 1 is "
        "equal up to scale, 0 unrelated. Layers that were tied until lately are near-copies of one ancestor: where "
        "every r is above 0.99, 1 - r is shown.",
    ),
    (
        "alignment",
        alignment_figure.alignment,
        "How far every two layers of the network at the end are aligned: the mean cosine between their attention "
        "heads, their feed-forward units and their channels of the residual stream, where these are paired as well as "
        "can be (above) and where each is paired with that in the same place (below). 0 is what chance gives "
        "(independent random weights above, a random pairing below), 1 is equal weights. Bright above and dark below: "
        "alike, but in another order.",
    ),
)


def comparison_pictures(comparison: Comparison) -> list[Picture]:
    """Draw the figures that compare arms."""
    arms = [summary.arm for summary in comparison.arms]
    found = [
        picture(
            "learning-curves",
            "Mean over the seeds of finished runs; the band is the 95% interval of that mean, point by point, cut "
            "off where it goes beyond all runs; two seeds have none. A thin line that ends in a cross is a run that "
            "did not finish. Dotted: what the training split's frequencies alone give.",
            lambda: figures.learning_curves(arms),
        ),
        picture(
            "results",
            "Small: one run. Large: the interquartile mean over seeds, with its 95% interval, cut off where it goes "
            "beyond all runs. Dotted, where the axis reaches so far: what the training split's frequencies alone give.",
            lambda: figures.results_by_arm(comparison),
        ),
        picture(
            "pareto",
            "Small: one run. Large: the interquartile mean over seeds, with its 95% interval, cut off where it goes "
            "beyond all runs. A good result far to the left is best; the grey steps join the arms that no other arm "
            "beats in both.",
            lambda: pareto.pareto(comparison),
        ),
        picture(
            "cost-of-change",
            "Small: one run. Large: the interquartile mean over seeds, with its 95% interval, cut off where it goes "
            "beyond all runs. Arms with as many groups, the number in brackets, differ in what changing costs.",
            lambda: figures.cost_of_change(comparison),
        ),
        picture(
            "training-speed",
            "One mark a run, a bar for the mean. Runs that shared a machine with other work are slower; compare arms "
            "only if they had the same conditions.",
            lambda: figures.training_speed(arms),
        ),
    ]
    if pareto.has_bytes(comparison):
        found.insert(
            3,
            picture(
                "pareto-bytes",
                "The same against bytes: each weight of the best network once, matrices in so many bits a weight with "
                "a scale for each row, vectors in 16 bits. layer-tying pack writes such files, entropy-coded, and "
                "draws what is left of the result then.",
                lambda: pareto.pareto_bytes(comparison),
            ),
        )
    if sensitivity_figure.settings_varied(comparison):
        found.append(
            picture(
                "sensitivity",
                "Arms that differ from the reference arm (diamond) in one number alone, but for a learning rate of "
                "their own: their paired difference to it in percent, with its 95% interval.",
                lambda: sensitivity_figure.sensitivity(comparison),
            )
        )
    return found


def run_pictures(run: Run, prefix: str) -> list[Picture]:
    """Draw the figures of a single run."""
    stem = re.sub(r"[^A-Za-z0-9.+-]+", "-", prefix)
    return [picture(f"{stem}-{name}", caption, functools.partial(draw, run)) for name, draw, caption in _OF_A_RUN]


def picture(name: str, caption: str, draw: Callable[[], Figure]) -> Picture:
    """Draw a figure; if that fails, the picture says why.

    Args:
        name: fit for a file.
        caption: what it shows.
        draw: returns the figure.
    """
    try:
        return Picture(name, caption, draw())
    except (ValueError, OSError) as error:  # what a figure says of itself
        return Picture(name, caption, None, str(error))
    except Exception as error:  # a mistake in one figure must not cost the others, or the tables
        return Picture(name, caption, None, failure(error))


def failure(error: Exception) -> str:
    """Return what went wrong in a figure, in words for the place where it would stand."""
    return f"it failed with {type(error).__name__}: {error}"
