"""Runs many runs: arms over seeds, side by side, so that they can be stopped and continued.

    <folder>/comparison.json                    what was asked for
    <folder>/tuning/<arm>/lr<rate>/seed<n>      runs that choose an arm's learning rate; the test split is not touched
    <folder>/runs/<arm>/seed<n>                 the runs that are compared

Every arm sees the same initial weights and batches for the same seed, for they come from streams of their own
(`tying_env.seeding`). Runs go through joblib: local processes, or an existing Ray or Dask cluster.
"""

import dataclasses
import importlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from agents.run_config import RunConfig
from agents.runner import resume, run
from tying_env.files import to_json, written_whole
from tying_env.runs import RunDirectory
from tying_env.runs.checkpoints import FOLDER as CHECKPOINTS
from tying_env.runs.run_directory import SUMMARY

Backend = Literal["loky", "ray", "dask"]

# Makes an arm's configuration once the runs of earlier arms are there: (folder of the runs, seed) -> configuration.
Configure = Callable[[Path, int], RunConfig]


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Attributes:
        label: its name, in the report and as a folder.
        configure: makes its configuration for a seed; seed, label and folder are filled in.
        after: labels of arms whose runs it needs.
        rate_of: label of the arm whose chosen learning rate it takes, instead of a grid of its own.
    """

    label: str
    configure: Configure
    after: tuple[str, ...] = ()
    rate_of: str | None = None


@dataclass(frozen=True)
class Plan:
    """How the runs are carried out.

    Raises:
        ValueError: a setting is outside its range.
    """

    folder: Path
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...] = ()
    tuning_seeds: tuple[int, ...] = ()
    jobs: int = 1
    threads: int = 1
    backend: Backend = "loky"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be different whole numbers, at least one, got {self.seeds}")
        if self.learning_rates and not self.tuning_seeds:
            raise ValueError("a learning-rate grid needs at least one tuning seed")
        if set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(f"tuning seeds {self.tuning_seeds} must be other seeds than {self.seeds}")
        for name in ("jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {self.backend!r}")


class Quiet:
    """An observer that says nothing: many runs at once would talk all at the same time."""

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def compare(arms: Sequence[Arm], plan: Plan, settings: dict[str, Any], on_run: Callable[[int, int], None]) -> None:
    """Make all runs that are not there yet.

    Args:
        arms: what to compare; an arm stands behind those it needs.
        plan: seeds, learning rates and where to run.
        settings: what the caller was asked for; kept in comparison.json, and a continued comparison must have the same.
        on_run: is told (runs done, runs in all) before the first run and after each.

    Raises:
        ValueError: arms do not fit each other, or the folder holds another comparison.
    """
    labels = [arm.label for arm in arms]
    for i, arm in enumerate(arms):
        if arm.label in labels[:i]:
            raise ValueError(f"the arm {arm.label!r} is there twice")
        if missing := {*arm.after, *([arm.rate_of] if arm.rate_of else [])} - set(labels[:i]):
            raise ValueError(f"the arm {arm.label!r} needs the arm {sorted(missing)[0]!r} before it")
    _remember(plan.folder, settings)
    tuning = sum(arm.rate_of is None for arm in arms) * len(plan.learning_rates) * len(plan.tuning_seeds)
    total, done = tuning + len(arms) * len(plan.seeds), 0
    on_run(done, total)

    def carry_out(configurations: list[RunConfig]) -> None:
        nonlocal done
        waiting = [config for config in configurations if not _finished(config)]
        done += len(configurations) - len(waiting)
        on_run(done, total)
        for _ in _parallel(waiting, plan):
            done += 1
            on_run(done, total)

    ready: set[str] = set()
    while len(ready) < len(arms):  # arms that need no run that is still to come
        wave = [arm for arm in arms if arm.label not in ready and {*arm.after, arm.rate_of} <= {*ready, None}]
        carry_out([c for arm in wave if arm.rate_of is None for c in _tuning_runs(arm, plan)])
        carry_out([_final_run(arm, plan, seed) for arm in wave for seed in plan.seeds])
        ready |= {arm.label for arm in wave}


def chosen_learning_rate(arm: str, plan: Plan) -> float | None:
    """Return the rate of the grid with the lowest mean best validation perplexity; None without a grid."""

    def mean(rate: float) -> float:
        folders = [_tuning_folder(plan, arm, rate, seed) for seed in plan.tuning_seeds]
        found = [RunDirectory.open(f).read_json(SUMMARY)["best_validation_perplexity"] for f in folders]
        return sum(float("inf") if value is None else value for value in found) / len(found)

    return min(plan.learning_rates, key=mean) if plan.learning_rates else None


def _tuning_runs(arm: Arm, plan: Plan) -> list[RunConfig]:
    return [
        dataclasses.replace(
            _with_rate(arm.configure(plan.folder / "runs", seed), rate),
            seed=seed,
            label=arm.label,
            run_dir=_tuning_folder(plan, arm.label, rate, seed),
            measure_test=False,
        )
        for rate in plan.learning_rates
        for seed in plan.tuning_seeds
    ]


def _final_run(arm: Arm, plan: Plan, seed: int) -> RunConfig:
    folder = plan.folder / "runs" / arm.label / f"seed{seed}"
    config = _with_rate(arm.configure(plan.folder / "runs", seed), chosen_learning_rate(arm.rate_of or arm.label, plan))
    return dataclasses.replace(config, seed=seed, label=arm.label, run_dir=folder)


def _with_rate(config: RunConfig, rate: float | None) -> RunConfig:
    return (
        config if rate is None else dataclasses.replace(config, env=dataclasses.replace(config.env, learning_rate=rate))
    )


def _tuning_folder(plan: Plan, label: str, rate: float, seed: int) -> Path:
    return plan.folder / "tuning" / label / f"lr{rate:g}" / f"seed{seed}"


def _finished(config: RunConfig) -> bool:
    assert config.run_dir is not None
    return (config.run_dir / SUMMARY).exists()


def _remember(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what was asked for, or check that it is what was asked for before."""
    path = folder / "comparison.json"
    text = to_json(settings, indent=2) + "\n"
    if path.exists():
        before, now = (RunDirectory(folder).read_json(path.name), json.loads(text))
        differ = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differ:
            listed = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in differ)
            raise ValueError(f"{folder} holds a comparison with other settings: {listed}")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} exists already and is no comparison; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _parallel(configurations: list[RunConfig], plan: Plan) -> Any:
    """Carry out runs, several at a time; yield as each is done."""
    if not configurations:
        return iter(())
    from joblib import Parallel, delayed, parallel_config

    if plan.backend == "ray":
        _import("ray.util.joblib", "ray").register_ray()
    elif plan.backend == "dask":
        _import("distributed", "distributed")
    threads = {"inner_max_num_threads": plan.threads} if plan.backend == "loky" else {}
    with parallel_config(backend=plan.backend, n_jobs=plan.jobs, **threads):
        return Parallel(return_as="generator_unordered" if plan.backend == "loky" else "list")(
            delayed(carry_out_run)(config, plan.threads) for config in configurations
        )


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"the backend needs the package {package!r}: pip install {package}") from error


def carry_out_run(config: RunConfig, threads: int) -> str:
    """Make one run in a folder of a temporary name, so that a run that was stopped is not taken for a finished one.

    A run that was stopped goes on from its newest checkpoint. The checkpoints of a run that is over are removed: many
    runs would fill the disk with them.
    """
    import torch

    torch.set_num_threads(threads)
    assert config.run_dir is not None
    unfinished = config.run_dir.with_name(config.run_dir.name + ".unfinished")
    status = _go_on(config, unfinished)
    if status is None:
        shutil.rmtree(unfinished, ignore_errors=True)
        _, status = run(dataclasses.replace(config, run_dir=unfinished), Quiet())
    if status in ("interrupted", "terminated"):
        raise KeyboardInterrupt
    shutil.rmtree(unfinished / CHECKPOINTS, ignore_errors=True)
    unfinished.rename(config.run_dir)
    return status


def _go_on(config: RunConfig, unfinished: Path) -> str | None:
    """Go on with a run that was stopped; None where there is none, or none that can be gone on with."""
    try:
        return resume(unfinished, Quiet(), config)[1]
    except (FileNotFoundError, ValueError):
        return None
