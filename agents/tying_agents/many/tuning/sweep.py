"""Makes the trials of a sweep, several at a time, so that it can be stopped, resumed and made longer.

    <folder>/sweep.json             what is searched, around which settings
    <folder>/study.sqlite3          Optuna's storage: every trial with its values
    <folder>/trials/0003/seed1000   the runs of a trial; the test split is not touched

The same command, in one process or in several at once, makes the trials that are not there yet.
"""

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass

from filelock import FileLock
from optuna.trial import TrialState

from tying_agents.many.cluster import end_workers, in_parallel
from tying_agents.many.tuning import study as studies
from tying_agents.many.tuning.plan import STUDY_LOCK, SWEEP, Sweep, refuse_other_sweep, sweep_settings
from tying_agents.many.tuning.search import possible
from tying_agents.many.tuning.trial import make_one_trial
from tying_agents.running.runner import check
from tying_agents.stopping import StopFile, StoppedBySignal, StopSignals
from tying_env.files import to_json, written_whole

_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Standing:
    """How far a sweep is.

    Attributes:
        done: trials that are over.
        wanted: trials in all.
        pruned: of those that are over.
        failed: of those that are over.
        elsewhere: trials that some process is at work on.
        best: the lowest value of a complete trial, a validation perplexity; None if there is none.
        best_trial: its number.
    """

    done: int
    wanted: int
    pruned: int
    failed: int
    elsewhere: int
    best: float | None
    best_trial: int | None


def make_trials(sweep: Sweep, on_trial: Callable[[Standing], None], note: Callable[[str], None] = print) -> Standing:
    """Make all trials that are not there yet; those of a process that was killed are resumed.

    Ctrl-C or SIGTERM ends the runs under way after their training steps in progress, with checkpoints to resume from.

    Args:
        sweep: what to make.
        on_trial: is told how far it is before the first trial and after each; from any thread.
        note: is told of a signal.

    Returns:
        How far it is in the end: with other processes at work it need not be done.

    Raises:
        tying_agents.stopping.StoppedBySignal: there was a signal.
        ValueError: the folder holds another sweep or something else, or no run can be made. Nothing is written then.
        OSError: a data set is not there, or the disk is full, say; what was written before is whole.
        tying_env.plugins.ForeignCodeError: code of the user's own failed.
    """
    refuse_other_sweep(sweep)
    check(possible(sweep.searches, sweep.base))
    _remember(sweep)
    stop = StopFile(sweep.folder / f"stop-{os.getpid()}")
    stop.path.unlink(missing_ok=True)
    try:
        with StopSignals(note, stop.tell) as signals:
            standing = _make(sweep, on_trial, stop)
            if (asked := signals.asked or stop.asked) is not None:
                raise StoppedBySignal(asked)
            return standing
    finally:
        stop.path.unlink(missing_ok=True)
        if sweep.jobs > 1:
            end_workers()


def how_far(sweep: Sweep) -> Standing:
    """Return how far a sweep is."""
    with studies.opened(sweep) as study:
        trials = study.get_trials(deepcopy=False)
        values = [(t.value, t.number) for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
        best = min(values, default=(None, None))
        return Standing(
            done=sum(trial.state in _OVER for trial in trials),
            wanted=max(sweep.wanted, len(trials)),
            pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
            failed=sum(trial.state == TrialState.FAIL for trial in trials),
            elsewhere=len(studies.trials_at_work(study, sweep)),
            best=best[0],
            best_trial=best[1],
        )


def _make(sweep: Sweep, on_trial: Callable[[Standing], None], stop: StopFile) -> Standing:
    standing = how_far(sweep)
    on_trial(standing)
    # Those that others are at work on may be left by them meanwhile: hence more than one round.
    while (left := standing.wanted - standing.done - standing.elsewhere) > 0 and not stop.should_stop():
        before = standing.done
        try:
            in_parallel(
                make_one_trial,
                [(sweep, stop)] * left,
                lambda made: on_trial(how_far(sweep)) if not stop.should_stop() else None,
                backend="loky",
                address=None,
                jobs=sweep.jobs,
                threads=sweep.threads,
            )
        except BrokenExecutor:  # the signal may also end a worker that had not yet begun
            if stop.asked is None:
                raise
        standing = how_far(sweep)
        if standing.done == before:  # others took them
            break
    return standing


def _remember(sweep: Sweep) -> None:
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(sweep.folder / STUDY_LOCK):
        refuse_other_sweep(sweep)  # another process may have begun one meanwhile
        if not (sweep.folder / SWEEP).exists():
            with written_whole(sweep.folder / SWEEP) as unfinished:
                unfinished.write_text(to_json(sweep_settings(sweep), indent=2) + "\n", encoding="utf-8")
