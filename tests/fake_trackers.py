"""Stand-ins for wandb, MLflow and Trackio that record what they are asked for."""

import types
from typing import Any


class FakeWandb(types.ModuleType):
    """Records what wandb is asked for."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.id, self.step, self.resumed, self.summary = "w1", 0, False, self

    def init(self, **settings: Any) -> "FakeWandb":
        self.calls.append(("init", settings))
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.calls.append(("log", step))

    def update(self, summary: dict[str, Any]) -> None:
        self.calls.append(("summary", summary))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


class FakeMlflow(types.ModuleType):
    """Records what MLflow is asked for; module, client, experiment and run in one."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.entities = types.SimpleNamespace(Param=lambda *of: of, Metric=lambda *of: of)
        self.info, self.run_id, self.tags = self, "m1", {}
        self.params: dict[str, str] = {}
        self.batches: list[int] = []
        self.metrics: list[tuple[str, float, int, int]] = []
        self.statuses: list[str] = []

    def MlflowClient(self, uri: str | None) -> "FakeMlflow":
        self.uri = uri
        return self

    def get_experiment_by_name(self, name: str) -> None:
        self.experiment = name

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str) -> "FakeMlflow":
        return self

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        self.batches.append(len(params))
        self.params |= dict(params)
        self.metrics += metrics

    def set_tag(self, run: str, name: str, value: str) -> None:
        self.tags[name] = value

    def set_terminated(self, run: str, status: str) -> None:
        self.statuses.append(status)

    def update_run(self, run: str, status: str) -> None:
        self.statuses.append(status)

    def get_metric_history(self, run: str, name: str) -> list[Any]:
        return [types.SimpleNamespace(step=step) for key, _, _, step in self.metrics if key == name]


class FakeTrackio(types.ModuleType):
    """Records what Trackio is asked for."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.inits: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0

    def init(self, **settings: Any) -> "FakeTrackio":
        self.inits.append(settings)
        return self

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.finished += 1
