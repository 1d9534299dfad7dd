"""MLflow (https://mlflow.org/docs/latest/tracking/)."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tying_agents.loop import Loop
from tying_agents.trackers.base import PROJECT, Tracker, finite_numbers, import_library
from tying_env.differences import flat

# Of the run -> of MLflow (mlflow.entities.RunStatus).
_STATUS = {"failed": "FAILED", "diverged": "FAILED", "interrupted": "KILLED", "terminated": "KILLED"}
_BATCH = 100  # parameters that MLflow takes at once
_LONGEST = 6000  # characters that it takes as a parameter's value


class MlflowTracker(Tracker):
    """Logs a run to MLflow.

    Its environment variables decide: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and the others. Without them that is
    MLflow's own default, offline: `sqlite:///mlflow.db` in the working directory. Settings become parameters with
    dotted names (env.k), texts of the summary become tags.

    Args:
        experiment: goes before MLFLOW_EXPERIMENT_NAME; "layer-tying" where neither is given.
        tracking_uri: goes before MLFLOW_TRACKING_URI.

    Raises:
        ImportError: MLflow is not installed.
    """

    kind = "mlflow"

    def __init__(self, experiment: str | None = None, tracking_uri: str | None = None) -> None:
        super().__init__()
        self._mlflow = import_library("mlflow", "mlflow")
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        self._uri = tracking_uri
        self._client: Any = None
        self._run = ""

    def begin(self, loop: Loop, name: str, settings: dict[str, Any], saved: str | None) -> tuple[str, int]:
        """Create a run, or set one to running again."""
        self._client = self._mlflow.MlflowClient(self._uri)
        if saved is not None:
            self._run = saved
            self._client.update_run(saved, status="RUNNING")
            steps = [metric.step for metric in self._client.get_metric_history(saved, "decision")]
            return saved, max(steps, default=-1)
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = self._client.create_experiment(self._experiment) if experiment is None else experiment.experiment_id
        self._run = self._client.create_run(number, run_name=name).info.run_id
        texts = {key: _as_text(value)[:_LONGEST] for key, value in flat(settings).items()}
        parameters = [self._mlflow.entities.Param(key, text) for key, text in texts.items()]
        for first in range(0, len(parameters), _BATCH):
            self._client.log_batch(self._run, params=parameters[first : first + _BATCH])
        return self._run, -1

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Add metrics at a step."""
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, status: str, summary: dict[str, Any], step: int) -> None:
        """Add the summary, `summary.NAME` where it is a number, and set the run's status."""
        if not self._run:
            return
        numbers = finite_numbers(summary)
        self.log({f"summary.{name}": value for name, value in numbers.items()}, step)
        for name, value in {"status": status, **summary}.items():
            if name not in numbers:
                self._client.set_tag(self._run, name, _as_text(value))
        self._client.set_terminated(self._run, _STATUS.get(status, "FINISHED"))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
