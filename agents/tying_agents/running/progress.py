"""Shows how a run goes: a bar in a terminal, a line now and then in a log file."""

import math
import time
from collections.abc import Iterable
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from tying_agents.callbacks import Callback, Record
from tying_agents.loop import Loop

_LOG_SECONDS = 10.0  # between two lines in a log file


class _Bar(Progress):
    """A bar with a line of numbers below it, or two: side by side they do not fit into 80 columns."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.numbers, overflow="fold")


class ProgressBar(Callback):
    """A bar on a terminal; in a log file a line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line = self._began = -math.inf
        self._bar = _Bar(
            TextColumn("[bold]step {task.completed}/{task.total}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("training", total=None)

    def run_begins(self, loop: Loop) -> None:
        """Show where the run begins: a resumed one has steps behind it."""
        # A new beginning for its clock, too: steps of before do not count as done in no time.
        self._bar.reset(self._task, completed=loop.steps_done, total=loop.total_steps)
        self._began = time.monotonic()
        self._bar.start()

    def run_ends(self, loop: Loop, status: str) -> None:
        """Leave the terminal in order."""
        self._bar.stop()

    def training_step(self, loop: Loop) -> None:
        """Show how far it is, also before the first decision and in a long one."""
        done = loop.steps_done
        self._bar.update(self._task, completed=done, total=loop.total_steps)
        now = time.monotonic()
        if not self._console.is_terminal and now - max(self._last_line, self._began) >= _LOG_SECONDS:
            self._last_line = now
            first = "" if loop.decisions else ", before the first decision"
            line = f"step {done}/{loop.total_steps}{first}"
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def decision_made(self, loop: Loop, record: Record) -> None:
        """Show one decision."""
        text = (
            f"{loop.tokens_per_second:,.0f} tok/s · loss {record['train_loss']:.3f}"
            f" · ppl {_short(record['perplexity'])}"
            f" · val {_measured(record['validation_perplexity'])} · indep {record['independent_layers']}"
        )
        if "accuracy" in record:
            measured = math.isfinite(record["validation_perplexity"])
            validation = f"{record['validation_accuracy']:.1%}" if measured else "-"
            text += f" · acc {record['accuracy']:.1%} · val {validation}"
        if "epsilon" in record:
            text += f" · eps {record['epsilon']:.2f}"
        self._bar.numbers = text
        self._bar.update(self._task, completed=loop.steps_done, total=loop.total_steps)
        now, last = time.monotonic(), loop.steps_done >= loop.total_steps
        if not self._console.is_terminal and (last or now - self._last_line >= _LOG_SECONDS):
            self._last_line = now
            line = f"step {loop.steps_done}/{loop.total_steps} · {text}"
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def note(self, text: str) -> None:
        """Show a remark above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)  # paths stay whole


def _measured(perplexity: float) -> str:
    return _short(perplexity) if math.isfinite(perplexity) else "-"


def _short(perplexity: float) -> str:
    return (
        f"{perplexity:,.1f}" if perplexity < 1e3 else f"{perplexity:,.0f}" if perplexity < 1e6 else f"{perplexity:.0e}"
    )


class TrainingBar:
    """Shows the steps of one training: called with (steps done, steps in all)."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn("[bold]step {task.completed}/{task.total}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(title, total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is; in a log file every ten seconds."""
        self._bar.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _LOG_SECONDS:
            self._last_line = now
            line = f"{self._title}: step {done}/{total}"
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
