"""Sorts runs into arms: runs with one label, over seeds.

Nothing is dropped in silence: a run without a result stays in its arm with the reason, and whatever makes arms hard to
compare is put in words by `comparability_notes`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tying_env.config import PLACE_SETTINGS, EnvConfig
from tying_env.reports.loading import Run
from tying_env.reports.metrics import Metric
from tying_env.reports.signatures import DOCS, signatures_of

# What is not a setting: runs may differ in it, and in PLACE_SETTINGS, and still be one arm.
_NO_SETTINGS = frozenset({"seed", "label", "run_dir", "started", "git_commit", "versions", "platform", "layout"})
_NO_SETTINGS |= {"callbacks", "checkpoint_every", "keep_checkpoints"}  # how a run is watched and kept
# Differ from run to run within an arm by design, together: each may replay a trace of its own.
_BY_DESIGN = frozenset({"controller.trace", "file_sha256"})
# With these different, results are about different texts or in different units.
YARDSTICK_SETTINGS = ("model", "dataset", "tokenizer", "seq_len", "validation_windows", "test_windows")


@dataclass(frozen=True)
class Arm:
    """Runs with one label and the same settings.

    Attributes:
        label: its name.
        runs: one for each seed, in the order of the seeds.
        left_out: runs in whose place a newer one of the same seed counts.
    """

    label: str
    runs: tuple[Run, ...]
    left_out: tuple[Run, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all its runs."""
        return tuple(run.seed for run in self.runs)

    def results(self, metric: Metric) -> dict[int, float]:
        """Return seed -> value for the runs that have one."""
        values = {run.seed: run.result(metric) for run in self.runs}
        return {seed: value for seed, value in values.items() if value is not None}


def group_into_arms(runs: Sequence[Run]) -> list[Arm]:
    """Sort runs into arms by label, in the order in which labels come up; seeds in ascending order.

    Runs of one label with other settings are arms of their own, named by what differs from the settings of the
    plainest run, that with the fewest settings that are not defaults, and of several the first. But where no seed of a
    label starts from two checkpoints, its seeds may start each from its own, which is noted.
    Of several runs of one arm and seed the newest finished one counts.
    """
    arms: dict[str, list[Run]] = {}
    plainest: dict[str, Run] = {}
    starts: dict[tuple[str, int], set[str | None]] = {}
    for run in runs:
        starts.setdefault((run.label, run.seed), set()).add(run.env.get("init_from"))
        if _changed(run) < _changed(plainest.setdefault(run.label, run)):
            plainest[run.label] = run
    several = {label for (label, _), checkpoints in starts.items() if len(checkpoints) > 1}
    for run in runs:
        # Agents' own settings may differ in an arm: each run can replay a trace of its own, say. That is noted.
        differ = {k: v for k, (_, v) in _differences(plainest[run.label], run).items() if "." not in k}
        label = run.label
        if label not in several:
            differ.pop("init_from", None)
        if differ:
            label += f" ({', '.join(f'{name} {_text(value)}' for name, value in differ.items())})"
        arms.setdefault(label, []).append(run)
    return [_one_run_for_each_seed(label, members) for label, members in arms.items()]


def _changed(run: Run) -> int:
    """Return how many settings of the environment are not at their defaults."""
    return sum(value != getattr(EnvConfig, name, value) for name, value in run.env.items())


def _one_run_for_each_seed(label: str, runs: Sequence[Run]) -> Arm:
    newest: dict[int, Run] = {}
    oldest_first = sorted(runs, key=lambda run: (run.status == "finished", str(run.config.get("started", ""))))
    for run in oldest_first:
        newest[run.seed] = run
    left_out = tuple(run for run in runs if run is not newest[run.seed])
    return Arm(label, tuple(newest[seed] for seed in sorted(newest)), left_out)


def settings_of(run: Run) -> dict[str, Any]:
    """Return what decides a run's results but for seed and software, flat: `learning_rate`, `controller.gamma`.

    Settings of the environment stand by their own names.
    """
    settings: dict[str, Any] = {}
    for key, value in run.config.items():
        if key in _NO_SETTINGS:
            continue
        if not isinstance(value, dict):
            settings[key] = value
        elif key == "env":
            settings |= {name: entry for name, entry in value.items() if name not in PLACE_SETTINGS}
        else:
            settings |= {f"{key}.{name}": entry for name, entry in value.items()}
    return settings


def varying_settings(arms: Sequence[Arm]) -> list[str]:
    """Return the settings in which arms differ: what defines them.

    An agent's own settings are compared among the arms that have them.
    """
    settings = [settings_of(arm.runs[0]) for arm in arms]

    def values(key: str) -> list[Any]:
        own = key.startswith("controller.")
        return [each.get(key) for each in settings if key in each or not own]

    return [key for key in _union(settings) if any(value != values(key)[0] for value in values(key))]


def did_the_same(arm: Arm, other: Arm, seeds: Sequence[int]) -> bool:
    """Return whether two arms chose every tying alike in each of these seeds, and came to the same results.

    Results may differ by rounding, a millionth: threads add up in an order of their own. A DQN that still explores does
    the same as uniformly random actions, for example, since both draw from one stream.
    """
    mine, theirs = ({run.seed: run for run in one.runs} for one in (arm, other))
    return all(
        mine[seed].column("tying") == theirs[seed].column("tying")
        and all(_about_equal(a, b) for a, b in zip(mine[seed].measured(), theirs[seed].measured(), strict=True))
        for seed in seeds
    )


def _about_equal(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-6)


def comparability_notes(arms: Sequence[Arm], reference: Arm, metric: Metric) -> list[str]:
    """Return, in sentences, everything that a reader of the comparison should beware of."""
    notes = []
    yardsticks = [key for key in varying_settings(arms) if key in YARDSTICK_SETTINGS]
    if yardsticks:
        notes.append(
            f"Arms differ in {', '.join(yardsticks)}: their results are not on one scale, and differences say nothing "
            "about tying."
        )
    without = [(arm, run) for arm in arms for run in arm.runs if run.result(metric) is None]
    for arm, run in without:
        notes.append(f"{arm.label}, seed {run.seed}: {run.why_no_result(metric)}. It counts in no mean.")
    if any(run.status == "diverged" for _, run in without):
        notes.append("An arm whose diverged runs are left out looks better than it is.")
    theirs = reference.results(metric)
    for arm in arms:
        mine = arm.results(metric)
        if arm is not reference and mine.keys() != theirs.keys():
            common = sorted(mine.keys() & theirs.keys())
            covers = f"the seeds {_listed(common)} only" if common else "nothing: they have no seed in common"
            notes.append(
                f"{arm.label} has results of the seeds {_listed(sorted(mine))}, {reference.label} of "
                f"{_listed(sorted(theirs))}: pairing covers {covers}."
            )
        if len(mine) == 1:
            notes.append(f"{arm.label} has one seed with a result: no interval and no test.")
    for arm in arms:
        if collapsed := [run.seed for run in arm.runs if run.collapsed]:
            notes.append(
                f"{arm.label} collapsed in {len(collapsed)} of {len(arm.runs)} runs (seeds {_listed(collapsed)}): "
                "networks ended at the frequencies of the training split, with an output that hardly depends on the "
                "input. Such runs say nothing about tying; docs/recipe.md has the remedy."
            )
    for arm in arms:
        if behind := [run.seed for run in arm.runs if not run.collapsed and _is_behind_frequencies(run, metric)]:
            notes.append(
                f"{arm.label} is no better than frequencies alone in {len(behind)} of {len(arm.runs)} runs (seeds "
                f"{_listed(behind)}): those networks have not learned yet, and say nothing about tying. Train longer."
            )
    notes += [note for arm in arms for note in _signature_notes(arm)]
    notes += _edge_notes(arms)
    for arm in arms:
        notes += _trial_notes(arm)
        idle = [run for run in arm.runs if _never_learned(run)]
        if idle:
            notes.append(
                f"{arm.label} never learned before its last decision: it learns after every "
                f"{_rollout(idle[0])} decisions and made {len(idle[0].records)}."
            )
    notes += [left_out_note(arm, run) for arm in arms for run in arm.left_out]
    for arm in arms:
        differ = {key for run in arm.runs[1:] for key in _differences(arm.runs[0], run)}
        if differ:
            notes.append(f"The runs of {arm.label} differ in {', '.join(sorted(differ))}.")
    runs = [run for arm in arms for run in arm.runs]
    if changed := [key for key in ("git_commit", "versions", "platform") if _distinct(runs, key) > 1]:
        notes.append(f"Not all runs were made with the same {', '.join(changed).replace('_', ' ')}: see config.json.")
    if any(run.config.get("episodes", 1) > 1 for run in runs):
        notes.append("Some agents learned over several episodes; everything here is about each run's last one.")
    return notes


def _is_behind_frequencies(run: Run, metric: Metric) -> bool:
    mine, theirs = run.result(metric), run.frequencies(metric)
    if mine is None or theirs is None:
        return False
    return mine <= theirs if metric.higher else mine >= theirs


def _signature_notes(arm: Arm) -> list[str]:
    """Name the signs of failure of an arm's controller, each with the seeds in which it was found."""
    found: dict[str, list[int]] = {}
    for run in arm.runs:
        for name in signatures_of(run):
            found.setdefault(name, []).append(run.seed)
    return [
        f"{arm.label}: {name}, in {len(seeds)} of {len(arm.runs)} runs (seeds {_listed(seeds)}). {DOCS} says what to "
        "make of it."
        for name, seeds in found.items()
    ]


def left_out_note(arm: Arm, run: Run) -> str:
    """Return which run counts in place of one that is left out of an arm, and in what they differ."""
    counted = next(other for other in arm.runs if other.seed == run.seed)
    differ = ", ".join(_differences(counted, run))
    return (
        f"{arm.label} has seed {run.seed} more than once: {counted.path} counts, the newest "
        f"{'finished ' if counted.status == 'finished' else ''}run. Left out: {run.path} "
        f"({run.status}{f'; differs in {differ}' if differ else ''})."
    )


def _trial_notes(arm: Arm) -> list[str]:
    """Say how much of the training went into trials, and whether it was paid for."""
    notes = []
    if any(steps := [run.last["trial_steps"] for run in arm.runs if "trial_steps" in run.last]):
        own = sum(run.last["train_step"] for run in arm.runs) / len(arm.runs)
        notes.append(
            f"{arm.label} spent {sum(steps) / len(steps):,.0f} of its training steps a run on trials; its network was "
            f"trained for {own:,.0f}."
        )
    # Of an earlier version, in which nobody paid for them.
    if any(steps := [run.last["counterfactual_steps"] for run in arm.runs if "counterfactual_steps" in run.last]):
        notes.append(
            f"{arm.label} also trained {sum(steps) / len(steps):,.0f} steps a run on counterfactuals: its budget "
            "is larger by as much."
        )
    return notes


def _edge_notes(arms: Sequence[Arm]) -> list[str]:
    """Warn of arms whose best learning rate is the least or greatest that was tried."""
    notes: dict[str, list[str]] = {}
    for arm in arms:
        tuning = arm.runs[0].path.absolute().parents[2] / "tuning" / arm.label
        tried = sorted(float(folder.name.removeprefix("lr")) for folder in tuning.glob("lr*"))
        rate = arm.runs[0].env["learning_rate"]
        if len(tried) > 1 and rate in (tried[0], tried[-1]):
            which = "least" if rate == tried[0] else "greatest"
            notes.setdefault(f"{rate:g}, the {which} of {', '.join(f'{r:g}' for r in tried)}", []).append(arm.label)
    return [
        f"The best learning rate lies on the edge of the grid for {', '.join(labels)} ({where}): a rate beyond it may "
        "be better still. Extend the grid."
        for where, labels in notes.items()
    ]


def _never_learned(run: Run) -> bool:
    n_steps = _rollout(run)
    decisions = len(run.records) * int(run.config.get("episodes", 1))
    return n_steps is not None and run.status == "finished" and decisions <= n_steps


def _rollout(run: Run) -> int | None:
    """Return the decisions between two updates of an SB3 agent; None of others, and of runs that did not note it."""
    found = (run.summary or {}).get("learns_every")
    return None if found is None else int(found)


def _differences(one: Run, other: Run) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which runs of an arm differ, but for those that do by design."""
    mine, theirs = settings_of(one), settings_of(other)
    differ = {key: (mine.get(key), theirs.get(key)) for key in _union([mine, theirs])}
    differ = {key: values for key, values in differ.items() if values[0] != values[1]}
    own_trace = "controller.trace" in differ  # another text in the same file is another arm
    return {key: values for key, values in differ.items() if not (own_trace and key in _BY_DESIGN)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _distinct(runs: Sequence[Run], key: str) -> int:
    return len({json.dumps(run.config.get(key), sort_keys=True) for run in runs})


def _union(settings: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for one in settings for key in one))


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"
