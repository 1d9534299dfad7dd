"""One trial of a sweep: a run for each seed, judged while it goes, and what the storage is told in the end."""

import dataclasses
import math
from collections.abc import Sequence

import optuna
from optuna.trial import TrialState

from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop
from tying_agents.many.one_run import give_its_name, make_one_run, saying_which
from tying_agents.many.plan import unfinished_folder
from tying_agents.many.tuning.plan import Sweep
from tying_agents.many.tuning.search import with_values
from tying_agents.many.tuning.study import claim, opened
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import check
from tying_agents.stopping import StopFile
from tying_env.plugins import ForeignCodeError
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import SUMMARY

# What the storage holds beside Optuna's own: the value of each seed's run, why a trial failed, and the number of an
# earlier trial with the same values.
PERPLEXITIES, FAILURE, SAME_AS = "perplexities", "failure", "same_as"


class Reporter(Callback):
    """Tells the storage of every measurement on the validation split, and stops the run if the pruner says so.

    A trial's value along the way is the mean over its seeds so far, of each the best perplexity so far. Its step is
    the training step, over all seeds: the multiple of `validate_every` that was due, so that trials with different k
    can be compared.

    Args:
        trial: is told.
        before: best perplexities of the seeds that are done.
        last: whether this is the last seed: then there is nothing left to save at its end.

    Attributes:
        pruned: whether it stopped the run.
    """

    def __init__(self, trial: optuna.Trial, before: Sequence[float], last: bool) -> None:
        self._trial = trial
        self._before = list(before)
        self._last = last
        self._best = math.inf
        self.pruned = False

    def run_begins(self, loop: Loop) -> None:
        """Look up what the run had measured before it was stopped."""
        if loop.decisions and loop.directory is not None:
            records = RunDirectory(loop.directory).read_metrics()
            found = [r["validation_perplexity"] for r in records if r["episode"] == loop.episode]
            self._best = min((value for value in found if value is not None), default=math.inf)

    def episode_begins(self, loop: Loop, tying: object) -> None:
        """Forget the last episode: a run's result is that of its last episode."""
        self._best = math.inf

    def validation_measured(self, loop: Loop, record: Record) -> None:
        """Report, and ask the pruner."""
        if not math.isfinite(record["validation_perplexity"]):
            return
        self._best = min(self._best, record["validation_perplexity"])
        step, said = self._step(loop), said_before(self._trial)
        if said and step < max(said):  # measured again after a crash; the pruner has let it pass
            return
        if step not in said:
            self._trial.report(_mean([*self._before, self._best]), step)
        if not (self._last and loop.finished) and self._trial.should_prune():
            self.pruned = True
            loop.stop(f"pruned: a validation perplexity of {self._best:,.2f} by now is not promising")

    def _step(self, loop: Loop) -> int:
        config, inside = loop.inner.config, loop.inner.train_step
        due = inside if inside >= config.total_steps else inside // config.validate_every * config.validate_every
        return int(len(self._before) * loop.total_steps + loop.train_step - inside + due)


def make_one_trial(sweep: Sweep, stop: StopFile) -> str:
    """Make a trial that is left or a new one.

    Returns:
        How it ended: complete, pruned, failed; interrupted, terminated or waiting if it was asked to stop; "none" if
        there is none to make.

    Raises:
        OSError: the disk is full, say. The trial is resumed by the next process.
        tying_env.plugins.ForeignCodeError: code of the user's own failed; likewise.
    """
    if stop.should_stop():
        return "waiting"
    with opened(sweep) as study:
        claimed = claim(study, sweep)
        if claimed is None:
            return "none"
        try:
            return _make_runs(study, claimed.trial, sweep, stop)
        finally:
            claimed.release()


def said_before(trial: optuna.Trial) -> dict[int, float]:
    """Return what a trial has reported, value by step, whichever process it was in."""
    return trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values


def _make_runs(study: optuna.Study, trial: optuna.Trial, sweep: Sweep, stop: StopFile) -> str:
    if (ended := _as_an_equal_one(study, trial)) is not None:
        return ended
    found: list[float] = []
    try:
        values = [(search, search.value(trial.params[search.name])) for search in sweep.searches]
        chosen = with_values(sweep.base, values)
        if not any(sweep.trial_folder(trial.number).glob("seed*")):
            check(chosen)
    except (ValueError, TypeError) as error:  # settings that do not go together
        return _failed(study, trial, str(error))
    for number, seed in enumerate(sweep.seeds):
        folder = sweep.trial_folder(trial.number) / f"seed{seed}"
        label = f"trial {trial.number}"
        config = dataclasses.replace(chosen, seed=seed, label=label, run_dir=folder, measure_test=False)
        reporter = Reporter(trial, found, last=number == len(sweep.seeds) - 1)
        begun = folder.exists() or unfinished_folder(config).exists()
        if found and not begun and trial.should_prune():  # by what the seeds before this one came to
            study.tell(trial, state=TrialState.PRUNED)
            return "pruned"
        try:
            if not (folder / SUMMARY).exists() and not _was_stopped(config):
                with saying_which(config, label):
                    status = make_one_run(config, sweep.threads, stop, [reporter])
                if status in ("interrupted", "terminated", "waiting"):
                    return status
            if _was_stopped(config):
                give_its_name(config)
        except ForeignCodeError:  # its message may speak of memory, too
            raise
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            return _failed(study, trial, f"seed {seed} ran out of memory: {error}")
        summary = RunDirectory.open(folder).read_json(SUMMARY)
        best = summary["best_validation_perplexity"]
        if summary["status"] == "diverged":
            return _failed(study, trial, f"seed {seed} diverged at training step {summary['train_step']}")
        if reporter.pruned or (summary["stop_reason"] or "").startswith("pruned"):
            study.tell(trial, state=TrialState.PRUNED)
            return "pruned"
        if best is None:
            return _failed(study, trial, f"seed {seed} ended before anything was measured on the validation split")
        found.append(best)
        trial.set_user_attr(PERPLEXITIES, found)
    study.tell(trial, _mean(found))
    return "complete"


def _as_an_equal_one(study: optuna.Study, trial: optuna.Trial) -> str | None:
    """End a trial like an earlier one with the same values, whose runs would be the same to the last bit.

    Samplers draw values again that they have had, above all where there are few.
    """
    over = (TrialState.COMPLETE, TrialState.FAIL)
    for other in study.get_trials(deepcopy=False, states=over):
        if other.number < trial.number and other.params == trial.params:
            trial.set_user_attr(SAME_AS, other.number)
            if other.state == TrialState.FAIL:
                return _failed(study, trial, str(other.user_attrs.get(FAILURE, "")))
            trial.set_user_attr(PERPLEXITIES, other.user_attrs.get(PERPLEXITIES))
            study.tell(trial, other.value)
            return "complete"
    return None


def _was_stopped(config: RunConfig) -> bool:
    """Tell whether a callback, the pruner's or one of the user's, has ended the run, which has not got its name yet."""
    try:
        summary = RunDirectory.open(unfinished_folder(config)).read_json(SUMMARY)
    except (FileNotFoundError, ValueError):
        return False
    return bool(summary.get("status") == "stopped" and summary.get("stop_reason"))


def _failed(study: optuna.Study, trial: optuna.Trial, reason: str) -> str:
    trial.set_user_attr(FAILURE, reason)
    study.tell(trial, state=TrialState.FAIL)
    return "failed"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
