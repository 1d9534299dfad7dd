"""TensorBoard curves, as a callback."""

from pathlib import Path

from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop
from tying_env.runs.tensorboard import Curves


class TensorBoard(Callback):
    """Writes TensorBoard events into a folder.

    Args:
        path: the folder.
        resumed: whether there may be events in it already; those of later steps are taken back.
    """

    def __init__(self, path: Path, resumed: bool = False) -> None:
        self._path = path
        self._resumed = resumed
        self._curves: Curves | None = None

    def run_begins(self, loop: Loop) -> None:
        """Open the file of events."""
        resumed_at = loop.train_step if self._resumed else None
        config, workload, known = loop.inner.config, loop.inner.workload, {}
        if config.validate_every:
            known = {
                "validation/perplexity_of_frequencies": workload.frequency_perplexity,
                "validation/accuracy_of_most_frequent_class": workload.frequency_accuracy,
            }
        lines = {tag: measure("validation", config.validation_windows) for tag, measure in known.items()}
        self._curves = Curves(self._path, config, resumed_at, lines, loop.inner.kinds).__enter__()

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Add the decision's numbers."""
        assert self._curves is not None
        self._curves.add({**record, "train_step": loop.train_step}, loop.tokens_per_second)

    def run_ends(self, loop: Loop, status: str) -> None:
        """Close the file."""
        if self._curves is not None:
            self._curves.__exit__(None, None, None)
