"""Runs many runs: arms over seeds, side by side, so that they can be stopped, continued and added to.

    <folder>/comparison.json                    the arms, in the order of the report's rows
    <folder>/tuning/<arm>/lr<rate>/seed<n>      runs that choose an arm's learning rate; the test split is not touched
    <folder>/runs/<arm>/seed<n>                 the runs that are compared

Every arm sees the same initial weights and batches for the same seed, for they come from streams of their own
(`tying_env.seeding`), and chooses its own learning rate where there is a grid. Runs that are finished stay: more arms,
seeds or rates can be asked for later, other settings of finished runs are refused.
"""

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

from tying_agents.many.checks import check_comparison, refuse_changes
from tying_agents.many.cluster import end_workers, in_parallel
from tying_agents.many.one_run import make_one_run, saying_which
from tying_agents.many.plan import ArmSpec, RunPlan, planned_run, tuning_runs, with_rate
from tying_agents.many.rates import chosen_learning_rate, rates_looked_at
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import check
from tying_agents.stopping import StopFile, StoppedBySignal, StopSignals
from tying_env.files import to_json, written_whole
from tying_env.reports.loading import COMPARISON
from tying_env.runs.run_directory import SUMMARY


def make_comparison(
    arms: Sequence[ArmSpec], plan: RunPlan, on_run: Callable[[int, int], None], note: Callable[[str], None] = print
) -> None:
    """Make all runs that are not there yet.

    Ctrl-C or SIGTERM ends the runs under way after their training steps in progress, with checkpoints to resume from.

    Args:
        arms: what to compare; an arm stands behind those it needs.
        plan: seeds, learning rates and where to run.
        on_run: is told (runs done, runs in all) before the first run and after each.
        note: is told of a signal.

    Raises:
        tying_agents.stopping.StoppedBySignal: there was one.
        ValueError: arms do not fit each other, an agent cannot be made, or the folder holds finished runs with other
            settings, or something else. Nothing is written then, unless only the runs of earlier arms could show it.
        OSError, tying_env.plugins.ForeignCodeError: a run failed; the message says which.
        FileNotFoundError: a trace or pattern file is not there.
    """
    labels, before = [arm.label for arm in arms], check_comparison(arms, plan)
    for arm in arms:
        if not arm.after:
            check(arm.configure(plan.folder / "runs", plan.seeds[0]))
    remember_arms(plan.folder, [*labels, *(label for label in before if label not in labels)])
    stop = StopFile(plan.folder / f"stop-{os.getpid()}")
    stop.path.unlink(missing_ok=True)
    try:
        with StopSignals(note, stop.tell) as signals:
            _make_runs(arms, plan, on_run, stop)
            if signals.asked is not None:  # too late to stop a run
                raise StoppedBySignal(signals.asked)
    finally:
        stop.path.unlink(missing_ok=True)
        end_workers()


def _make_runs(arms: Sequence[ArmSpec], plan: RunPlan, on_run: Callable[[int, int], None], stop: StopFile) -> None:
    made: set[Path | None] = set()

    def total() -> int:  # of a climb over rates more may turn out to be needed
        rates = sum(len(rates_looked_at(arm.label, plan)[0]) for arm in arms)
        return rates * len(plan.tuning_seeds) + len(arms) * len(plan.seeds)

    def make(configurations: list[RunConfig]) -> None:
        new = [config for config in configurations if config.run_dir not in made]
        first, most = len(made), total()
        make_waiting(new, plan, stop, lambda finished: on_run(first + finished, most))
        made.update(config.run_dir for config in new)

    def tune(wave: list[ArmSpec]) -> None:
        looked_at = {arm.label: rates_looked_at(arm.label, plan)[0] for arm in wave}
        make([config for arm in wave for config in tuning_runs(arm, plan, looked_at[arm.label])])
        if any(rates_looked_at(label, plan)[0] != rates for label, rates in looked_at.items()):
            tune(wave)

    on_run(0, total())

    ready: set[str] = set()
    while len(ready) < len(arms):  # arms that need no run that is still to come
        wave = [arm for arm in arms if arm.label not in ready and set(arm.after) <= ready]
        tune(wave)
        make([final_run(arm, plan, seed) for arm in wave for seed in plan.seeds])
        ready |= {arm.label for arm in wave}


def make_waiting(
    configurations: Sequence[RunConfig], plan: RunPlan, stop: StopFile, on_run: Callable[[int], None]
) -> None:
    """Make those of these runs that are not there yet.

    Args:
        configurations: of the runs, each with a folder of its own.
        plan: where to make them.
        stop: asks them to stop.
        on_run: is told how many are there, before the first run and after each.

    Raises:
        As `make_comparison`.
    """
    for config in configurations:
        refuse_changes(config)
    waiting = [config for config in configurations if not _finished(config)]
    there = len(configurations) - len(waiting)
    on_run(there)
    try:
        in_parallel(
            _make_run,
            [(config, plan.threads, stop) for config in waiting],
            lambda finished: on_run(there + finished) if not stop.should_stop() else None,
            backend=plan.backend,
            address=plan.address,
            jobs=plan.jobs,
            threads=plan.threads,
        )
    except BrokenExecutor:  # the signal may also end a worker that had not yet begun
        if stop.asked is None:
            raise
    if any(not _finished(config) for config in waiting):
        raise StoppedBySignal(stop.asked or signal.SIGTERM)


def _make_run(config: RunConfig, threads: int, stop: StopFile) -> str:
    with saying_which(config, f"arm {config.label}"):
        return make_one_run(config, threads, stop)


def final_run(arm: ArmSpec, plan: RunPlan, seed: int) -> RunConfig:
    """Return a run that is compared, at the learning rate that was chosen for its arm."""
    return with_rate(planned_run(arm, plan, seed), chosen_learning_rate(arm.label, plan))


def _finished(config: RunConfig) -> bool:
    assert config.run_dir is not None
    return (config.run_dir / SUMMARY).exists()


def remember_arms(folder: Path, labels: list[str]) -> None:
    """Write down which arms a folder has, in the order of the report's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / COMPARISON) as unfinished:
        unfinished.write_text(to_json({"arms": labels}, indent=2) + "\n", encoding="utf-8")
