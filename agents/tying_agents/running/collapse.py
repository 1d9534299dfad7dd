"""Says when the network has collapsed to the frequencies of its training data, as a callback."""

from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop
from tying_env.partition import IntVector
from tying_env.primary.collapse import Validation, collapsed_at, validations
from tying_env.runs import RunDirectory


class CollapseWatch(Callback):
    """Remarks once in an episode that the network has collapsed.

    Args:
        directory: of the run; what was measured before a resumed run was stopped stands there.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._frequencies: float | None = None
        self._measured: list[Validation] = []
        self._said = False

    def run_begins(self, loop: Loop) -> None:
        """Take up what was measured before."""
        self._frequencies = frequencies(loop)
        self._measured = measured_so_far(loop, self._directory)
        self._said = collapsed_at(self._measured, self._frequencies) is not None

    def episode_begins(self, loop: Loop, tying: IntVector | None) -> None:
        """Forget the last episode."""
        self._measured, self._said = [], False

    def validation_measured(self, loop: Loop, record: Record) -> None:
        """Look whether the network has collapsed."""
        self._measured += validations([record])
        if self._said or collapsed_at(self._measured, self._frequencies) is None:
            return
        self._said = True
        loop.callbacks.note(warning(self._measured[-1], self._frequencies or 0.0, loop.inner.config.warmup_length))


def warning(measured: Validation, frequencies: float, warmup_length: int) -> str:
    """Return what is said of a network that has collapsed.

    Args:
        measured: when it had.
        frequencies: the validation perplexity of the frequencies alone.
        warmup_length: training steps over which the learning rate rose, as `EnvConfig.warmup_length`.
    """
    advice = "--warmup-steps 20 helps"
    if warmup_length:
        advice = f"a longer warm-up than {warmup_length} steps (--warmup-steps) or a lower --learning-rate helps"
    return (
        f"The network has collapsed: its output hardly depends on its input "
        f"({measured.input_dependence:.2g} of the logits' mean square varies with position), and its validation "
        f"perplexity, {measured.perplexity:,.2f}, is no better than that of frequencies alone, {frequencies:,.2f}. "
        f"Often {advice}: docs/recipe.md."
    )


def frequencies(loop: Loop) -> float | None:
    """Return the validation perplexity of the frequencies alone; None where validation or they are not known."""
    config, workload = loop.inner.config, loop.inner.workload
    known: float | None = None
    if config.validate_every:
        known = workload.frequency_perplexity("validation", config.validation_windows)
    return known


def measured_so_far(loop: Loop, directory: RunDirectory) -> list[Validation]:
    """Return what was measured in the running episode, from the run directory."""
    return validations(record for record in directory.read_metrics() if record.get("episode") == loop.episode)
