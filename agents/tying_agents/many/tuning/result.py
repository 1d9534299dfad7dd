"""What a sweep came to: the best settings, as a file and as an arm, and everything its page shows."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tying_agents.config_files import to_toml
from tying_agents.many.tuning.plan import Sweep
from tying_agents.many.tuning.search import with_values
from tying_agents.many.tuning.study import opened
from tying_agents.many.tuning.trial import FAILURE, SAME_AS
from tying_agents.run_config import RunConfig
from tying_env.config.network import unit_of_perplexity
from tying_env.differences import flat
from tying_env.files import to_json, written_whole
from tying_env.reports.sweep_figures import State, SweepResult, SweptSetting, SweptTrial

BEST, PAGE = "best.toml", "tuning.html"
# Fewer complete trials than this say nothing of which setting mattered: a forest of trees is fitted to them.
ENOUGH_FOR_IMPORTANCES = 10

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def read_result(sweep: Sweep) -> SweepResult:
    """Return what the storage has.

    Raises:
        OSError: it cannot be opened.
    """
    with opened(sweep) as study:
        trials = study.get_trials(deepcopy=False)
        shares, why_none = _importances(study, sweep)
    searched = {search.name for search in sweep.searches}
    common = flat(json.loads(to_json(dataclasses.asdict(sweep.base))))
    hidden = {"seed", "run_dir", "label", "measure_test", "test_windows"}
    about = [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in common.items()
        if name not in hidden and name.rpartition(".")[2] not in searched
    ]
    found = SweepResult(
        trials=[_plain(trial, sweep) for trial in trials],
        settings=[_setting(search.option, search.text, search.log, search.stored()) for search in sweep.searches],
        seeds=sweep.seeds,
        unit=_unit(sweep.base),
        importances=shares,
        why_none=why_none,
        about=[("sampler", f"{sweep.sampler}, seed {sweep.seed}"), ("pruner", sweep.pruner), *about],
    )
    return dataclasses.replace(found, notes=_notes(found, sweep))


def best_config(sweep: Sweep, result: SweepResult) -> RunConfig:
    """Return the settings of the best trial, for an ordinary run.

    Raises:
        ValueError: no trial is complete; the message says why the last one that failed did.
    """
    if result.best is None:
        reasons = [trial.reason for trial in result.of("failed")]
        why = f"; the last one that failed: {reasons[-1]}" if reasons else ""
        raise ValueError(f"no trial is complete, so there are no best settings{why}")
    values = result.best.values
    return with_values(sweep.base, [(search, search.value(values[search.option])) for search in sweep.searches])


def write_best(sweep: Sweep, config: RunConfig) -> None:
    """Write the settings as `layer-tying run --config` takes them.

    Raises:
        OSError: the file cannot be written.
    """
    with written_whole(sweep.folder / BEST) as unfinished:
        unfinished.write_text(to_toml(config), encoding="utf-8")


def _plain(trial: FrozenTrial, sweep: Sweep) -> SweptTrial:
    names = {search.name: search.option for search in sweep.searches}
    value = trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
    return SweptTrial(
        number=trial.number,
        state=_STATES[trial.state],
        value=None if value is None or not math.isfinite(value) else value,
        values={names[name]: value for name, value in trial.params.items() if name in names},
        curve=sorted(trial.intermediate_values.items()),
        reason=_reason(trial),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
    )


def _reason(trial: FrozenTrial) -> str:
    same = trial.user_attrs.get(SAME_AS)
    said = [str(trial.user_attrs[FAILURE])] if FAILURE in trial.user_attrs else []
    return "; ".join([*said, *([] if same is None else [f"the same settings as trial {same}: not run again"])])


def _setting(option: str, text: str, log: bool, choices: tuple[Any, ...]) -> SweptSetting:
    return SweptSetting(option, text.partition(": ")[2], log, choices)


def _importances(study: optuna.Study, sweep: Sweep) -> tuple[dict[str, float], str]:
    """Return each setting's share, highest first; or why there are none.

    fANOVA (Hutter et al. 2014) on the logarithm of perplexity: a single bad trial would be most of the variance of
    perplexity itself.
    """
    values = [t.value for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None]
    if len(values) < ENOUGH_FOR_IMPORTANCES:
        few = f"importances need at least {ENOUGH_FOR_IMPORTANCES} complete trials, and there are {len(values)}"
        return {}, few if sweep.pruner == "none" else f"{few}: make more --trials, or all of them with --pruner none"
    if len(set(values)) == 1:
        return {}, "all complete trials have the same value"
    try:
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            target=lambda trial: math.log(trial.value or math.nan),
        )
    except ImportError:
        return {}, "importances need scikit-learn: pip install 'tying-env[tune]'"
    names = {search.name: search.option for search in sweep.searches}
    return {names[name]: float(share) for name, share in found.items()}, ""


def _unit(config: RunConfig) -> str:
    return unit_of_perplexity(config.env.model, [config.env.tokenizer])


def _notes(result: SweepResult, sweep: Sweep) -> Sequence[str]:
    notes = []
    if result.best is not None:
        for search in sweep.searches:
            value = result.best.values[search.option]
            if not search.choices and isinstance(value, (int, float)):
                span = (math.log(search.low), math.log(search.high)) if search.log else (search.low, search.high)
                place = ((math.log(value) if search.log else value) - span[0]) / (span[1] - span[0])
                if not 0.05 < place < 0.95:
                    notes.append(
                        f"The best {search.option} lies at the edge of what was searched ({search.text}): search "
                        "further out."
                    )
    if len(sweep.seeds) == 1:
        notes.append("Trials have one seed each: small differences between them may be chance.")
    if failed := result.of("failed"):
        notes.append(
            f"{len(failed)} of {len(result.trials)} trials failed; their reasons stand in the table of trials."
        )
    return notes
