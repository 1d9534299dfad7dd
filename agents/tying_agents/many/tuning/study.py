"""The storage of a sweep: Optuna's study in SQLite, its samplers and pruners, and who takes which trial.

Several processes work on one study. Each takes its trials under the study's lock and holds a lock of its own on every
trial it is at work on; the system drops locks with their process. So a trial that is running in the storage, but locked
by nobody, was left by a process that is gone: the next one takes it over and resumes its runs.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from tying_agents.by_trial import ByTrial
from tying_agents.many.tuning.plan import STORAGE, STUDY_LOCK, Sweep
from tying_agents.many.tuning.search import Search

# Seconds for which one process waits for another to finish writing.
_PATIENCE = 120.0
# Of successive halving and hyperband: a third of the trials goes on from each rung. (Hyperband's paper and Optuna's
# default for it; Optuna's default for successive halving is 4.)
_REDUCTION = 3


def distribution(search: Search) -> BaseDistribution:
    """Return a search as Optuna has it."""
    if search.choices:
        return CategoricalDistribution(search.stored())
    if search.whole:
        step = 1 if search.step is None else int(search.step)
        return IntDistribution(int(search.low), int(search.high), log=search.log, step=step)
    return FloatDistribution(search.low, search.high, log=search.log, step=search.step)


def make_sampler(sweep: Sweep) -> BaseSampler:
    """Return what chooses the next values."""
    samplers = optuna.samplers
    if sweep.sampler == "grid":
        points = {search.name: search.grid() or () for search in sweep.searches}
        return ByTrial(lambda seed: samplers.GridSampler(points, seed=sweep.seed), sweep.seed)  # one order for all
    make: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: samplers.TPESampler(seed=seed),
        "random": lambda seed: samplers.RandomSampler(seed=seed),
        "cmaes": lambda seed: samplers.CmaEsSampler(seed=seed),
        "gp": lambda seed: samplers.GPSampler(seed=seed),
    }
    return ByTrial(make[sweep.sampler], sweep.seed)


def make_pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    """Return what ends trials early; its steps are training steps, over all seeds of a trial."""
    one_run = sweep.base.episodes * sweep.base.env.total_steps
    first, last = sweep.base.env.validate_every, one_run * len(sweep.seeds)
    if sweep.pruner == "median":
        # While the first quarter of a run lasts, a small learning rate looks worse than it is.
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=one_run // 4)
    if sweep.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min(first, last), last, _REDUCTION)
    if sweep.pruner == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(first, _REDUCTION)
    return optuna.pruners.NopPruner()


@contextlib.contextmanager
def opened(sweep: Sweep) -> Iterator[optuna.Study]:
    """Open the study, which is made if need be; the connection is closed at the end.

    Raises:
        OSError: the storage cannot be opened, read or written; then, or while it is used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = sweep.folder / STORAGE
    storage: optuna.storages.RDBStorage | None = None
    try:
        with FileLock(sweep.folder / STUDY_LOCK, timeout=_PATIENCE):
            with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # kept in the file: readers and a writer side by side
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}}
            )
            study = optuna.create_study(
                storage=storage,
                sampler=make_sampler(sweep),
                pruner=make_pruner(sweep),
                study_name="sweep",
                direction="minimize",
                load_if_exists=True,
            )
        yield study
    except (sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise OSError(f"the storage {path} cannot be used: {error}") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


@dataclass(frozen=True)
class Claim:
    """A trial that this process is at work on."""

    trial: optuna.Trial
    lock: FileLock

    def release(self) -> None:
        """Let others have it."""
        self.lock.release()


def claim(study: optuna.Study, sweep: Sweep) -> Claim | None:
    """Take a trial that was left by a process that is gone, or else a new one; None if there are enough.

    Raises:
        OSError: its folder cannot be made.
    """
    with FileLock(sweep.folder / STUDY_LOCK, timeout=_PATIENCE):
        trials = study.get_trials(deepcopy=False)
        for left in trials:
            if left.state == TrialState.RUNNING and (lock := _locked(sweep, left.number)) is not None:
                # A trial's process ends it before it drops the trial's lock, but it may do both after the list above
                # was read: what the storage says now, with the lock held, is what holds.
                if study._storage.get_trial(left._trial_id).state.is_finished():
                    lock.release()
                    continue
                # Optuna has no call that gives a running trial back: its own retry makes a new one of another number.
                return Claim(_suggested(optuna.Trial(study, left._trial_id), sweep.searches), lock)
        if len(trials) >= sweep.wanted:
            return None
        trial = study.ask()
        lock = _locked(sweep, trial.number)
        assert lock is not None, "nobody knows of this trial before the study's lock is released"
        return Claim(_suggested(trial, sweep.searches), lock)


def trials_at_work(study: optuna.Study, sweep: Sweep) -> list[int]:
    """Return the numbers of the trials that some process is at work on."""
    numbers = []
    with FileLock(sweep.folder / STUDY_LOCK, timeout=_PATIENCE):  # what is locked here for a moment is not missed there
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = _locked(sweep, trial.number)
            if lock is None:
                numbers.append(trial.number)
            else:
                lock.release()
    return numbers


def _suggested(trial: optuna.Trial, searches: Sequence[Search]) -> optuna.Trial:
    """Draw what has not been drawn for this trial yet."""
    for search in searches:
        kind = distribution(search)
        if isinstance(kind, CategoricalDistribution):
            trial.suggest_categorical(search.name, kind.choices)
        elif isinstance(kind, IntDistribution):
            trial.suggest_int(search.name, kind.low, kind.high, step=kind.step, log=kind.log)
        elif isinstance(kind, FloatDistribution):
            trial.suggest_float(search.name, kind.low, kind.high, step=kind.step, log=kind.log)
    return trial


def _locked(sweep: Sweep, number: int) -> FileLock | None:
    """Return the lock of a trial; None if another process has it."""
    folder = sweep.trial_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock
