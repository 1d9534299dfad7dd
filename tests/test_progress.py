import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tying_agents.running.progress import ProgressBar

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
    loop: Any = SimpleNamespace(train_step=record["train_step"], total_steps=300, tokens_per_second=123_456.0)
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
