"""What a comparison consists of: arms, seeds, rates, and where its runs are made."""

import dataclasses
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tying_agents.run_config import RunConfig
from tying_env.reports.loading import UNFINISHED

Backend = Literal["loky", "ray", "dask"]
RateSearch = Literal["grid", "climb"]

# Backend -> the package it needs, and the variable that its users name the scheduler with.
CLUSTERS: dict[str, tuple[str, str]] = {
    "ray": ("ray", "RAY_ADDRESS"),
    "dask": ("distributed", "DASK_SCHEDULER_ADDRESS"),
}


# Makes an arm's configuration once the runs of earlier arms are there: (folder of the runs, seed) -> configuration.
# The seed may be a tuning seed.
Configure = Callable[[Path, int], RunConfig]


@dataclass(frozen=True)
class ArmSpec:
    """One arm of a comparison.

    Attributes:
        label: its name, in the report and as a folder.
        configure: makes its configuration for a seed; seed, label and folder are filled in.
        after: labels of arms whose runs it needs.
    """

    label: str
    configure: Configure
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunPlan:
    """How the runs are carried out.

    Attributes:
        folder: of the comparison.
        seeds: of the runs that are compared.
        learning_rates: grid from which each arm gets its best; empty for what the configurations say.
        tuning_seeds: of the runs that choose.
        jobs: runs at a time.
        threads: CPU threads of each run.
        backend: where the runs are made.
        address: of the Ray or Dask cluster's scheduler; None for what the environment variable of the library says.
        rate_search: whether all rates of the grid are tried, or a climb over it; see `tying_agents.many.rates`.

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
    address: str | None = None
    rate_search: RateSearch = "grid"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be different whole numbers, at least one, got {self.seeds}")
        if len(set(self.learning_rates)) != len(self.learning_rates):
            raise ValueError(f"learning_rates must be different numbers, got {self.learning_rates}")
        if self.learning_rates and not self.tuning_seeds:
            raise ValueError("a learning-rate grid needs at least one tuning seed")
        if set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(f"tuning seeds {self.tuning_seeds} must be other seeds than {self.seeds}")
        for name in ("jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.rate_search not in get_args(RateSearch):
            raise ValueError(f"rate_search must be 'grid' or 'climb', got {self.rate_search!r}")
        if self.rate_search == "climb" and not self.learning_rates:
            raise ValueError("rate_search 'climb' needs a grid of learning_rates to climb, got none")
        if self.backend == "ray" and self.jobs == 1:
            raise ValueError("jobs must be at least 2 with the backend ray: joblib keeps a single job here, got 1")
        if self.backend != "loky" and not self.folder.is_absolute():
            raise ValueError(
                f"on a cluster, whose workers stand in folders of their own, the folder must be an absolute path, "
                f"got {str(self.folder)!r}"
            )
        check_backend(self.backend, self.address)


def tuning_runs(arm: ArmSpec, plan: RunPlan, rates: Sequence[float] | None = None) -> list[RunConfig]:
    """Return the runs that choose an arm's learning rate from these, or the whole grid; not with the test split."""
    return [
        dataclasses.replace(
            with_rate(arm.configure(plan.folder / "runs", seed), rate),
            seed=seed,
            label=arm.label,
            run_dir=tuning_folder(plan, arm.label, rate, seed),
            measure_test=False,
        )
        for rate in (plan.learning_rates if rates is None else rates)
        for seed in plan.tuning_seeds
    ]


def planned_run(arm: ArmSpec, plan: RunPlan, seed: int) -> RunConfig:
    """Return a run that is compared, without the learning rate that may still have to be chosen for it."""
    folder = plan.folder / "runs" / arm.label / f"seed{seed}"
    return dataclasses.replace(arm.configure(plan.folder / "runs", seed), seed=seed, label=arm.label, run_dir=folder)


def with_rate(config: RunConfig, rate: float | None) -> RunConfig:
    """Return the settings with this learning rate, or as they are."""
    if rate is None:
        return config
    return dataclasses.replace(config, env=dataclasses.replace(config.env, learning_rate=rate))


def tuning_folder(plan: RunPlan, label: str, rate: float, seed: int) -> Path:
    """Return the folder of a run that chooses a learning rate."""
    return plan.folder / "tuning" / label / f"lr{rate:g}" / f"seed{seed}"


def unfinished_folder(config: RunConfig) -> Path:
    """Return the folder of a run that is not over."""
    assert config.run_dir is not None
    return config.run_dir.with_name(config.run_dir.name + UNFINISHED)


def check_backend(backend: Backend, address: str | None) -> None:
    """Check that a backend is installed and has a cluster to go to; no connection is made.

    Raises:
        ValueError: no such backend, a cluster without an address, or an address that nothing is done with.
        ImportError: the backend's package is not installed; the message says what to install.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "loky":
        if address is not None:
            raise ValueError(f"address is for the backends ray and dask, got {address!r} with loky")
        return
    package, variable = CLUSTERS[backend]
    if not (address or os.environ.get(variable)):
        raise ValueError(f"the backend {backend!r} needs a cluster: give its --address, or set {variable}")
    import_backend(package)


def import_backend(package: str, module: str = "") -> Any:
    """Import a backend's package.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(f"{package}.{module}" if module else package)
    except ImportError as error:
        raise ImportError(f"this backend needs the package {package!r}: pip install {package}") from error
