"""TensorBoard curves of a run, and the replication map over time."""

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.files import naming
from tying_env.kinds import Kinds
from tying_env.render import replication_map_image

# TensorBoard's tag -> key in a metrics record.
_SCALARS = {
    "train/loss_nats_per_token": "train_loss",
    "train/perplexity": "perplexity",
    "validation/perplexity": "validation_perplexity",
    "validation/input_dependence": "input_dependence",
    "train/learning_rate": "learning_rate",
    "train/gradient_norm": "gradient_norm",
    "train/accuracy": "accuracy",
    "validation/accuracy": "validation_accuracy",
    "tying/interval": "interval",
    "tying/independent_layers": "independent_layers",
    "tying/trainable_parameters": "trainable_parameters",
    "tying/tied_events": "tied_events",
    "tying/untied_events": "untied_events",
    "controller/reward": "reward",
    "controller/epsilon": "epsilon",
    "controller/q_loss": "q_loss",
}
# Measured now and then; records repeat the last measurement.
_NOW_AND_THEN = ("validation_perplexity", "input_dependence")
_PICTURES = 20  # in an episode, at most: a picture takes a tenth of a second


class Curves:
    """Writes TensorBoard events into a run directory.

    Args:
        path: the run directory.
        config: how long the run is.
        resumed_at: the training step at which a run is resumed; what was shown of later ones is taken back.
        lines: by tag, numbers that others are to be held against: what frequencies alone come to. None is not drawn.
        kinds: of the units; None: those that the settings tell.
    """

    def __init__(
        self,
        path: Path,
        config: EnvConfig,
        resumed_at: int | None = None,
        lines: Mapping[str, float | None] | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = path
        self._last: dict[str, float] = {}
        self._pictured: list[int] | None = None  # the tying of the last picture
        self._writer = SummaryWriter(path, purge_step=None if resumed_at is None else resumed_at + 1)
        self._every = max(1, config.total_steps // config.k // _PICTURES)
        self._kinds = kinds or config.kinds
        chance, _ = partition.chance_independent_layers(*self._kinds.sizes)
        # The line that chance gives, beside tying/independent_layers; those below which learning begins.
        self._lines = {"tying/independent_layers_by_chance": chance, **(lines or {})}

    def __enter__(self) -> Self:
        # A full disk ends TensorBoard's writing thread with a traceback, and reaches us through `flush` as well.
        self._hook, threading.excepthook = threading.excepthook, self._ignore_writing_thread
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with naming(self._path / "events.out.tfevents.*"):
                self._writer.close()
        finally:
            threading.excepthook = self._hook

    def add(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Add one decision's numbers at its training step; every now and then the map, where the tying has changed.

        Raises:
            OSError: the events cannot be written.
        """
        step = record["train_step"]
        with naming(self._path / "events.out.tfevents.*"):
            for tag, key in _SCALARS.items():
                if key in record and record[key] != self._last.get(key) and math.isfinite(record[key]):
                    self._writer.add_scalar(tag, record[key], step)
            self._last = {key: record[key] for key in _NOW_AND_THEN if key in record}
            for tag, value in self._lines.items():
                if value is not None:
                    self._writer.add_scalar(tag, value, step)
            self._writer.add_scalar("speed/tokens_per_second", tokens_per_second, step)
            due = record["decision"] == 1 or record["decision"] % self._every == 0
            if due and (tying := list(record["tying"])) != self._pictured:
                self._pictured = tying
                picture = replication_map_image(tying, f"Training step {step}", self._kinds)
                self._writer.add_image("replication_map", picture, step, dataformats="HWC")
            self._writer.flush()

    def _ignore_writing_thread(self, failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__module__.startswith("tensorboard."):
            return
        self._hook(failure)
