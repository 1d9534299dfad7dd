"""The report as one HTML file that opens offline: tables, figures, and how to read them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tying_env.reports.arms import Arm, settings_of, varying_settings
from tying_env.reports.cells import NOTHING, TextTable, format_p
from tying_env.reports.chance import compare_with_chance
from tying_env.reports.comparison import Comparison
from tying_env.reports.costs import cost_table, counted_in
from tying_env.reports.gallery import Picture, comparison_pictures, run_pictures
from tying_env.reports.loading import Run
from tying_env.reports.metrics import Metric
from tying_env.reports.page import for_page, render, write_page
from tying_env.reports.results import pairs_table, results_table
from tying_env.reports.sign_flips import ALPHA, detectable_effect_size, seeds_needed, smallest_p_value
from tying_env.reports.signatures import DOCS, signatures_of
from tying_env.reports.template import PAGE


@dataclass(frozen=True)
class ArmPictures:
    """The figures of one arm: those of its first run.

    Attributes:
        label: of the arm.
        seed: of the run.
        about: which run it is, in words.
        pictures: the figures.
    """

    label: str
    seed: int
    about: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Report:
    """A comparison with its figures drawn."""

    comparison: Comparison
    pictures: tuple[Picture, ...]
    arms: tuple[ArmPictures, ...]

    def all_pictures(self) -> list[Picture]:
        """Return every figure of the report."""
        return [*self.pictures, *(picture for arm in self.arms for picture in arm.pictures)]


def make_report(comparison: Comparison) -> Report:
    """Draw all figures of a comparison."""
    arms = []
    for number, summary in enumerate(comparison.arms, start=1):
        run = (summary.counted or summary.arm.runs)[0]
        about = f"The arm's first run: {run.status}, {run.path}"
        pictures = run_pictures(run, f"arm{number}-{summary.arm.label}")
        arms.append(ArmPictures(summary.arm.label, run.seed, about, tuple(pictures)))
    return Report(comparison, tuple(comparison_pictures(comparison)), tuple(arms))


def write_report(report: Report, path: Path, overwrite: bool = False) -> None:
    """Write a report as one HTML file; equal input gives an equal file.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        OSError: it cannot be written.
    """
    write_page(render_page(report), path, overwrite)


def render_page(report: Report) -> str:
    """Return the page; every text in it is escaped."""
    comparison = report.comparison
    arms = [summary.arm for summary in comparison.arms]
    runs = [run for arm in arms for run in arm.runs]
    size = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} in {len(arms)} {'arm' if len(arms) == 1 else 'arms'}"
    return render(
        PAGE,
        title="Dynamic layer tying: " + _listed([arm.label for arm in arms]),
        subtitle=f"{size}. Compared by {comparison.metric.name} "
        f"({comparison.metric.unit}); reference arm: {comparison.reference.label}.",
        notes=comparison.notes,
        results=results_table(comparison),
        pairs=pairs_table(comparison),
        cost=cost_table(comparison),
        glossary=_glossary(comparison),
        pictures=[for_page(picture) for picture in report.pictures],
        arms=[
            {"label": a.label, "seed": a.seed, "about": a.about, "pictures": [for_page(p) for p in a.pictures]}
            for a in report.arms
        ],
        runs=runs_table(runs, comparison.metric),
        varying=_varying_table(arms),
        common=_common_table(arms),
    )


def runs_table(runs: Sequence[Run], metric: Metric) -> TextTable:
    """Return every run with how it ended and what it came to."""
    own = f"independent {counted_in(runs)}"
    headings = ("arm", "seed", "status", "training step", metric.name, own, "z", "p (chance)", "path")
    return TextTable("All runs, also those without a result", headings, tuple(_run_cells(run, metric) for run in runs))


def _run_cells(run: Run, metric: Metric) -> tuple[str, ...]:
    value = run.result(metric)
    layers, z, p = NOTHING, NOTHING, NOTHING
    if run.records:
        chance = compare_with_chance(run.independent_layers(), *run.kinds.sizes)
        layers = f"{chance.mean:.2f}"
        if run.decides and not run.copied:
            p = format_p(chance.p_value)
            z = NOTHING if chance.chance_sd == 0 else f"{chance.z:+.1f}"
    return (
        run.label,
        str(run.seed),
        ", ".join([run.status, *(["collapsed"] if run.collapsed else []), *signatures_of(run)]),
        f"{run.records[-1]['train_step']:,}" if run.records else "0",
        run.why_no_result(metric) if value is None else f"{value:,.{metric.digits}f}",
        layers,
        z,
        p,
        str(run.path),
    )


def _varying_table(arms: Sequence[Arm]) -> TextTable:
    settings = [settings_of(arm.runs[0]) for arm in arms]
    rows = [(key, *(_text(s[key]) if key in s else NOTHING for s in settings)) for key in varying_settings(arms)]
    return TextTable("What the arms differ in", ("setting", *(arm.label for arm in arms)), tuple(rows))


def _common_table(arms: Sequence[Arm]) -> TextTable:
    varying = varying_settings(arms)
    common = [(key, _text(value)) for key, value in settings_of(arms[0].runs[0]).items() if key not in varying]
    return TextTable("What they have in common", ("setting", "value"), tuple(common))


def _listed(labels: Sequence[str]) -> str:
    """Return a title's worth of labels."""
    return ", ".join(labels) if len(labels) <= 4 else f"{', '.join(labels[:3])} and {len(labels) - 3} more arms"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _glossary(comparison: Comparison) -> list[tuple[str, str]]:
    reference = comparison.reference.label
    means = {f"{summary.chance.chance_mean:.2f}" for summary in comparison.arms if summary.chance is not None}
    by_chance = f", here {means.pop()}" if len(means) == 1 else ""  # arms may differ in L
    counted = counted_in(run for summary in comparison.arms for run in summary.arm.runs)
    return [
        (
            "IQM [95%]",
            "The interquartile mean over seeds: a quarter of the values is cut off at each end (nothing with fewer "
            "than four seeds). In brackets its 95% interval: the expanded percentile bootstrap; with fewer than five "
            "seeds it is as wide as a mean's interval. One seed has none.",
        ),
        (
            f"difference to {reference} [95%]",
            f"The mean over seeds of arm minus {reference}, each pair with the same seed, so with the same initial "
            f"weights and data, and in per cent of {reference}'s mean over these seeds. Below zero the arm's value is "
            "the lower one. In brackets its 95% interval: a t interval at level 98.5%, which makes up for skew. In "
            "simulations with five and more seeds this interval and that of the interquartile mean held the true "
            "value 93 to 99 times of 100, for normal, skewed and heavy-tailed values alike; of extremely skewed ones "
            "(lognormal, sigma 1) a mean's held it about 90 times. With three seeds both held it 92 to 99 times. An "
            f"arm that chose every tying as {reference} did and has equal results is said to be the same.",
        ),
        (
            "p, p (Holm)",
            "How often a mean difference at least this large would come up if every seed's sign were a coin flip: the "
            "exact paired permutation test, two-sided. n seeds cannot give less than 2/2^n: "
            f"{format_p(smallest_p_value(5))} for five, {format_p(smallest_p_value(6))} for six. Holm's correction "
            "accounts for the number of arms compared (in a table of pairs, for that of pairs); judge by that one. It "
            "multiplies the smallest p by their "
            f"number, so that with five arms compared {seeds_needed(5)} seeds are the fewest that can show anything. A "
            "large p does not show that arms are equal; look at the interval and the detectable difference.",
        ),
        (
            "detectable",
            "The smallest true mean difference that this permutation test would find with probability 0.8 (p < "
            f"{ALPHA}, before Holm's correction, which only makes it larger), simulated with normal differences as "
            f"widely spread as those found: {detectable_effect_size(6):.2f} of their standard deviations with six "
            f"seeds, {detectable_effect_size(8):.2f} with eight, {detectable_effect_size(12):.2f} with twelve. A "
            f"smaller effect could easily have been missed. Fewer than {seeds_needed()} seeds can find none, however "
            f"large: no p below {ALPHA} can come out.",
        ),
        (
            f"independent {counted} (chance)",
            f"{counted.capitalize()} with weights of their own, mean over all decisions. Uniformly random actions give "
            f"the harmonic number H_L = 1 + 1/2 + ... + 1/L on average{by_chance}. A controller near this number may "
            f"have learned nothing about how many {counted} to untie.",
        ),
        (
            "z, p (chance)",
            "How far that mean is from chance, in standard errors, and how probable so far a mean is either way "
            "(exact). Both suppose that decisions are independent of each other, which holds for the random agent "
            "only; patterns that decide nothing have none. For any other agent successive tyings hang together: as a "
            "rule z is too large and p too small, so "
            "take them as a description, not as a test.",
        ),
        (
            "trainable parameters",
            "Mean over decisions, and as a share of what conventional training has (every layer its own).",
        ),
        (
            "memory",
            "Weights, gradients and optimizer state, without activations: mean over decisions, and the peak.",
        ),
        (
            "frequencies alone",
            "What the frequencies of the training split's tokens (or classes) come to, the same at every position; the "
            "accuracy is the share of its most frequent class. A network near this has learned nothing else.",
        ),
        (
            "collapsed",
            "The network stayed there: long after it had come near the frequencies, less than 1% of its logits' mean "
            "square varied with position, and its validation perplexity was no better than theirs.",
        ),
        (
            "always ties, never ties, oscillates, explores at random to the end, perplexity swings",
            "Signs, in the last third of a run, that its controller has failed; fixed patterns, traces and chance "
            f"itself are judged by their perplexity alone. {DOCS} has the thresholds.",
        ),
        (
            "bits/byte, accuracy",
            "Interquartile mean of bits per byte of the same test text, which compares across tokenizers, as "
            "perplexity per token does not; of networks that classify, the share of the test images or "
            "utterances that they classify correctly.",
        ),
    ]
