"""Small sweeps: their command lines, and what is in their storage."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from tying_agents.many.tuning.plan import STORAGE
from tying_agents.many.tuning.search import parse_searches
from tying_agents.run_config import RunConfig

from tests.conftest import TINY
from tying_env import EnvConfig

RATES = "learning-rate: log 1e-4..1e-1"


# Of a run, whose perplexity is measured twice.
TOTAL_STEPS = 2 * TINY["validate_every"]


def options(out: Path, text_folder: Path, *more: str) -> list[str]:
    settings = TINY | {"dataset": str(text_folder), "total_steps": TOTAL_STEPS}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["--out", str(out), *words, *more]


def trials_of(out: Path) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{out / STORAGE}")
    try:
        return optuna.load_study(study_name="sweep", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def base(**env: Any) -> RunConfig:
    return RunConfig(env=EnvConfig(**TINY | env))


def found(text: str, config: RunConfig | None = None) -> Any:
    return parse_searches([text], config or base())[0]
