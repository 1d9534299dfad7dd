"""What a sweep consists of: searches, trials, seeds, and how the next values are chosen."""

import dataclasses
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tying_agents.config_files import differences_to_config
from tying_agents.many.tuning.search import Search, check_judged
from tying_agents.run_config import RunConfig
from tying_env.differences import listed
from tying_env.files import is_new_folder, to_json
from tying_env.runs.run_directory import RunDirectory
from tying_env.seeding import check_seed

Sampler = Literal["tpe", "random", "cmaes", "grid", "gp"]
Pruner = Literal["none", "median", "hyperband", "successive-halving"]

SWEEP, STORAGE, STUDY_LOCK, TRIALS = "sweep.json", "study.sqlite3", "study.lock", "trials"


@dataclass(frozen=True)
class Sweep:
    """A sweep and how it is carried out.

    Attributes:
        folder: of the storage and all runs.
        base: settings of every run, where nothing else is searched.
        searches: what is searched.
        seeds: of the runs of a trial; its value is their mean.
        trials: how many in all, those in the storage included.
        sampler: chooses the next values.
        pruner: ends trials early that look bad.
        seed: of the sampler.
        jobs: trials at a time.
        threads: CPU threads of each.

    Raises:
        ValueError: a setting is outside its range, or the sampler cannot search this.
        ImportError: the sampler needs a package that is not installed.
    """

    folder: Path
    base: RunConfig
    searches: tuple[Search, ...]
    seeds: tuple[int, ...]
    trials: int = 20
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seed: int = 0
    jobs: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.searches:
            raise ValueError("searches must be at least one, got none")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be different whole numbers, at least one, got {self.seeds}")
        for name in ("trials", "jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, kind in (("sampler", Sampler), ("pruner", Pruner)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        check_judged(self.base)
        self._check_sampler()

    def _check_sampler(self) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise ImportError("sweeps need the package optuna: pip install 'tying-env[tune]'")
        if self.sampler == "cmaes":
            if importlib.util.find_spec("cmaes") is None:
                raise ImportError("the sampler 'cmaes' needs the package cmaes: pip install 'tying-env[search]'")
            if chosen := [search.option for search in self.searches if search.choices]:
                raise ValueError(f"the sampler 'cmaes' searches ranges of numbers only; {chosen[0]} is a choice")
        if self.sampler == "grid" and (endless := [s.option for s in self.searches if s.grid() is None]):
            raise ValueError(
                f"the sampler 'grid' needs steps or a choice for every search; {endless[0]} has endlessly many values"
            )

    @property
    def wanted(self) -> int:
        """Trials in all: those asked for, but of a grid no more than it has points."""
        if self.sampler != "grid":
            return self.trials
        return min(self.trials, math.prod(len(search.grid() or ()) for search in self.searches))

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial, with a folder for each seed's run."""
        return self.folder / TRIALS / f"{number:04d}"


def sweep_settings(sweep: Sweep) -> dict[str, Any]:
    """Return what decides what the trials are, as JSON has it; how many, how chosen and how pruned may change."""
    run = dataclasses.asdict(sweep.base)
    settings = {"searches": [search.text for search in sweep.searches], "seeds": sweep.seeds, "run": run}
    plain: dict[str, Any] = json.loads(to_json(settings))
    return plain


def refuse_other_sweep(sweep: Sweep) -> None:
    """Check that the folder is new or holds this sweep.

    Raises:
        ValueError: it holds something else.
    """
    folder = sweep.folder
    if is_new_folder(folder, SWEEP, STUDY_LOCK):
        return
    if not (folder / SWEEP).is_file():
        raise ValueError(f"{folder} exists already and is no sweep; choose another --out")
    there, here = RunDirectory(folder).read_json(SWEEP), sweep_settings(sweep)
    run = there.pop("run", {})
    del here["run"]
    if differ := [*listed(there, here), *differences_to_config(run, sweep.base)]:
        raise ValueError(f"{folder} holds a sweep with other settings: {'; '.join(differ)}. Choose another --out")
