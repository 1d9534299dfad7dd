import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tying_agents.run_config import RunConfig
from tying_agents.running import progress
from tying_agents.running.progress import ProgressBar
from tying_agents.running.runner import run

from tying_env import EnvConfig

RECORD: dict[str, Any] = {
    "train_step": 299,
    "train_loss": 10.906,
    "perplexity": 50_257.4,
    "validation_perplexity": 48_678.2,
    "independent_layers": 48,
    "epsilon": 0.95,
}
NUMBERS = "123,456 tok/s · loss 10.906 · ppl 50,257 · val 48,678 · indep 48 · eps 0.95"


def shown(record: dict[str, Any], width: int) -> list[str]:
    """The lines that stand on a terminal of this width after one decision."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bar = ProgressBar(console)
    loop: Any = SimpleNamespace(steps_done=record["train_step"], total_steps=300, tokens_per_second=123_456.0)
    with console.capture() as capture:
        bar.decision_made(loop, record)
        console.print(*bar._bar.get_renderables(), sep="\n")
    return [line.strip() for line in capture.get().splitlines()]


def test_the_largest_numbers_fit_into_80_columns() -> None:
    steps, numbers = shown(RECORD, 80)
    assert steps.startswith("step 299/300")
    assert numbers == NUMBERS


@pytest.mark.parametrize("width", [40, 60])
def test_nothing_is_lost_on_a_narrower_terminal(width: int) -> None:
    _, *lines = shown(RECORD, width)
    assert " ".join(lines).endswith(NUMBERS)
    assert max(map(len, lines)) <= width


def test_images_have_their_accuracy_beside_that() -> None:
    _, *lines = shown(RECORD | {"accuracy": 0.991, "validation_accuracy": 0.987}, 80)
    assert " ".join(lines).endswith("indep 48 · acc 99.1% · val 98.7% · eps 0.95")


@pytest.mark.parametrize(
    ("perplexity", "text"), [(9.9, "9.9"), (1234.5, "1,234"), (3.2e12, "3e+12"), (float("inf"), "inf")]
)
def test_perplexities_take_few_characters(perplexity: float, text: str) -> None:
    assert (
        f"· ppl {text} · val - ·"
        in shown(RECORD | {"perplexity": perplexity, "validation_perplexity": float("inf")}, 80)[-1]
    )


class Clock:
    """A clock that a minute passes on between any two readings."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 60.0
        return self.now


def lines_of_a_run(tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **changed: Any) -> list[str]:
    monkeypatch.setattr(progress, "time", Clock())
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    settings = tiny | {"k": 5, "total_steps": 12} | changed
    run(
        RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**settings), test_windows=4), [ProgressBar(console)]
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_log_file_counts_training_steps_from_the_first_on(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = lines_of_a_run(tmp_path, tiny, monkeypatch)
    assert lines[:5] == [f"step {step}/12, before the first decision" for step in range(5)]
    assert [line.split()[1] for line in lines if line.startswith("step ")][-1] == "12/12"
    assert "step 11/12" in lines


def test_the_bar_of_a_resumed_run_begins_where_it_goes_on() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bar = ProgressBar(console)
    with console.capture():
        bar.run_begins(SimpleNamespace(steps_done=200, total_steps=300))  # type: ignore[arg-type]
        (task,) = bar._bar.tasks
        assert (task.completed, task.total, task.speed) == (200, 300, None)
        bar.run_ends(SimpleNamespace(), "stopped")  # type: ignore[arg-type]
